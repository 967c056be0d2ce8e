"""Measures the cost of streams: memory of a thousand at once, time to the first frame, lost frames.

    python benchmarks/streams.py                     # Tollway with all features, and the bare relay
    python benchmarks/streams.py --streams 200 --rounds 100 --json streams.json

An upstream streams a chat completion, frame by frame; each frame carries its number and the time it
was sent. First, streams run one after the other: the time from the request to the first frame is
measured directly and through each gateway, alternately. Then `--streams` run at once, opened over
`--open-s`, each with a frame every `--every-ms`: the table shows the gateway's memory before and
while all are open, how late frames arrive, and whether each stream had every frame once, in order,
and nothing else (the upstream's usage chunk, which the gateway requested and the client did not,
must be removed).

Upstream and clients share one process on one core; the gateway has a second core if there is one.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import uvloop

BENCHMARKS = Path(__file__).parent
sys.path.insert(0, str(BENCHMARKS.parent))

from benchmarks.throughput import contestants  # noqa: E402
from benchmarks.throughput.contestants import Contestant  # noqa: E402
from benchmarks.throughput.processes import cpu_s, free_port, rss_mib, started, stay  # noqa: E402

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FRAME = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%d %d"}}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\n'
DONE = b"data: [DONE]\n\n"
SAID = re.compile(rb'"content":"(\d+) (\d+)"')
BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"count the waves"}]}'
PATH = b"/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Shape:
    """The number of streams, the time to open them, their frames and the time between frames."""

    streams: int
    frames: int
    every_s: float
    open_s: float = 0.0


@dataclass(frozen=True, slots=True)
class First:
    """Time from the request to the first frame, one stream after the other, in ms."""

    name: str
    p50_ms: float
    p99_ms: float
    added_p50_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """Many streams at once. `late`: from when a frame was sent to when it was read.

    `broken` counts the streams that did not have every frame once, in order, and nothing else.
    `cpu_us_a_frame`: all of the gateway's work, including opening and settling.
    """

    name: str
    streams: int
    frames: int
    broken: int
    first_p50_ms: float
    first_p99_ms: float
    late_p50_ms: float
    late_p99_ms: float
    more_mib: float | None = None
    cpu_us_a_frame: float | None = None


class Upstream(asyncio.Protocol):
    """Streams to every client by `shape`, which is looked up for each request."""

    def __init__(self, shape: Callable[[], Shape]) -> None:
        self.shape = shape
        self.asked = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.asked += data
        head, ends, body = self.asked.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if ends and length and len(body) >= int(length[1]):
            usage = b"include_usage" in body
            self.asked = b""
            self.transport.write(HEAD)
            self.frame(0, self.shape(), usage)

    def frame(self, number: int, shape: Shape, usage: bool) -> None:
        if self.transport.is_closing():
            return
        self.event(FRAME % (number, time.perf_counter_ns()))
        if number + 1 < shape.frames:
            later = partial(self.frame, number + 1, shape, usage)
            asyncio.get_running_loop().call_later(shape.every_s, later)
            return
        if usage:
            self.event(USAGE % shape.frames)
        self.event(DONE)
        self.transport.write(b"0\r\n\r\n")

    def event(self, event: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))


class Client:
    """One connection that asks for streams, one after the other."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self.port = port
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        self.request = (
            b"POST %b HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n%b"
            b"content-length: %d\r\n\r\n%b" % (PATH, fields, len(BODY), BODY)
        )

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def stream(self) -> tuple[float, list[tuple[int, float]], list[bytes]]:
        """Return ms to the first frame, (number, ms in transit) of each frame, and other events."""
        asked = time.perf_counter_ns()
        self.writer.write(self.request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head + await self.reader.read(1000)
        first_ms, frames, other, rest = 0.0, [], [], b""
        while size := int(await self.reader.readline(), 16):
            rest += (await self.reader.readexactly(size + 2))[:-2]
            now = time.perf_counter_ns()
            first_ms = first_ms or (now - asked) / 1e6
            *events, rest = rest.split(b"\n\n")
            for event in events:
                said = SAID.search(event)
                if said is None:
                    other.append(event)
                else:
                    frames.append((int(said[1]), (now - int(said[2])) / 1e6))
        await self.reader.readline()
        return first_ms, frames, [*other, rest] if rest else other

    def close(self) -> None:
        self.writer.close()


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[int(q * (len(values) - 1))]


async def first_frames(ways: dict[str, Client], rounds: int) -> list[First]:
    """Alternate between the ways, so that other load on the machine affects them equally."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for client in ways.values():
        await client.open()
        for _ in range(20):
            await client.stream()
    for _ in range(rounds):
        for name, client in ways.items():
            times[name].append((await client.stream())[0])
    for client in ways.values():
        client.close()
    direct = statistics.median(times["directly"])
    return [
        First(name, statistics.median(ms), quantile(ms, 0.99), statistics.median(ms) - direct)
        for name, ms in times.items()
    ]


async def at_once(name: str, port: int, headers: dict[str, str], shape: Shape, pid: int) -> Row:
    """Open all streams, one after the other, and read them to their end."""

    async def one(index: int) -> tuple[float, list[tuple[int, float]], list[bytes]]:
        await asyncio.sleep(shape.open_s * index / shape.streams)
        client = Client(port, headers)
        await client.open()
        seen = await client.stream()
        client.close()
        return seen

    before_mib, before_s = (rss_mib(pid), cpu_s(pid)) if pid else (0.0, 0.0)
    tasks = [asyncio.create_task(one(index)) for index in range(shape.streams)]
    await asyncio.sleep((shape.open_s + shape.frames * shape.every_s) / 2)
    assert not any(task.done() for task in tasks), "streams ended before all were open"
    open_mib = rss_mib(pid) if pid else 0.0
    streams = await asyncio.gather(*tasks)
    used_s = cpu_s(pid) - before_s if pid else 0.0
    late = [ms for _, frames, _ in streams for _, ms in frames]
    whole = list(range(shape.frames))
    sound = sum(
        [number for number, _ in frames] == whole and other == [DONE.strip()]
        for _, frames, other in streams
    )
    first = [ms for ms, _, _ in streams]
    return Row(
        name=name,
        streams=shape.streams,
        frames=len(late),
        broken=shape.streams - sound,
        first_p50_ms=statistics.median(first),
        first_p99_ms=quantile(first, 0.99),
        late_p50_ms=statistics.median(late),
        late_p99_ms=quantile(late, 0.99),
        more_mib=open_mib - before_mib if pid else None,
        cpu_us_a_frame=used_s * 1e6 / len(late) if pid else None,
    )


def gateways(folder: Path, upstream: int, streams: int) -> list[Contestant]:
    """Return Tollway with every feature on and enough concurrency, and the bare relay."""
    one = contestants.gateway(folder, upstream)
    room = {f"TOLLWAY_BACKENDS__CHAT_{name}__CONCURRENCY": str(streams) for name in "ABC"}
    still = {f"TOLLWAY_BACKENDS__CHAT_{name}__ADAPTIVE": "false" for name in "ABC"}
    tollway = replace(one, environ={**one.environ, **room, **still})
    return [tollway, contestants.floor("relay", "bare relay")(folder, upstream)]


async def run(args: argparse.Namespace, folder: Path) -> tuple[list[First], list[Row]]:
    """Measure streams one after the other, then all at once."""
    shapes = [Shape(1, 1, 0.0)]
    loop = asyncio.get_running_loop()
    port = free_port()
    server = await loop.create_server(
        lambda: Upstream(lambda: shapes[-1]), "127.0.0.1", port, backlog=4096
    )
    first, rows = [], []
    many = Shape(args.streams, args.frames, args.every_ms / 1000, args.open_s)
    for one in gateways(folder, port, args.streams):
        # Waiting for the port blocks the loop; the upstream has no requests yet.
        with started(one.command, one.port, 0, one.environ, folder / "log") as pid:
            headers = dict(one.headers)
            shapes.append(Shape(1, 1, 0.0))
            ways = {"directly": Client(port, {}), one.name: Client(one.port, headers)}
            first += await first_frames(ways, args.rounds)
            shapes.append(many)
            rows.append(await at_once("directly", port, {}, many, 0))
            rows.append(await at_once(one.name, one.port, headers, many, pid))
            rows.append(await at_once(f"{one.name}, again", one.port, headers, many, pid))
    server.close()
    return first, rows


def show(first: list[First], rows: list[Row]) -> None:
    print("one stream after the other: ms from the request to the first frame")
    for one in first:
        print(f"  {one.name:16}p50 {one.p50_ms:.3f}  p99 {one.p99_ms:.3f}", end="")
        print("" if one.name == "directly" else f"  added, p50: {one.added_p50_ms:.3f}")
    print("at once:          streams  frames broken", end="")
    print("  first p50   p99 ms  late p50   p99 ms  more MiB  us/frame")
    for row in rows:
        print(
            f"  {row.name:16}{row.streams:7}{row.frames:8}{row.broken:7}{row.first_p50_ms:11.2f}"
            f"{row.first_p99_ms:9.2f}{row.late_p50_ms:10.2f}{row.late_p99_ms:9.2f}",
            end="",
        )
        if row.more_mib is not None and row.cpu_us_a_frame is not None:
            print(f"{row.more_mib:10.1f}{row.cpu_us_a_frame:10.1f}", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--open-s", type=float, default=4.0)
    parser.add_argument("--every-ms", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    stay(-1)
    with tempfile.TemporaryDirectory() as folder:
        first, rows = uvloop.run(run(args, Path(folder)))
    show(first, rows)
    if args.json:
        told = {"first": [asdict(one) for one in first], "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
