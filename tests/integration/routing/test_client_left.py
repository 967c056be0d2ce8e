"""A client leaves a call: the model stops, the call is settled once, no breaker counts it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from tests.contracts.wire_server import Wire, wire_server
from tests.support.harness import Running, Upstream, inference, run, running, serving
from tests.support.until import until
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.listener.request_head import HeadLimits
from tollway.gateway.security.keys import ANONYMOUS

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "one"
kind = "gpu"
protocol = "oip"
url = "{url}"
price = {{ per_request_usd = 0.25, device_usd_per_hour = 36.0 }}
timeout_s = 10
{backend}

[[backends]]
name = "two"
kind = "gpu"
protocol = "oip"
url = "{url}"
price = {{ per_request_usd = 0.5 }}

[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["one", "two"]
policy = "fixed"
policy_options = {{ arm = "one" }}
timeout_s = 10
{route}

[[budgets]]
name = "all"
limit_usd = 100.0
window = "month"
"""


@dataclass
class Stand:
    """A gateway behind our own listener, before a model that never answers."""

    tollway: Running
    asked: list[bytes]
    closed: asyncio.Event

    async def leave(self, ready: Callable[[], bool], *fields: bytes) -> None:
        """Ask, and leave once `ready`."""
        where = urlsplit(self.tollway.url)
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        body = orjson.dumps(inference())
        head = [b"POST /v2/models/m/infer HTTP/1.1", b"host: x", *fields]
        head.append(b"content-length: %d" % len(body))
        writer.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        try:
            async with asyncio.timeout(10):
                await until(ready)
        finally:
            writer.close()
            await writer.wait_closed()

    async def rows(self, count: int | None = 1) -> list[dict[str, Any]]:
        """Return the attempts of the last decision, once they are written."""
        recent = self.tollway.gateway.recent
        async with asyncio.timeout(10):
            await until(lambda: recent)
        told = await self.tollway.get(f"/_tollway/decisions/{recent[-1]}")
        attempts: list[dict[str, Any]] = told["attempts"]
        assert count in (None, len(attempts))
        return attempts

    async def spent(self) -> int:
        """Return what the budget has spent."""
        (budget,) = (await self.tollway.get("/_tollway/budgets"))["budgets"]
        nano: int = budget["spent_nano"]
        return nano


@asynccontextmanager
async def stand(folder: Path, *, backend: str = "", route: str = "") -> AsyncIterator[Stand]:
    asked: list[bytes] = []
    closed = asyncio.Event()

    async def hangs(wire: Wire) -> None:
        _, body = await wire.request()
        asked.append(body)
        await wire.gone()
        closed.set()

    async with wire_server(hangs) as server:
        toml = CONFIG.format(url=server.url, backend=backend, route=route)
        async with running(toml, folder, http=limited_protocol(HeadLimits())) as tollway:
            yield Stand(tollway, asked, closed)


def with_stand(folder: Path, test: Callable[[Stand], Awaitable[None]], **options: str) -> None:
    async def main() -> None:
        async with stand(folder, **options) as made:
            await test(made)

    run(main)


def test_a_call_whose_client_leaves_is_stopped_charged_and_held_against_nobody(
    tmp_path: Path,
) -> None:
    async def test(stand: Stand) -> None:
        for _ in range(6):  # as many failures would open a breaker
            stand.closed.clear()
            seen = len(stand.asked)
            await stand.leave(lambda seen=seen: len(stand.asked) > seen)  # type: ignore[misc]
            await asyncio.wait_for(stand.closed.wait(), 5)
        (attempt,) = await stand.rows()
        assert attempt["error"] == "client left"
        assert attempt["provenance"] == "estimated"
        assert attempt["cost_nano"] == attempt["ceiling_nano"] > 0
        assert await stand.spent() == 6 * attempt["cost_nano"]
        backend = stand.tollway.gateway.backends["one"]
        assert not backend.breaker.is_open
        assert backend.slots is not None
        assert backend.slots.busy == 0
        text = (await stand.tollway.client.get(stand.tollway.url + "/metrics")).text
        outcomes = [line for line in text.splitlines() if line.startswith("tollway_requests_total")]
        told = [line for line in outcomes if not line.endswith(" 0.0")]
        assert len(told) == 1
        assert 'outcome="client_left"' in told[0]
        assert told[0].endswith(" 6.0")

    with_stand(tmp_path, test)


