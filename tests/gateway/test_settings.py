import textwrap
from pathlib import Path

import pytest

from gateway.auth import hash_key
from gateway.ledger.types import MAX_LIMIT_NANO, Budget, Scope
from gateway.settings import ConfigError, load, parse
from policies.types import Objective

HASH = hash_key("tw_acme")

GOOD = f"""
[[backends]]
name = "digits-rules"
kind = "rules"
rules = "rules.toml"
price = {{ per_request_usd = 0.00001 }}

[[backends]]
name = "digits-gpu"
kind = "gpu"
protocol = "oip"
url = "http://127.0.0.1:9002"
price = {{ device_usd_per_hour = 2.50, concurrency = 8, utilization = 0.6 }}

[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["digits-rules", "digits-gpu"]
objective = "min_cost"
accuracy_floor = 0.97
baseline = "digits-gpu"
context = {{ numeric = ["inputs[0].data"], range = [0, 16] }}
score = {{ exact = "outputs[0].data[0]" }}

[[tenants]]
name = "acme"
key_hash = "{HASH}"

[[budgets]]
name = "acme-daily"
scope = {{ tenant = "acme", tags = {{ env = "prod" }} }}
limit_usd = 10.000000001
window = "day"
timezone = "Europe/Berlin"
"""


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse(textwrap.dedent(text), environ or {})
    return [str(problem) for problem in refused.value.problems]


def test_the_shape_that_the_documentation_shows_is_read() -> None:
    settings = parse(GOOD, {})
    (route,) = settings.routes
    assert route.backends == ("digits-rules", "digits-gpu")
    assert route.to_objective() == Objective("min_cost", floor=0.97, baseline="digits-gpu")
    assert route.context.range == (0, 16)
    assert settings.key_owners() == {HASH: "acme"}
    assert settings.backends[1].parsed_price().per_device_s_nano == pytest.approx(
        2.5e9 / 3600 / 8 / 0.6
    )


def test_a_budget_is_exact_to_the_nano_dollar() -> None:
    (budget,) = parse(GOOD, {}).budgets
    assert budget.to_budget() == Budget(
        name="acme-daily",
        scope=Scope(tenant="acme", tags=(("env", "prod"),)),
        limit_nano=10_000_000_001,
        window="day",
        timezone="Europe/Berlin",
    )
    # Sixteen digits: more than a double holds, so this fails where a float is on the way.
    largest = parse(GOOD.replace("10.000000001", "9007199.254740991"), {}).budgets[0]
    assert largest.to_budget().limit_nano == MAX_LIMIT_NANO


def test_paths_begin_at_the_file(tmp_path: Path) -> None:
    file = tmp_path / "tollway.toml"
    file.write_text(GOOD)
    settings = load(file, {})
    assert settings.backends[0].rules == tmp_path / "rules.toml"
    assert settings.ledger.url == f"sqlite:///{tmp_path}/tollway.db"
    assert settings.journal.dir == tmp_path / ".tollway/journal"
    assert settings.state.dir == tmp_path / ".tollway/state"
    absolute = parse(f'ledger.url = "sqlite:////srv/t.db"\n{GOOD}', {}, folder=tmp_path)
    assert absolute.ledger.url == "sqlite:////srv/t.db"


