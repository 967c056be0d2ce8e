"""A rollout that an earlier version has left in Redis goes on where it was."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis

from tests.support.redis_server import RedisServer, redis_server
from tollway.gateway.control_store.protocol import ControlStore
from tollway.gateway.control_store.registry import open_control_store
from tollway.gateway.observability.events import EventLog
from tollway.gateway.rollouts.model import Criterion, RolloutPlan, RolloutState, Step
from tollway.gateway.rollouts.service import Rollouts
from tollway.gateway.storage.audit_log import Actor, AuditLog

pytestmark = pytest.mark.integration

PLAN = RolloutPlan(
    "r",
    "old",
    "new",
    steps=(Step(0.5, None),),
    criteria=(Criterion("error_rate"),),
    starts=True,
    identity="A",
)
BACK = RolloutState("r", "run1", "salt", number=7, phase="rolled_back", identity="A")
STATE = "rollouts/r/state"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis", "--appendonly", "no") as server:
        yield server


def leave(server: RedisServer, key: str, document: Any, revision: int) -> None:
    """Write a document as versions before the folders of the control store did."""
    fields = {"document": json.dumps(document), "revision": str(revision)}
    with Redis(port=server.port) as client:
        client.hset(f"tollway:control:{key}", mapping=fields)


def opened(server: RedisServer) -> ControlStore:
    return open_control_store(f"{server.url}?timeout_ms=5000", clock=lambda: 0.0)


def gateway(server: RedisServer, folder: Path) -> Rollouts:
    rollouts = Rollouts(
        opened(server),
        events=EventLog(lambda: 0.0),
        audit=AuditLog(folder / "audit.jsonl", wall=lambda: 0.0),
        wall=lambda: 0.0,
    )
    route = SimpleNamespace(backends={"new": SimpleNamespace(up=True)}, apply=lambda states: None)
    rollouts.revise([PLAN], {"m": route})  # type: ignore[dict-item]
    return rollouts


def test_a_candidate_that_was_rolled_back_stays_so(server: RedisServer, tmp_path: Path) -> None:
    leave(server, STATE, BACK.document(), 7)
    leave(server, "rollouts/r/ran", ["A"], 1)
    leave(server, "rollouts/r/history", [{"kind": "rolled_back", "p95_s": float("nan")}], 3)

    async def main() -> None:
        rollouts = gateway(server, tmp_path)
        for _ in range(2):
            await rollouts.tick()
        assert (await rollouts.status("r"))["phase"] == "rolled_back"
        assert not rollouts.moves
        await rollouts.start("r", Actor("kim", "admin"), "it is mended")
        kinds = [move["kind"] for move in await rollouts.history("r")]
        assert kinds == ["started", "rolled_back"]
        await rollouts.close()

    asyncio.run(main())


def test_an_older_document_counts_until_it_is_replaced(server: RedisServer) -> None:
    leave(server, STATE, {"n": 1}, 7)
    leave(server, "rollouts/r/ran", ["A"], 2)

    async def main() -> None:
        store, other = opened(server), opened(server)
        for one in (store, other):
            await one.open()
        assert not await store.put(STATE, {"n": 2}, 0)
        assert await other.get(STATE) == ({"n": 1}, 7)
        assert await other.put(STATE, {"n": 2}, 7)
        assert not await store.put(STATE, {"n": 3}, 7)
        assert await store.get(STATE) == ({"n": 2}, 8)
        await store.remove("rollouts/r/ran")
        assert await store.get("rollouts/r/ran") is None
        for one in (store, other):
            await one.close()

    asyncio.run(main())
