"""The tables of features: what is refused, and what to write instead."""

from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tollway.gateway import settings as config

GROUP = """
[[features]]
name = "user"
entity = "{entity}"
source = "{source}"
values = {values}
{more}
"""
VALUES = '[{ name = "spend" }]'


def parse(
    entity: str = "$headers.x-user-id",
    source: str = "sqlite:///features.db",
    values: str = VALUES,
    more: str = "",
    route: str = 'features = ["user"]',
) -> config.Settings:
    group = GROUP.format(entity=entity, source=source, values=values, more=more)
    toml = two_backends("http://a:1", "http://b:1", route=route, more=group)
    return config.parse(toml, {}, folder=Path("/etc/tollway"))


def test_a_file_is_beside_the_configuration() -> None:
    assert parse().features[0].source == "sqlite:////etc/tollway/features.db"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"entity": "$cookie.user"}, r"\$cookie is unknown"),
        ({"source": "mongodb://x"}, "must be one of sqlite"),
        ({"source": "sqlite://features.db"}, "must name a file"),
        ({"source": "postgresql://me:secret@host/db"}, "must not contain a password"),
        ({"source": "postgresql://me@host/db?password=secret"}, "must not contain a password"),
        ({"more": 'per_tenant = true\nkeys = "integer"'}, 'must be "text" with per_tenant'),
        ({"source": "postgresql://host/db"}, "table"),
        ({"source": "postgresql://host", "more": 'table = "t"'}, "must name a database"),
        ({"source": "python:module"}, "must name a function"),
        ({"more": "writable = true"}, "applies only to a table"),
        ({"more": 'table = "a b"'}, "must be letters"),
        ({"more": 'token = "t"'}, "applies only to a feature server"),
        ({"more": "pool_min = 30"}, "greater than pool_max"),
        ({"values": '[{ name = "a" }, { name = "a" }]'}, "two of the same name"),
        ({"values": '[{ name = "a", default = "x" }]'}, "must be a number"),
        ({"values": '[{ name = "a", type = "category", default = 1 }]'}, "must be a text"),
        ({"values": '[{ name = "a", type = "text", range = [0, 1] }]'}, "of a number"),
        ({"route": 'features = ["usr"]'}, "is no group of"),
        ({"more": '[feature_tiers]\nredis = "http://x"'}, "must begin with redis"),
        ({"more": '[feature_tiers]\nredis = "redis://:pw@x"'}, "must not contain a password"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(given: dict[str, str], says: str) -> None:
    with pytest.raises(config.ConfigError, match=says):
        parse(**given)


def test_secrets_come_from_the_environment() -> None:
    group = GROUP.format(
        entity="user",
        source="postgresql://me@host/db",
        values=VALUES,
        more='table = "t"',
    )
    toml = two_backends("http://a:1", "http://b:1", more=group)
    found = config.parse(toml, {"TOLLWAY_FEATURES__USER__PASSWORD": "secret"})
    assert found.features[0].password is not None
    assert "secret" not in repr(found.effective())
