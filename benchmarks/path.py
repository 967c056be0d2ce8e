"""Measures the gateway's own time per request: the whole data plane, without sockets.

    python benchmarks/path.py                 # microseconds and calls of functions per request
    python benchmarks/path.py --case chat     # of the route `chat`: text, prices per token
    python benchmarks/path.py --profile       # where the time goes, by part and by function
    python benchmarks/path.py --watched       # what traces and a log of requests add

Requests enter the application of `gateway.toml` (a key, features, three arms, a learned policy,
hard budgets in two scopes, metrics, journal) as the server would pass them on, in the callback
shell, and backends answer at once from memory. What remains is Tollway's own work on one core.
"""

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stderr
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from tollway.backends.http.connection import KnownReply
from tollway.backends.types import Call, Headers, HttpReply
from tollway.gateway import settings as config
from tollway.gateway.listener.client import EXTENSION, Client
from tollway.gateway.listener.known_heads import KnownHead
from tollway.gateway.wiring import Gateway, build

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.throughput import cases

FIELDS = [(b"content-type", b"application/json"), (b"x-device-seconds", b"0.0005")]
CASES = {
    "oip": (cases.SMALL, cases.OIP_REPLY.encode()),
    "floor": (cases.FLOOR, cases.OIP_REPLY.encode()),
    "chat": (cases.CHAT, cases.CHAT_REPLY.encode()),
}


KNOWN = KnownReply(200, FIELDS, streamed=False)


class Memory:
    """A backend that answers at once."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        return HttpReply(200, list(FIELDS), Once(self._reply), self._reply)

    def send_now(self, call: Call, deadline_s: float) -> "Answered":
        return Answered(HttpReply(200, list(FIELDS), Once(self._reply), self._reply))

    async def aclose(self) -> None:
        pass


class Answered:
    """A call whose reply has come."""

    def __init__(self, reply: HttpReply) -> None:
        self.exchange = self
        self.head = self
        self.done = True
        self.resume: Callable[[], None] | None = None
        self.known = KNOWN
        self._reply = reply

    def take(self) -> HttpReply:
        return self._reply


class Once:
    """A body of one chunk."""

    def __init__(self, reply: bytes) -> None:
        self._chunks = iter((reply,))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        pass


class Listener:
    """The part of `tollway serve` that the data plane sees: the head is known, a reply is whole."""

    def __init__(self, known: KnownHead, statuses: dict[int, int]) -> None:
        self.known: KnownHead | None = known
        self.scope = self.head = known.scope
        self.body = b""
        self.tasks: set[Any] = set()
        self.waited = False
        self.app: Any = None  # has to answer, because something must be waited for
        self._statuses = statuses
        self.client = Client()
        self.client.serving = self

    def hand_over(self, app: Any) -> None:
        self.app = app

    def reply_as_is(self, data: bytes) -> bool:
        return self.reply(200, [], data)

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        self._statuses[status] = self._statuses.get(status, 0) + 1
        return True


def scope_of(case: cases.Case) -> dict[str, Any]:
    """Return the scope of a case's requests, as the listener makes it."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": case.path,
        "raw_path": case.path.encode(),
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"authorization", b"Bearer bench"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(case.body)),
        ],
    }


async def requests(
    gateway: Gateway,
    count: int,
    clock: Callable[[], float] = time.perf_counter,
    case: cases.Case = cases.SMALL,
) -> float:
    """Send a case's requests one after the other; return microseconds each."""
    scope = scope_of(case)
    bodies = [body.encode() for body in case.bodies]
    statuses: dict[int, int] = {}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": listener.body, "more_body": False}

    async def send(sent: dict[str, Any]) -> None:
        if sent["type"] == "http.response.start":
            statuses[sent["status"]] = statuses.get(sent["status"], 0) + 1

    listener = Listener(KnownHead(scope), statuses)
    scope["extensions"] = {EXTENSION: listener.client}
    started = clock()
    for number in range(count):
        listener.body = bodies[number % len(bodies)]
        if not gateway.app.begin(listener.client, listener):
            listener.app = gateway.app
        if listener.app is not None:
            app, listener.app = listener.app, None
            await app(scope, receive, send)
        if number % 32 == 0:
            await asyncio.sleep(0)  # an iteration of the loop: the journal is written, jobs run
    elapsed = clock() - started
    assert statuses == {200: count}, statuses
    return elapsed / count * 1e6


WATCHED = {
    "off": "",
    "tracing, none sampled": '[tracing]\nendpoint = "http://127.0.0.1:1"\nsample = 0.0\n',
    "tracing, one in ten": '[tracing]\nendpoint = "http://127.0.0.1:1"\nsample = 0.1\n',
    "tracing, all": '[tracing]\nendpoint = "http://127.0.0.1:1"\nsample = 1.0\n',
    "a JSON log line each": '[log]\nformat = "json"\nrequests = "all"\n',
}


