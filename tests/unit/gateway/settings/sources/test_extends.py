from pathlib import Path

import pytest

from tests.support.configs import budget, two_backends
from tollway.gateway.settings import ConfigError, Settings, load
from tollway.gateway.settings.sources.extends import merge, resolve, shared

BASE = two_backends(
    "http://127.0.0.1:9001",
    "http://127.0.0.1:9002",
    server='listen = "127.0.0.1:8080"\nallow_anonymous = true',
    more=budget("day", "10"),
    ledger="sqlite:///tollway.db",
)
STAGING = """
extends = "tollway.toml"
environment = "staging"

[ledger]
url = "sqlite:///staging.db"
[journal]
dir = ".tollway/staging/journal"
[state]
dir = ".tollway/staging/state"

[[budgets]]
name = "day"
limit_usd = 2

[[backends]]
name = "dear"
price = { per_request_usd = 0.002 }
"""


def loaded(folder: Path, staging: str, environ: dict[str, str] | None = None) -> Settings:
    (folder / "tollway.toml").write_text(BASE)
    (folder / "tollway.staging.toml").write_text(staging)
    return load(folder / "tollway.staging.toml", environ or {})


def problems(folder: Path, staging: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        loaded(folder, staging, environ)
    return [str(problem) for problem in refused.value.problems]


def test_a_file_gives_only_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    base_file = tmp_path / "tollway.toml"
    staging = loaded(tmp_path, STAGING)
    base = load(base_file, {})
    assert (base.environment, staging.environment) == (None, "staging")
    assert staging.server == base.server
    assert staging.routes == base.routes
    assert [one.limit_usd for one in staging.budgets] == [2]
    assert staging.budgets[0].scope == base.budgets[0].scope
    assert [one.name for one in staging.backends] == ["cheap", "dear"]
    assert staging.backends[1].url == base.backends[1].url
    assert staging.ledger.url == f"sqlite:///{tmp_path}/staging.db"


def test_an_inner_table_is_replaced_as_a_whole_so_that_prices_do_not_add_up() -> None:
    base = {"backends": [{"name": "a", "price": {"per_request_usd": 1}, "url": "u"}]}
    over = {"backends": [{"name": "a", "price": {"device_usd_per_hour": 2}}, {"name": "b"}]}
    assert merge(base, over)["backends"] == [
        {"name": "a", "price": {"device_usd_per_hour": 2}, "url": "u"},
        {"name": "b"},
    ]


def test_an_empty_list_removes_all_entries() -> None:
    assert merge({"webhooks": [{"name": "a"}]}, {"webhooks": []}) == {"webhooks": []}


def test_a_name_that_is_given_twice_is_reported(tmp_path: Path) -> None:
    twice = STAGING + '\n[[budgets]]\nname = "day"\nlimit_usd = 3\n'
    assert any("day" in one and "name" in one for one in problems(tmp_path, twice))


def test_an_environment_has_stores_of_its_own(tmp_path: Path) -> None:
    found = problems(tmp_path, 'extends = "tollway.toml"\nenvironment = "staging"\n')
    assert [one.split(": ")[1].split(" =")[0] for one in found] == [
        "ledger.url",
        "journal.dir",
        "state.dir",
    ]
    assert 'write it like url = "sqlite:///staging.db"' in found[0]


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("sqlite:///tollway.db", "sqlite:///./x/../tollway.db"),
        ("sqlite:///tollway.db", "sqlite:///{folder}/tollway.db"),
        ("sqlite:///tollway.db", "sqlite:///{folder}/link/tollway.db"),
        ("redis://localhost", "redis://127.0.0.1:6379/0"),
        ("redis://127.0.0.1/3", "rediss://u:p@LOCALHOST.:6379/3?timeout_ms=9"),
        ("redis://localhost/3", "redis://[::1]?db=3"),
        ("redis://cache.example.:6379", "redis://Cache.example"),
        ("unix:///run/redis.sock", "unix:///run/../run/redis.sock?db=0"),
    ],
)
def test_another_spelling_of_a_store_is_the_same_store(tmp_path: Path, base: str, url: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    production = {"ledger": {"url": base}, "journal": {"dir": "j"}, "state": {"dir": "s"}}
    staging = {
        "environment": "staging",
        "ledger": {"url": url.format(folder=tmp_path)},
        "journal": {"dir": str(tmp_path / "link" / "j")},
        "state": {"dir": "x/../s"},
    }
    found = [place for place, _, _ in shared(staging, [production], tmp_path)]
    assert found == [("ledger", "url"), ("journal", "dir"), ("state", "dir")]


@pytest.mark.parametrize(
    "url",
    [
        *("redis://localhost/1", "redis://localhost:6380", "redis://other", "memory://"),
        *("sqlite:///staging.db", "redis://localhost?sentinel=staging", "unix:///run/redis.sock"),
    ],
)
def test_another_store_is_not(tmp_path: Path, url: str) -> None:
    production = {"ledger": {"url": "redis://localhost"}, "state": {"dir": "s"}}
    staging = {"environment": "staging", "ledger": {"url": url}, "journal": {"dir": "j"}}
    assert list(shared(staging, [production], tmp_path)) == []


def test_a_store_that_is_written_out_is_the_default_one(tmp_path: Path) -> None:
    staging = {"environment": "staging", "ledger": {"url": "sqlite:///tollway.db"}}
    places = [place for place, _, _ in shared(staging, [{}], tmp_path)]
    assert places == [("ledger", "url"), ("journal", "dir"), ("state", "dir")]


def test_an_environment_shares_no_store_with_any_that_it_extends(tmp_path: Path) -> None:
    production = {"ledger": {"url": "sqlite:///a.db"}}
    staging = {"environment": "staging", "ledger": {"url": "sqlite:///b.db"}}
    own = {"journal": {"dir": "j"}, "state": {"dir": "s"}}
    third = {"environment": "test", "ledger": {"url": "sqlite:///a.db"}, **own}
    assert [place for place, _, _ in shared(third, [staging, production], tmp_path)] == [
        ("ledger", "url")
    ]


def test_a_variable_can_give_an_environment_its_own_ledger(tmp_path: Path) -> None:
    shared = STAGING.replace('url = "sqlite:///staging.db"', "")
    assert len(problems(tmp_path, shared)) == 1
    environ = {"TOLLWAY_LEDGER__URL": "redis://127.0.0.1/7"}
    assert loaded(tmp_path, shared, environ).ledger.url == "redis://127.0.0.1/7"


@pytest.mark.parametrize("name", ['"../tollway.toml"', '""', "3"])
def test_only_a_file_in_the_same_folder_can_be_extended(tmp_path: Path, name: str) -> None:
    (found,) = problems(tmp_path, f"extends = {name}\n")
    assert "must be the name of a file in the same folder" in found


def test_a_circle_of_files_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a\.toml -> b\.toml -> a\.toml"):
        files = {"a.toml": {"extends": "b.toml"}, "b.toml": {"extends": "a.toml"}}
        resolve(files["a.toml"], "a.toml", files.__getitem__)


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, 'extends = "other.toml"\n')
    assert "other.toml" in found
    assert "cannot be read" in found


def test_what_is_extended_cannot_come_from_a_variable(tmp_path: Path) -> None:
    found = problems(tmp_path, STAGING, {"TOLLWAY_EXTENDS": "other.toml"})
    assert "write it into the file" in found[0]
