"""A rollout of three gateways that share a Redis: they agree, and outlive each other."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, serving
from tests.support.process import Process, free_port
from tests.support.redis_server import RedisServer, redis_server
from tests.support.rollouts import Load, fresh, rollout
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CRITERIA = '[{ metric = "error_rate" }]'
STEPS = "keep_s = 0\nsteps = [{ setWeight = 50, pause = {} }]"
PATH = "/_tollway/rollouts/next"
WITHIN_S = 120.0  # a dead process counts as behind for ten seconds, its lease lasts five


class Gateways:
    """Three gateways as processes, each with a journal and a state of its own."""

    def __init__(self, folder: Path, redis: RedisServer, old: str, new: str) -> None:
        self.redis = redis
        self.urls: list[str] = []
        self.configs: list[Path] = []
        self.processes: list[Process | None] = []
        for number in range(3):
            url = f"http://127.0.0.1:{free_port()}"
            server = f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"'
            ledger = f"{redis.url}?timeout_ms=5000"
            text = two_backends(
                old, old, server=server, more=rollout(new, STEPS, CRITERIA), ledger=ledger
            )
            config = folder / str(number) / "tollway.toml"
            config.parent.mkdir()
            config.write_text(text)
            self.urls.append(url)
            self.configs.append(config)
            self.processes.append(None)

    async def start(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.processes[number] = Process(self.configs[number])
        for number in numbers:
            await self.process(number).ready(self.urls[number])

    def process(self, number: int) -> Process:
        process = self.processes[number]
        assert process is not None
        return process

    @property
    def running(self) -> list[int]:
        return [number for number, process in enumerate(self.processes) if process is not None]

    def kill(self, number: int) -> None:
        """Kill a gateway as a crash would."""
        process = self.process(number)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        self.processes[number] = None

    async def holder(self) -> int:
        """Return which running gateway holds the rollout's lease, once one does."""

        def found() -> int | None:
            with Redis(port=self.redis.port) as client:
                member = (client.get("tollway:control-lease:rollouts/next") or b"").decode()
            pids = {self.process(number).pid: number for number in self.running}
            return pids.get(int(member.split("-")[-2])) if member else None

        number = await until(lambda: _named(found()), within_s=WITHIN_S, every_s=0.05)
        return int(number)

    async def statuses(self) -> list[Any]:
        replies = await asyncio.gather(*(fresh(self.urls[n], PATH) for n in self.running))
        return [reply.json() for reply in replies]

    async def agree(self, phase: str) -> Any:
        """Return the state, once all running gateways are in a phase and have applied it."""

        async def found() -> Any:
            all_ = await self.statuses()
            same = {(one["phase"], one["run"], one["weight"]) for one in all_}
            return all_[0] if len(same) == 1 and all_[0]["phase"] == phase else None

        return await until(found, within_s=WITHIN_S, every_s=0.05)

    async def act(self, number: int, action: str) -> int:
        document = {"action": action, "who": "kim", "why": "a test"}
        return (await fresh(self.urls[number], PATH, document)).status_code


def _named(number: int | None) -> str:
    """Return a number as text: 0 is a number too, and no text is not found yet."""
    return "" if number is None else str(number)


@asynccontextmanager
async def gateways(
    folder: Path, redis: RedisServer, old: Upstream, new: Upstream
) -> AsyncIterator[Gateways]:
    async with serving(old) as a, serving(new) as b:
        three = Gateways(folder, redis, a, b)
        try:
            await three.start(range(3))
            yield three
        finally:
            for number in three.running:
                three.kill(number)


def test_the_end_of_whoever_moves_a_rollout_loses_no_request_and_no_state(tmp_path: Path) -> None:
    async def main(redis: RedisServer) -> None:
        old, new = Upstream(), Upstream()
        async with gateways(tmp_path, redis, old, new) as three:
            async with Load(*three.urls).running() as load:
                assert set(await load.more(60)) == {"cheap", "next"}
                before = await three.agree("paused")
                assert before["weight"] == 0.5

                # The one that moves the rollout is killed in the middle of a step.
                dead = await three.holder()
                load.urls.remove(three.urls[dead])
                three.kill(dead)
                assert set(await load.more(60)) == {"cheap", "next"}
                after = await three.agree("paused")
                assert (after["run"], after["weight"]) == (before["run"], 0.5)
                assert await three.holder() != dead

                # Another one is told to go on; whoever has the lease makes the moves.
                follower = next(n for n in three.running if n != dead)
                await until(lambda: resumed(three, follower), within_s=WITHIN_S)
                await three.agree("retired")
                calls = await load.settled(lambda: old.calls)
                assert set(await load.more(60)) == {"next"}

                # It comes back into a rollout that is over, and calls what it promoted.
                await three.start([dead])
                load.urls[:] = [three.urls[dead]]
                assert set(await load.more(30)) == {"next"}
                assert old.calls == calls
                assert load.wrong == []

    async def resumed(three: Gateways, number: int) -> bool:
        """Promote by hand; the leader may move at the same moment."""
        await three.act(number, "promote")
        found = (await fresh(three.urls[number], PATH)).json()
        return found["phase"] in {"promoted", "retired"}

    with redis_server(tmp_path / "redis") as redis:
        run(lambda: main(redis))


def test_evidence_that_is_spread_over_gateways_rolls_all_of_them_back(tmp_path: Path) -> None:
    async def main(redis: RedisServer) -> None:
        old, new = Upstream(), Upstream()
        async with gateways(tmp_path, redis, old, new) as three:
            async with Load(*three.urls).running() as load:
                assert set(await load.more(30)) == {"cheap", "next"}
                new.status = 500
                found = await three.agree("rolled_back")
                assert found["weight"] == 0.0
                calls = await load.settled(lambda: new.calls)
                assert set(await load.more(60)) == {"cheap"}
                assert new.calls == calls
                assert load.wrong == []
                # The history is written after the state.
                await until(lambda: is_written(three.urls[0]), within_s=WITHIN_S)
                moves = [await kinds(url) for url in three.urls]
                assert moves[0][-1] == "started"
                assert moves[0].count("rolled_back") == 1
                assert moves[1:] == moves[:1] * 2

    async def kinds(url: str) -> list[str]:
        found = (await fresh(url, f"{PATH}/history")).json()["history"]
        return [one["kind"] for one in found]

    async def is_written(url: str) -> bool:
        return "rolled_back" in await kinds(url)

    with redis_server(tmp_path / "redis") as redis:
        run(lambda: main(redis))
