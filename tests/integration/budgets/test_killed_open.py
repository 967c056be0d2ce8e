"""A gateway killed with an open call: what may be billed stays charged until disproved."""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.configs import budget, one_model
from tests.support.harness import run, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tollway.gateway.cli import main as cli
from tollway.gateway.cli import terminal

pytestmark = pytest.mark.integration

ASK = {
    "model": "m",
    "stream": True,
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "hello there"}],
}
MOST_NANO = 1000 * 10_000


class Endless:
    """Streams one event and then nothing."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        event = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
        await send({"type": "http.response.body", "body": event, "more_body": True})
        self.asked.set()
        await receive()


async def killed(folder: Path, enforcement: str) -> tuple[Process, str]:
    """Kill a gateway that has a stream open, and start it again."""
    config, port = folder / "tollway.toml", free_port()
    url = f"http://127.0.0.1:{port}"
    provider = Endless()
    async with serving(provider) as upstream:
        cap = f'window = "lifetime"\nenforcement = "{enforcement}"'
        toml = one_model(
            upstream,
            server=f'listen = "127.0.0.1:{port}"',
            ledger="sqlite:///tollway.db",
            more=budget("cap", "1.0", more=cap),
        )
        config.write_text(toml)
        gateway = Process(config)
        await gateway.ready(url)
        async with http_client(timeout=30) as client:
            call = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=ASK))
            await provider.asked.wait()
            assert gateway.end(signal.SIGKILL) == -9
            with contextlib.suppress(httpx.TransportError):
                await call
    gateway = Process(config)
    await gateway.ready(url)
    return gateway, url


async def shown(url: str) -> dict[str, Any]:
    async with http_client() as client:
        found: dict[str, Any] = (await client.get(url + "/_tollway/budgets/cap")).json()
        return found


@pytest.mark.parametrize(("billed", "spent_nano"), [(None, 0), ("0.002", 2_000_000)])
def test_open_calls_of_a_killed_gateway_are_released_only_by_an_operator(
    billed: str | None, spent_nano: int, tmp_path: Path
) -> None:
    async def main() -> None:
        gateway, url = await killed(tmp_path, "hard")
        try:
            budget = await shown(url)
            assert budget["unaccounted_nano"] == budget["spent_nano"] >= MOST_NANO
            await asyncio.sleep(2.5)  # longer than two sweeps
            assert (await shown(url))["unaccounted_nano"] == budget["unaccounted_nano"]
            (holder,) = [one for one in budget["holders"] if one["charged_nano"]]
            words = ["budgets", "release", "cap", holder["lease"], "--url", url]
            words += ["--who", "ann", "--why", "invoice 7"]
            if billed is not None:
                words += ["--billed", billed]
            assert await asyncio.to_thread(cli.main, words, {}) == terminal.OK
            budget = await shown(url)
            assert (budget["unaccounted_nano"], budget["spent_nano"]) == (0, spent_nano)
            change = budget["changes"][-1]
            assert (change["who"], change["kind"], change["why"]) == ("ann", "release", "invoice 7")
        finally:
            gateway.end(signal.SIGTERM)

    run(main)


def test_open_calls_of_a_killed_gateway_are_charged_an_estimate_under_expected_budgets(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        gateway, url = await killed(tmp_path, "expected")
        try:
            budget = await shown(url)
            assert budget["unaccounted_nano"] == 0
            assert 0 < budget["spent_nano"] <= 2 * MOST_NANO
            assert "estimate" in budget["changes"][-1]["why"]
            assert budget["changes"][-1]["who"] == "tollway"
        finally:
            gateway.end(signal.SIGTERM)

    run(main)
