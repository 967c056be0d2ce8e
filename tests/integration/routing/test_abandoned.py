"""A client leaves its stream: closed or drained, charged once, and never below the bill."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.configs import budget, one_model
from tests.support.harness import Running, run, running, serving
from tests.support.http_client import http_client
from tests.support.until import until
from tollway.gateway.storage.journal import Journal

pytestmark = pytest.mark.integration

ASK = {
    "model": "m",
    "stream": True,
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "hello there"}],
}
DRAIN = 'on_abandon = "drain"'


def event(document: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)


TEXT = event({"choices": [{"index": 0, "delta": {"content": "word"}}]})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 50}})
BILL_NANO = 100 * 1000 + 50 * 10_000


@dataclass
class Provider:
    """Streams a first event, and the rest once `go` is set; counts broken connections."""

    rest: tuple[bytes, ...] = (TEXT, USAGE, b"data: [DONE]\n\n")
    go: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()
        self.asked += 1
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": TEXT, "more_body": True})
        gone = asyncio.ensure_future(receive())
        go = asyncio.ensure_future(self.go.wait())
        await asyncio.wait({gone, go}, return_when=asyncio.FIRST_COMPLETED)
        go.cancel()
        if gone.done():
            self.left.set()
            return
        gone.cancel()
        for part in self.rest:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Stand:
    tollway: Running
    provider: Provider

    async def leave(self) -> str:
        """Ask, read the first event, and leave; return the decision."""
        path = self.tollway.url + "/v1/chat/completions"
        async with http_client() as leaver:
            async with leaver.stream("POST", path, json=ASK) as reply:
                await anext(reply.aiter_raw())
            return str(reply.headers["x-tollway-decision"])

    async def row(self, decision: str) -> dict[str, Any]:
        """Return the settlement of a decision's stream, once it is there."""
        (row,) = await until(lambda: settlements(self.tollway.gateway.journal, decision))
        return dict(row)

    async def budget(self) -> dict[str, Any]:
        (budget,) = (await self.tollway.get("/_tollway/budgets"))["budgets"]
        return dict(budget)

    async def until_drained(self, count: int) -> None:
        await until(lambda: self.tollway.gateway.drains.count == count)


def settlements(journal: Journal, decision: str) -> list[dict[str, Any]]:
    """Return the settlements of a decision's streams in the journal."""
    found = journal.find(decision)
    rows = [*found, *journal.follow(found)] if found else []
    # `find` reads on through rows that stand next to the decision, so it may find one already.
    return list({row["crc"]: row for row in rows if row["kind"] == "settlement"}.values())


@asynccontextmanager
async def stand(
    folder: Path, *, backend: str = "", server: str = "", enforcement: str = "hard"
) -> AsyncIterator[Stand]:
    provider = Provider()
    async with serving(provider) as url:
        limit = budget("all", "10.0", more=f'window = "month"\nenforcement = "{enforcement}"')
        toml = one_model(url, backend=backend, server=server, more=limit)
        async with running(toml, folder) as tollway:
            yield Stand(tollway, provider)
            provider.go.set()


def test_a_stream_that_is_left_is_closed_at_once_and_charged_its_whole_hold(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with stand(tmp_path) as at:
            decision = await at.leave()
            await asyncio.wait_for(at.provider.left.wait(), 0.5)
            row = await at.row(decision)
            budget = await at.budget()
            assert (row["abandoned"], row["charged_by"]) == ("close", "hold")
            assert row["provenance"] == "estimated"
            assert row["cost_nano"] == row["reserved_nano"]["all"] >= 1000 * 10_000
            assert budget["spent_nano"] == row["cost_nano"]
            told = (await at.tollway.client.get(at.tollway.url + "/metrics")).text
            assert "tollway_drained_streams 0.0" in told

    run(main)


@pytest.mark.parametrize("enforcement", ["soft", "expected"])
def test_where_no_hard_budget_binds_it_a_stream_left_is_charged_an_estimate(
    enforcement: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with stand(tmp_path, enforcement=enforcement) as at:
            row = await at.row(await at.leave())
            assert (row["abandoned"], row["charged_by"]) == ("close", "estimate")
            assert 10_000 < row["cost_nano"] < 1000 * 10_000

    run(main)


def test_a_drained_stream_is_charged_what_its_usage_says_and_keeps_its_place(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with stand(tmp_path, backend=DRAIN) as at:
            decision = await at.leave()
            await at.until_drained(1)
            slots = at.tollway.gateway.backends["llm"].slots
            assert slots is not None
            assert slots.busy == 1
            assert (await at.budget())["spent_nano"] == 0
            at.provider.go.set()
            row = await at.row(decision)
            assert (row["abandoned"], row["charged_by"]) == ("drain", "usage")
            assert (row["cost_nano"], row["provenance"]) == (BILL_NANO, "usage")
            assert (await at.budget())["spent_nano"] == BILL_NANO
            await at.until_drained(0)
            assert (slots.busy, at.provider.left.is_set()) == (0, False)
            told = (await at.tollway.client.get(at.tollway.url + "/metrics")).text
            assert 'tollway_streams_drained_total{end="whole"} 1.0' in told

    run(main)


def test_a_drained_stream_that_does_not_end_in_time_is_closed_and_charged_its_hold(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with stand(tmp_path, backend=DRAIN + "\nabandoned_drain_s = 0.2") as at:
            row = await at.row(await at.leave())
            await asyncio.wait_for(at.provider.left.wait(), 5)
            assert (row["abandoned"], row["charged_by"]) == ("drain", "hold")
            assert row["cost_nano"] == row["reserved_nano"]["all"]

    run(main)


@pytest.mark.parametrize(
    "limits",
    ["drained_streams = 1", "drained_streams_per_tenant = 1", "drained_streams = 0"],
)
def test_beyond_the_limit_of_drained_streams_a_stream_is_closed(
    limits: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with stand(tmp_path, backend=DRAIN, server=limits) as at:
            if not limits.endswith("0"):
                first = await at.leave()
                await at.until_drained(1)
            closed = await at.row(await at.leave())
            await asyncio.wait_for(at.provider.left.wait(), 5)
            assert (closed["abandoned"], closed["charged_by"]) == ("close", "hold")
            at.provider.go.set()
            if not limits.endswith("0"):
                assert (await at.row(first))["cost_nano"] == BILL_NANO

    run(main)


def test_a_gateway_that_stops_settles_what_it_still_drains(tmp_path: Path) -> None:
    async def main() -> None:
        async with stand(tmp_path, backend=DRAIN) as at:
            decision = await at.leave()
            await at.until_drained(1)
            gateway = at.tollway.gateway
        # uvicorn has cancelled the task after its two seconds of grace, or the stream has ended.
        rows = settlements(gateway.journal, decision)
        assert len(rows) == 1
        assert rows[0]["cost_nano"] >= BILL_NANO

    run(main)