@asynccontextmanager
async def opened(
    folder: str, more: str = "", case: cases.Case = cases.SMALL
) -> AsyncIterator[Gateway]:
    """Open the gateway of gateway.toml, with more settings, in a folder of its own."""
    text = (Path(__file__).parent / "gateway.toml").read_text() + more
    environ = {
        "TOLLWAY_LEDGER__URL": "memory://",
        "TOLLWAY_JOURNAL__DIR": f"{folder}/journal",
        "TOLLWAY_STATE__DIR": f"{folder}/state",
    }
    gateway = build(config.parse(text, environ), rng=Random(1), trace=lambda endpoint: encoding())
    for route, (_, reply) in zip(("x", "floor", "chat"), CASES.values(), strict=True):
        for backend in gateway.routes[route].backends.values():
            backend.transport = Memory(reply)
    await gateway.open()
    await requests(gateway, 2000, case=case)
    yield gateway
    await gateway.close()


def encoding() -> Any:
    """Return the SDK's batches, encoded as they would be sent, and thrown away."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class Encode(SpanExporter):
        def export(self, spans: Any) -> Any:
            encode_spans(spans).SerializeToString()
            return SpanExportResult.SUCCESS

    return BatchSpanProcessor(Encode())


async def watched(count: int, rounds: int) -> dict[str, list[float]]:
    """Return microseconds per request with each kind of tracing or logging, alternately, by round.

    This is processor time, including that of the thread that sends spans.
    """
    found: dict[str, list[float]] = {name: [] for name in WATCHED}
    async with AsyncExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115, ASYNC230
        stack.enter_context(redirect_stderr(nowhere))
        gateways = {}
        for name, more in WATCHED.items():
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            gateways[name] = await stack.enter_async_context(opened(folder, more))
        for _ in range(rounds):
            for name, gateway in gateways.items():
                found[name].append(await requests(gateway, count, time.process_time))
    return found


PARTS = {
    "request: key, fields, JSON, checks": ("gateway/data_plane/admission.py", "parsed"),
    "features": ("gateway/features/extractor.py", "__call__"),
    "three offers, their quotes": ("gateway/routing/router.py", "_offers"),
    "the policy's choice": ("policies/lagrangian.py", "choose"),
    "of that the regression": ("policies/quality.py", "expect"),
    "of that the probabilities": ("policies/lagrangian.py", "_draw"),
    "budgets: reserve in two scopes": ("gateway/routing/reserving.py", "reserve_now"),
    "reply: JSON, checks, price": ("gateway/routing/metering.py", "evaluate_reply"),
    "settling, learning usage, its metrics": ("gateway/routing/settlement.py", "settle"),
    "journal: rows, JSON, checksum": ("gateway/storage/journal.py", "record"),
    "charging the policy": ("gateway/routing/sinks/policy.py", "charge_policy"),
    "metrics of the request": ("gateway/observability/counters.py", "answered"),
    "reply's fields and body": ("gateway/data_plane/responses.py", "encoded"),
}
WHOLE = ("gateway/data_plane/app.py", "begin")


async def profiled(
    gateway: Gateway, count: int, case: cases.Case = cases.SMALL
) -> tuple[cProfile.Profile, float]:
    """Profile requests; return the profile and the calls of functions per request.

    Functions of Python and of C count, and those of this benchmark (about a dozen). The calls are
    summed here because `pstats` takes all generated constructors for one function.
    """
    profiler = cProfile.Profile()
    profiler.enable()
    await requests(gateway, count, case=case)
    profiler.disable()
    return profiler, sum(entry.callcount for entry in profiler.getstats()) / count


def told(profiler: cProfile.Profile, us: float) -> None:
    """Print where the time goes: the profile's shares of `us`, a request's time unprofiled."""
    stats = pstats.Stats(profiler)
    seconds = {
        (file, name): row[3]
        for (path, _, name), row in stats.stats.items()  # type: ignore[attr-defined]
        for file in [path.rpartition("/tollway/")[2]]
    }
    for part, place in PARTS.items():
        print(f"{part:40} {us * seconds[place] / seconds[WHOLE]:6.1f} us")
    print(f"{'all':40} {us:6.1f} us")
    stats.sort_stats("tottime").print_stats(45)


async def main(
    count: int, rounds: int, profile: bool, case: cases.Case = cases.SMALL
) -> tuple[float, float]:
    """Return (microseconds, calls of functions) per request; with `profile`, print the parts.

    The time is the best of `rounds` without the profiler.
    """
    with tempfile.TemporaryDirectory() as folder:
        async with opened(folder, case=case) as gateway:
            us = min([await requests(gateway, count, case=case) for _ in range(rounds)])
            profiler, calls = await profiled(gateway, count if profile else min(count, 1000), case)
            if profile:
                told(profiler, us)
            return us, calls


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--case", choices=CASES, default="oip", help="which route (default: oip)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--watched", action="store_true", help="what traces and logs add")
    given = parser.parse_args()
    if given.watched:
        found = asyncio.run(watched(given.count, given.rounds))
        alone = found["off"]
        for name, us in found.items():
            ratio = median(one / base for one, base in zip(us, alone, strict=True))
            print(
                f"{name:24} {min(us):7.1f} us per request at best, x{ratio:.3f} (median of rounds)"
            )
        if given.json:
            given.json.write_text(json.dumps(found))
        sys.exit()
    us, calls = asyncio.run(main(given.count, given.rounds, given.profile, CASES[given.case][0]))
    print(f"{us:.1f} us per request in the gateway (best of {given.rounds} x {given.count})")
    print(f"{calls:.0f} calls of functions per request")
    if given.json:
        given.json.write_text(json.dumps({"us_per_request": us, "calls_per_request": calls}))
