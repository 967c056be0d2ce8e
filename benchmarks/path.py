"""What the gateway itself costs per request: the whole data plane, without sockets.

    python benchmarks/path.py                 # microseconds per request
    python benchmarks/path.py --profile       # where they go, by part and by function
    python benchmarks/path.py --watched       # what traces and a log of requests add

Requests enter the ASGI application of `gateway.toml` (a key, features, three arms, a learned
policy, hard budgets in two scopes, metrics, journal) as the server would hand them over, and
backends answer at once from memory: what is left is Tollway's own work on one core.
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
from statistics import median
from typing import Any

HERE = Path(__file__).parent
if sys.path and Path(sys.path[0]).resolve() == HERE.resolve():
    # A script's folder comes first on the path, and gateway.py there hides the package.
    sys.path.pop(0)

from tollway.backends.types import Call, HttpReply  # noqa: E402
from tollway.gateway import settings as config  # noqa: E402
from tollway.gateway.wiring import Gateway, build  # noqa: E402

REPLY = b'{"outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[7]}]}'
BODY = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
FIELDS = [(b"content-type", b"application/json"), (b"x-device-seconds", b"0.0005")]


class Memory:
    """A backend that answers at once."""

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        return HttpReply(200, list(FIELDS), Once())

    async def aclose(self) -> None:
        pass


class Once:
    """A body of one chunk."""

    def __init__(self) -> None:
        self._chunks = iter((REPLY,))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        pass


async def requests(
    gateway: Gateway, count: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Send requests one after the other; return microseconds each."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v2/models/x/infer",
        "raw_path": b"/v2/models/x/infer",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"authorization", b"Bearer bench"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(BODY)),
        ],
    }
    message = {"type": "http.request", "body": BODY, "more_body": False}
    statuses: dict[int, int] = {}

    async def receive() -> dict[str, Any]:
        return message

    async def send(sent: dict[str, Any]) -> None:
        if sent["type"] == "http.response.start":
            statuses[sent["status"]] = statuses.get(sent["status"], 0) + 1

    started = clock()
    for number in range(count):
        await gateway.app(scope, receive, send)
        if number % 32 == 0:
            await asyncio.sleep(0)  # an iteration of the loop: the journal is written, jobs run
    elapsed = clock() - started
    assert statuses == {200: count}, statuses
    return elapsed / count * 1e6


WATCHED = {
    "nobody watches": "",
    "tracing, none sampled": '[tracing]\nendpoint = "http://127.0.0.1:1"\nsample = 0.0\n',
    "tracing, one in ten": '[tracing]\nendpoint = "http://127.0.0.1:1"\nsample = 0.1\n',
    "tracing, all": '[tracing]\nendpoint = "http://127.0.0.1:1"\nsample = 1.0\n',
    "a log line each, JSON": '[log]\nformat = "json"\nrequests = "all"\n',
}


@asynccontextmanager
async def opened(folder: str, more: str = "") -> AsyncIterator[Gateway]:
    """Open the gateway of gateway.toml, with more settings, in a folder of its own."""
    text = (HERE / "gateway.toml").read_text() + more
    environ = {
        "TOLLWAY_LEDGER__URL": "memory://",
        "TOLLWAY_JOURNAL__DIR": f"{folder}/journal",
        "TOLLWAY_STATE__DIR": f"{folder}/state",
    }
    gateway = build(config.parse(text, environ), trace=lambda endpoint: encoding())
    for backend in gateway.routes["x"].backends.values():
        backend.transport = Memory()
    await gateway.open()
    await requests(gateway, 2000)
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

    Of the processor's time, that of the thread which sends spans included.
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
    "request: key, fields, JSON, checks": ("gateway/data_plane/admission.py", "read"),
    "features": ("gateway/features/extractor.py", "__call__"),
    "three offers, their quotes": ("gateway/routing/router.py", "_offers"),
    "the policy's choice": ("policies/lagrangian.py", "choose"),
    "of that the regression": ("policies/quality.py", "predict"),
    "of that the probabilities": ("policies/lagrangian.py", "_draw"),
    "budgets: reserve in two scopes": ("gateway/routing/attempts.py", "reserve_now"),
    "reply: JSON, checks, price": ("gateway/routing/metering.py", "judge"),
    "settling, learning usage, its metrics": ("gateway/routing/attempts.py", "_settle"),
    "journal: rows, JSON, checksum": ("gateway/storage/journal.py", "record"),
    "charging the policy": ("gateway/routing/router.py", "charge"),
    "metrics of the request": ("gateway/observability/counters.py", "request"),
    "reply's fields and body": ("gateway/data_plane/responses.py", "write"),
}
WHOLE = ("gateway/data_plane/app.py", "__call__")


def told(profiler: cProfile.Profile, count: int, us: float) -> None:
    """Print where the time goes: the profile's shares of `us`, what a request takes without it."""
    stats = pstats.Stats(profiler)
    seconds = {
        (file, name): row[3]
        for (path, _, name), row in stats.stats.items()  # type: ignore[attr-defined]
        for file in [str(Path(path)).removeprefix(f"{HERE.parent}/")]
    }
    for part, place in PARTS.items():
        print(f"{part:40} {us * seconds[place] / seconds[WHOLE]:6.1f} us")
    print(f"{'all':40} {us:6.1f} us, {stats.total_calls / count:.0f} calls")  # type: ignore[attr-defined]
    stats.sort_stats("tottime").print_stats(45)


async def main(count: int, rounds: int, profile: bool) -> float:
    """Return microseconds per request, best of `rounds`; print where they go if asked to."""
    with tempfile.TemporaryDirectory() as folder:
        async with opened(folder) as gateway:
            us = min([await requests(gateway, count) for _ in range(rounds)])
            if profile:
                profiler = cProfile.Profile()
                profiler.enable()
                await requests(gateway, count)
                profiler.disable()
                told(profiler, count, us)
            return us


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--watched", action="store_true", help="what traces and logs add")
    given = parser.parse_args()
    if given.watched:
        found = asyncio.run(watched(given.count, given.rounds))
        alone = found["nobody watches"]
        for name, us in found.items():
            ratio = median(one / base for one, base in zip(us, alone, strict=True))
            print(f"{name:24} {min(us):7.1f} us a request at best, x{ratio:.3f} (median of rounds)")
        if given.json:
            given.json.write_text(json.dumps(found))
        sys.exit()
    us = asyncio.run(main(given.count, given.rounds, given.profile))
    print(f"{us:.1f} us a request in the gateway (best of {given.rounds} x {given.count})")
    if given.json:
        given.json.write_text(json.dumps({"us_per_request": us}))
