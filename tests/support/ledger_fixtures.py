"""The three ledgers, one at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ledgers import Implementation
from tests.support.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), "--appendonly", "no") as server:
        yield server


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.integration)],
)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Implementation:
    server = request.getfixturevalue("shared_redis") if request.param == "redis" else None
    return Implementation(request.param, tmp_path, server)
