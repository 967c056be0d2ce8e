"""A rollout of a gateway with several workers, of which one is killed in the middle of a step."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, inference, run, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tests.support.rollouts import rollout
from tests.support.until import still, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CRITERIA = '[{ metric = "error_rate" }]'
LOADS = 4


WITHIN_S = 300.0  # far more than this takes on a busy machine


async def fresh(url: str, path: str, document: Any = None) -> httpx.Response:
    """Send a request on a new connection, which any worker may get."""
    async with http_client(timeout=30) as client:
        if document is None:
            return await client.get(url + path)
        return await client.post(url + path, json=document)


def is_announced(folder: Path) -> bool:
    return "is listening on" in (folder / "log").read_text()


class Load:
    """Clients that ask one request after another, on new connections, until they are stopped."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answered: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self.broken = 0
        self.stopped = False

    async def ask(self) -> None:
        """Ask; a connection that breaks with its worker is no answer, and the client repeats."""
        async with asyncio.timeout(WITHIN_S):
            while not self.stopped:
                try:
                    reply = await fresh(self.url, "/v2/models/m/infer", inference())
                except httpx.TransportError:
                    self.broken += 1
                    continue
                if reply.status_code != 200:
                    self.wrong.append((reply.status_code, reply.text))
                self.answered[reply.headers.get("x-tollway-backend", "none")] += 1

    async def more(self, count: int) -> Counter[str]:
        """Return what the next `count` answers, at least, were given by."""
        before = Counter(self.answered)
        await until(lambda: self.answered.total() - before.total() >= count)
        return self.answered - before


def test_a_worker_that_is_killed_in_mid_step_loses_no_answer_and_no_state(tmp_path: Path) -> None:
    async def main() -> None:
        old, new = Upstream(), Upstream()
        url = f"http://127.0.0.1:{free_port()}"
        server = f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"'
        more = "keep_s = 0\nsteps = [{ setWeight = 50, pause = {} }]"
        async with serving(old) as a, serving(new) as b:
            config = tmp_path / "tollway.toml"
            config.write_text(
                two_backends(
                    a,
                    a,
                    server=server,
                    more=rollout(b, more, CRITERIA),
                    ledger="sqlite:///tollway.db",
                )
            )
            gateway, load = Process(config, "--workers", "2"), Load(url)
            clients: list[asyncio.Task[None]] = []
            try:
                await gateway.ready(url)
                await until(lambda: asyncio.to_thread(is_announced, tmp_path))
                clients = [asyncio.create_task(load.ask()) for _ in range(LOADS)]
                assert set(await load.more(40)) == {"cheap", "next"}

                before = await status(url)
                os.kill(gateway.workers[0], signal.SIGKILL)
                assert set(await load.more(40)) == {"cheap", "next"}
                await until(lambda: len(gateway.workers) == 2)
                after = await status(url)
                assert (after["run"], after["weight"]) == (before["run"], 0.5)
                count = before["measures"]["error_rate"]["candidate_count"]
                await until(lambda: has_counted(url, count))

                await until(lambda: promoted(url))
                await until(lambda: is_retired(url))
                calls = await still(lambda: old.calls)
                assert set(await load.more(60)) == {"next"}
                assert old.calls == calls
                assert load.wrong == []
            finally:
                load.stopped = True
                for client in clients:
                    client.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.gather(*clients)
                gateway.kill()

    run(main)


async def status(url: str) -> Any:
    """Return the rollout, once each version has been seen to answer."""

    async def found() -> Any:
        document = (await fresh(url, "/_tollway/rollouts/next")).json()
        return document if "error_rate" in document.get("measures", {}) else None

    return await until(found)


async def has_counted(url: str, count: int) -> bool:
    measure = (await status(url))["measures"]["error_rate"]
    return bool(measure["candidate_count"] >= count)


async def promoted(url: str) -> bool:
    """Promote the candidate and return whether it is; moves of the leader may come in between."""
    document = {"action": "promote", "who": "kim", "why": "a test"}
    await fresh(url, "/_tollway/rollouts/next", document)
    found = (await fresh(url, "/_tollway/rollouts/next")).json()
    return found.get("phase") in {"promoted", "retired"}


async def is_retired(url: str) -> bool:
    return bool((await fresh(url, "/_tollway/rollouts/next")).json().get("phase") == "retired")
