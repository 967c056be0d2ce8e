"""Secrets whose files the environment names."""

from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tollway.gateway import settings
from tollway.gateway.settings.errors import ConfigError

KEY = "a-key-for-this-test-only"
CONFIG = two_backends("http://one:1", "http://two:2")
TENANT = f"""
[[tenants]]
name = "acme"
key_hash = "sha256:{"0" * 64}"
"""


def test_a_secret_is_read_from_the_file_that_a_variable_names(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    read = settings.parse(CONFIG, {"TOLLWAY_SERVER__ADMIN_KEY_FILE": f"{tmp_path}/key"})
    assert read.server.admin_key is not None
    assert read.server.admin_key.get_secret_value() == KEY


def test_an_entry_of_a_list_can_have_its_secret_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "hash").write_text("sha256:" + "1" * 64)
    variable = {"TOLLWAY_TENANTS__ACME__KEY_HASH_FILE": f"{tmp_path}/hash"}
    [tenant] = settings.parse(CONFIG + TENANT, variable).tenants
    assert tenant.key_hash.get_secret_value() == "sha256:" + "1" * 64


def test_a_key_that_ends_in_file_itself_takes_a_path(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    config = CONFIG.replace('model = "small"', 'model = "small"\nauth = { bearer_file = "x" }')
    variable = {"TOLLWAY_BACKENDS__CHEAP__AUTH__BEARER_FILE": f"{tmp_path}/key"}
    auth = settings.parse(config, variable).backends[0].auth
    assert auth is not None and auth.bearer_file == tmp_path / "key"


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"TOLLWAY_SERVER__ADMIN_KEY_FILE": "{folder}/none"}, "No such file"),
        ({"TOLLWAY_SERVER__ADMIN_KEY_FILE": "sk-pasted"}, "must be an absolute path"),
        ({"TOLLWAY_SERVER__ADMIN_KEY_FILE": "{folder}"}, "Is a directory"),
        ({"TOLLWAY_SERVER__ADMIN_KEY_FILE": "{folder}/empty"}, "is empty"),
        ({"TOLLWAY_SERVER__LISTEN_FILE": "{folder}/key"}, "unknown variable"),
        ({"TOLLWAY_SERVER__FILE": "{folder}/key"}, "unknown variable"),
        (
            {
                "TOLLWAY_SERVER__ADMIN_KEY": KEY,
                "TOLLWAY_SERVER__ADMIN_KEY_FILE": "{folder}/key",
            },
            "sets the same key as TOLLWAY_SERVER__ADMIN_KEY; unset one of them",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_variable(
    tmp_path: Path, variables: dict[str, str], why: str
) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "empty").write_text(" \n")
    given = {name: value.format(folder=tmp_path) for name, value in variables.items()}
    with pytest.raises(ConfigError) as refused:
        settings.parse(CONFIG, given)
    [problem] = refused.value.problems
    assert problem.key in given
    assert why in str(refused.value)
    assert KEY not in str(refused.value) and "sk-pasted" not in str(refused.value)
