"""A rollout of a gateway with several workers, of which one is killed in the middle of a step."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, serving
from tests.support.process import Process, free_port
from tests.support.rollouts import Load, fresh, rollout
from tests.support.until import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CRITERIA = '[{ metric = "error_rate" }]'


def is_announced(folder: Path) -> bool:
    return "is listening on" in (folder / "log").read_text()


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
            gateway = Process(config, "--workers", "2")
            try:
                await gateway.ready(url)
                await until(lambda: asyncio.to_thread(is_announced, tmp_path))
                async with Load(url).running() as load:
                    await killed(gateway, load, url, old)
            finally:
                gateway.kill()

    async def killed(gateway: Process, load: Load, url: str, old: Upstream) -> None:
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
        calls = await load.settled(lambda: old.calls)
        assert set(await load.more(60)) == {"next"}
        assert old.calls == calls
        assert load.wrong == []

    run(main)


def test_reloads_in_mid_step_lose_no_answer_and_a_removed_version_answers_no_more(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        old, new = Upstream(), Upstream()
        url = f"http://127.0.0.1:{free_port()}"
        server = f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"'
        async with serving(old) as a, serving(new) as b:
            config = tmp_path / "tollway.toml"
            steps = "steps = [{ setWeight = 50, pause = {} }]"

            def write(table: str, route: str = "") -> None:
                config.write_text(
                    two_backends(
                        a, a, server=server, more=table, route=route, ledger="sqlite:///tollway.db"
                    )
                )

            write(rollout(b, steps, CRITERIA))
            gateway = Process(config, "--workers", "2")
            try:
                await gateway.ready(url)
                await until(lambda: asyncio.to_thread(is_announced, tmp_path))
                async with Load(url).running() as load:
                    assert set(await load.more(40)) == {"cheap", "next"}
                    before = await status(url)
                    for number in range(3):
                        write(rollout(b, steps, CRITERIA), f"timeout_s = {20 + number}")
                        gateway.tell(signal.SIGHUP)
                        assert set(await load.more(40)) == {"cheap", "next"}
                    after = await status(url)
                    assert (after["run"], after["weight"]) == (before["run"], 0.5)

                    write("")
                    gateway.tell(signal.SIGHUP)
                    await until(lambda: is_unknown(url))
                    calls = await load.settled(lambda: new.calls)
                    assert set(await load.more(60)) == {"cheap"}
                    assert new.calls == calls
                    assert load.wrong == []
            finally:
                gateway.kill()

    run(main)


async def is_unknown(url: str) -> bool:
    """Whether no worker knows the rollout: a new connection may reach either."""
    found = [await fresh(url, "/_tollway/rollouts/next") for _ in range(8)]
    return {reply.status_code for reply in found} == {404}


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