def test_a_client_that_leaves_the_queue_is_charged_nothing(tmp_path: Path) -> None:
    async def test(stand: Stand) -> None:
        slots = stand.tollway.gateway.backends["one"].slots
        assert slots is not None
        over = asyncio.Event()
        first = asyncio.create_task(stand.leave(over.is_set))
        await until(lambda: stand.asked)
        await stand.leave(lambda: slots.waiting == 1)
        (attempt,) = await stand.rows()
        assert (attempt["error"], attempt["cost_nano"]) == ("client left", 0)
        assert attempt["provenance"] == "void"
        assert (slots.waiting, slots.busy, len(stand.asked)) == (0, 1, 1)
        over.set()
        await first

    with_stand(tmp_path, test, backend="concurrency = 1\nqueue_s = 60\nadaptive = false")


def test_nobody_else_is_asked_for_a_client_that_has_left(tmp_path: Path) -> None:
    async def test(stand: Stand) -> None:
        await stand.leave(lambda: len(stand.asked) == 1)
        await stand.rows(1)
        assert len(stand.asked) == 1

    with_stand(tmp_path, test, route="fallback = true")


def test_a_request_with_an_idempotency_key_is_not_cancelled(tmp_path: Path) -> None:
    async def test(stand: Stand) -> None:
        await stand.leave(lambda: len(stand.asked) == 1, b"idempotency-key: k")
        # One that leaves later without a key is stopped, and it alone.
        await stand.leave(lambda: len(stand.asked) == 2)
        await stand.rows(1)
        assert len(stand.tollway.gateway.recent) == 1

    with_stand(tmp_path, test)


def test_a_model_that_has_answered_is_not_stopped_by_a_client_that_goes(tmp_path: Path) -> None:
    async def main() -> None:
        async def answers(wire: Wire) -> None:
            body = orjson.dumps(
                {
                    "model_name": "m",
                    "outputs": [{"name": "y", "shape": [1], "datatype": "INT64", "data": [1]}],
                }
            )
            while True:
                await wire.request()
                await wire.say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                await wire.say(b"content-length: %d\r\n\r\n%b" % (len(body), body))

        async with wire_server(answers) as server:
            toml = CONFIG.format(url=server.url, backend="", route="")
            async with running(toml, tmp_path, http=limited_protocol(HeadLimits())) as tollway:
                for _ in range(3):
                    assert (await tollway.infer()).status_code == 200
                assert server.accepted == 1

    run(main)


def test_both_calls_of_a_hedged_request_are_stopped_and_charged_once_each(tmp_path: Path) -> None:
    async def test(stand: Stand) -> None:
        hedge = stand.tollway.gateway.routes["m"].hedge
        assert hedge is not None
        for _ in range(20):  # from then on its tail is known
            hedge.observe("one", 0.001, ANONYMOUS)
        await stand.leave(lambda: len(stand.asked) == 2)
        attempts = await stand.rows(2)
        assert [attempt["error"] for attempt in attempts] == ["client left"] * 2
        assert await stand.spent() == sum(attempt["cost_nano"] for attempt in attempts) > 0

    with_stand(tmp_path, test, route="hedge_share = 0.5")


def test_a_cascade_stops_at_the_stage_that_its_client_left(tmp_path: Path) -> None:
    async def main() -> None:
        asked: list[bytes] = []

        async def silent(wire: Wire) -> None:
            _, body = await wire.request()
            asked.append(body)
            await wire.gone()

        async with serving(Upstream(confidence=0.4)) as one, wire_server(silent) as two:
            toml = CONFIG.format(url=one, backend="", route="cascade = true")
            head, _, tail = toml.rpartition(one)
            toml = (head + two.url + tail).replace('policy = "fixed"', 'policy = "lagrangian"')
            toml = toml.replace('policy_options = { arm = "one" }', "")
            async with running(toml, tmp_path, http=limited_protocol(HeadLimits())) as tollway:
                stand, recent = (
                    Stand(tollway, asked, asyncio.Event()),
                    tollway.gateway.recent,
                )
                attempts: list[dict[str, Any]] = []
                while len(attempts) < 2:  # until the policy escalates
                    recent.clear()
                    asked.clear()
                    await stand.leave(lambda: bool(asked or recent))
                    attempts = await stand.rows(None)
                assert [attempt["error"] for attempt in attempts] == ["", "client left"]
                assert attempts[1]["cost_nano"] == attempts[1]["ceiling_nano"]

    run(main)