# Each: what to replace in GOOD, by what, and the whole of what is said about it.
REFUSED = [
    (
        "accuracy_floor = 0.97",
        "accuracy_floor = 1.2",
        "routes[0].accuracy_floor = 1.2: must be at most 1; write it like 0.97",
    ),
    (
        "accuracy_floor = 0.97",
        "",
        'routes[0].objective = "min_cost": needs a floor; write it like accuracy_floor = 0.97',
    ),
    ("10.000000001", "-1", "budgets[0].limit_usd = -1: must be at least 0; write it like 10.0"),
    (
        "10.000000001",
        "nan",
        "budgets[0].limit_usd = nan: must be a finite number; write it like 10.0",
    ),
    (
        "10.000000001",
        "inf",
        "budgets[0].limit_usd = inf: must be a finite number; write it like 10.0",
    ),
    ("10.000000001", "true", "budgets[0].limit_usd = true: must be a number, not true or false"),
    (
        "10.000000001",
        "0.0000000001",
        "budgets[0].limit_usd = 1e-10: has more than 9 decimals, and a nano-dollar is the smallest "
        "amount; write it like 10.0",
    ),
    (
        "10.000000001",
        "9007199.254740992",
        "budgets[0].limit_usd = 9007199.254740992: must be below 9007199.254740992 "
        "(2^53 nano-dollars); use a shorter window, or several budgets",
    ),
    (
        "Europe/Berlin",
        "europe/berln",
        'budgets[0].timezone = "europe/berln": is not an IANA time zone; did you mean '
        "'Europe/Berlin'?",
    ),
    (
        "Europe/Berlin",
        "../../etc/passwd",
        'budgets[0].timezone = "../../etc/passwd": is not an IANA time zone; write one like '
        "Europe/Berlin",
    ),
    (
        '"day"',
        '"dya"',
        'budgets[0].window = "dya": must be one of hour, day, week, month, ever; did you mean '
        "'day'?",
    ),
    (
        'tenant = "acme"',
        'tenant = "acmee"',
        'budgets[0].scope.tenant = "acmee": is no tenant, so it binds nothing; did you mean '
        "'acme'?",
    ),
    (
        'tenant = "acme"',
        'route = "digit"',
        'budgets[0].scope.route = "digit": is no route, so it binds nothing; did you mean '
        "'digits'?",
    ),
    ('window = "day"', 'then = "rules"\nscope.backend = "digits-gpu"', None),
    (
        '["digits-rules", "digits-gpu"]',
        "[]",
        'routes[0].backends = []: must not be empty; write it like ["digits-cpu", "digits-gpu"]',
    ),
    (
        '["digits-rules", "digits-gpu"]',
        '["digits-rulez", "digits-gpu"]',
        "routes[0].backends[0] = \"digits-rulez\": is no backend; did you mean 'digits-rules'?",
    ),
    ('["digits-rules", "digits-gpu"]', '["digits-gpu", "digits-gpu"]', None),
    ('baseline = "digits-gpu"', 'baseline = "digits-rule"', None),
    ('protocol = "oip"\nurl', 'protocol = "opi"\nurl', None),
    (
        'protocol = "oip"\nurl',
        'protocol = "plain"\nurl',
        "routes[0].backends[1] = \"digits-gpu\": speaks 'plain', but the route 'oip'; "
        "a route's backends all speak its protocol",
    ),
    (
        'protocol = "oip"\nurl',
        "url",
        'backends[1].protocol: is missing; write it like protocol = "oip"',
    ),
    (
        "per_request_usd",
        "per_reqest_usd",
        "backends[0].price: price.per_reqest_usd = 1e-05: is not a part of a price; "
        "write per_request_usd",
    ),
    ("{ per_request_usd = 0.00001 }", "{}", None),
    ("per_request_usd = 0.00001", "per_request_usd = nan", None),
    ("per_request_usd = 0.00001", "per_request_usd = -1", None),
    (
        'rules = "rules.toml"',
        "",
        'backends[0].kind = "rules": needs one of: rules = "FILE.toml", '
        'entry_point = "module:name"',
    ),
    (
        'rules = "rules.toml"',
        'rules = "r.toml"\nurl = "http://h"',
        'backends[0].url = "http://h": is not for rules, which run inside the gateway; remove it',
    ),
    ('kind = "gpu"', 'kind = "gpu"\nrules = "r.toml"', None),
    ('"inputs[0].data"', '"inputs[x]"', None),
    ("[0, 16]", "[16, 0]", "routes[0].context.range = [16, 0]: must rise; write it like [0, 16]"),
    (
        '{ exact = "outputs[0].data[0]" }',
        '{ near = "outputs" }',
        "routes[0].score.tolerance: goes with near; give both or neither",
    ),
    ('{ exact = "outputs[0].data[0]" }', "{}", None),
    (
        'name = "acme"',
        'name = "anonymous"',
        'tenants[0].name = "anonymous": is the name of callers without a key; write another',
    ),
    (HASH, "sha256:123", None),
    ("/v2/models/digits/infer", "v2", None),
    ("/v2/models/digits/infer", "/v2/x{y}", None),
    ("/v2/models/digits/infer", "/*/x", None),
    (
        "/v2/models/digits/infer",
        "/metrics",
        'routes[0].path = "/metrics": path is the gateway\'s own (/metrics); choose another',
    ),
    ("/v2/models/digits/infer", "/_tollway/x", None),
]


@pytest.mark.parametrize(("old", "new", "said"), REFUSED)
def test_a_mistake_is_refused_with_place_value_and_remedy(
    old: str, new: str, said: str | None
) -> None:
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    assert all(line.startswith("tollway.toml: ") for line in found)
    assert said is None or f"tollway.toml: {said}" in found, found
