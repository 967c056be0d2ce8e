"""What many streams at once cost a gateway: memory, time to the first frame, streams broken.

    python benchmarks/streams.py --gateway "tollway serve b.toml" --port 80 --upstream-port 90
    python benchmarks/streams.py                            # the relay of floor.py

Starts an upstream that sends server-sent events, one every `--every-ms`, to each of `--streams`
clients at once; each frame carries its number and the time it was sent. The clients read directly
from the upstream first, then through the gateway; the difference is the gateway's. Everything runs
on one machine: upstream and clients share a core, the gateway has the other.
"""

import argparse
import asyncio
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

BENCHMARKS = Path(__file__).parent
sys.path.insert(0, str(BENCHMARKS.parent))

from benchmarks.gateway import FLOOR, free_port, pinned, rss_mib, wait_for  # noqa: E402

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One way to the upstream. Times in ms from when a frame was sent to when it was read.

    `broken` counts streams whose frames did not all come, once each, in order.
    """

    name: str
    streams: int
    frames: int
    broken: int
    first_p50_ms: float
    first_p99_ms: float
    frame_p50_ms: float
    frame_p99_ms: float
    kib_a_stream: float | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """How many streams, of how many frames, how far apart."""

    streams: int
    frames: int
    every_s: float


def upstream(shape: Shape) -> type[asyncio.Protocol]:
    """Return the protocol of a server that streams to whoever asks."""

    class Upstream(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.asked = b""

        def data_received(self, data: bytes) -> None:
            self.asked += data
            if b"\r\n\r\n" in self.asked:  # a GET: the head is all of it
                self.asked = b""
                self.transport.write(HEAD)  # type: ignore[attr-defined]
                self.frame(0)

        def frame(self, number: int) -> None:
            if self.transport.is_closing():
                return
            event = b"data: %d %d\n\n" % (number, time.perf_counter_ns())
            chunk = b"%x\r\n%b\r\n" % (len(event), event)
            if number + 1 == shape.frames:
                self.transport.write(chunk + b"0\r\n\r\n")  # type: ignore[attr-defined]
                return
            self.transport.write(chunk)  # type: ignore[attr-defined]
            asyncio.get_running_loop().call_later(shape.every_s, self.frame, number + 1)

    return Upstream


async def read_stream(port: int, path: str) -> list[tuple[int, float]]:
    """Return (frame number, ms under way) as they come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET %b HTTP/1.1\r\nhost: bench\r\n\r\n" % path.encode())
    await reader.readuntil(b"\r\n\r\n")
    seen = []
    while size := int(await reader.readline(), 16):
        chunk = (await reader.readexactly(size + 2))[:-2]
        now = time.perf_counter_ns()
        for event in chunk.split(b"\n\n")[:-1]:
            number, sent = event.removeprefix(b"data: ").split()
            seen.append((int(number), (now - int(sent)) / 1e6))
    writer.close()
    return seen


def p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


async def load(name: str, port: int, path: str, shape: Shape, pid: int | None) -> Row:
    """Open all streams within a second, read them to their end."""
    before_mib = rss_mib(pid) if pid else 0.0

    async def one(index: int) -> list[tuple[int, float]]:
        await asyncio.sleep(index / shape.streams)
        return await read_stream(port, path)

    tasks = [asyncio.create_task(one(index)) for index in range(shape.streams)]
    await asyncio.sleep(max(1.5, shape.frames * shape.every_s / 2))
    all_open_mib = rss_mib(pid) if pid else 0.0
    streams = await asyncio.gather(*tasks)
    first = [stream[0][1] for stream in streams if stream]
    every = [ms for stream in streams for _, ms in stream]
    numbers = list(range(shape.frames))
    whole = sum([number for number, _ in stream] == numbers for stream in streams)
    kib = (all_open_mib - before_mib) * 1024 / shape.streams
    return Row(
        name=name,
        streams=shape.streams,
        frames=len(every),
        broken=shape.streams - whole,
        first_p50_ms=statistics.median(first),
        first_p99_ms=p99(first),
        frame_p50_ms=statistics.median(every),
        frame_p99_ms=p99(every),
        kib_a_stream=kib if pid else None,
    )


async def run(args: argparse.Namespace) -> list[Row]:
    """Measure the way without a gateway, then the way with it."""
    shape = Shape(args.streams, args.frames, args.every_ms / 1000)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(upstream(shape), "127.0.0.1", args.upstream_port or 0)
    port = server.sockets[0].getsockname()[1]
    gateway_port = args.port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(FLOOR), "relay", "--port", str(gateway_port)]
    command += ["--upstream", url]
    if args.gateway:
        command = shlex.split(args.gateway.format(port=gateway_port, upstream=url))
    process = await asyncio.to_thread(subprocess.Popen, [*pinned(0), *command])
    try:
        await asyncio.to_thread(wait_for, gateway_port, process)
        rows = [await load("directly", port, args.path, shape, None)]
        rows.append(await load("gateway", gateway_port, args.path, shape, process.pid))
    finally:
        process.terminate()
        process.wait()
    server.close()
    return rows


def show(rows: list[Row]) -> None:
    print("           streams  frames broken first p50 ms   p99 ms frame p50 ms  p99 ms  KiB each")
    for row in rows:
        kib = "" if row.kib_a_stream is None else f"{row.kib_a_stream:.0f}"
        print(
            f"{row.name:10}{row.streams:8}{row.frames:8}{row.broken:7}{row.first_p50_ms:13.2f}"
            f"{row.first_p99_ms:9.2f}{row.frame_p50_ms:13.2f}{row.frame_p99_ms:8.2f}{kib:>10}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gateway", help="the command that starts the gateway")
    parser.add_argument("--port", type=int, help="where the gateway listens, unless {port}")
    parser.add_argument("--upstream-port", type=int, help="where the upstream is to listen")
    parser.add_argument("--path", default="/v1/stream")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--every-ms", type=float, default=200.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    rows = uvloop.run(run(args))
    show(rows)
    if args.json:
        args.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
