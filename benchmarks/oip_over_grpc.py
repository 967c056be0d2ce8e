"""Compares the Open Inference Protocol over gRPC with the same over REST: one gateway, one model.

    python benchmarks/oip_over_grpc.py [--rounds 5] [--calls 1500] [--json FILE]

The gateway has both listeners and is pinned to the first core. The model server answers at once,
over REST, with as many numbers as it got; it and the clients have the last core. REST and gRPC are
loaded in turns with the same calls: raw tensors of FP32, over as many connections (gRPC: calls at
once) as `--clients`. Calls of a method that is refused unread show what grpcio alone takes.
`cpu_us` is the CPU (user + sys) that the gateway uses for a call; the ratios to REST are the
medians of the rounds' ratios.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.throughput.processes import cpu_s, free_port, started, stay
from tollway.backends.http.factory import open_transport
from tollway.backends.types import Call
from tollway.gateway.grpc_listener.schema import SERVICE, Schema

CONFIG = """
[server]
allow_anonymous = true
listen = "127.0.0.1:{rest}"

[grpc]
listen = "127.0.0.1:{grpc}"

[ledger]
url = "memory://"

[[backends]]
name = "model"
kind = "cpu"
protocol = "oip"
url = "http://127.0.0.1:{model}"
adaptive = false
price = {{ per_request_usd = 0.000001 }}

[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["model"]

[[budgets]]
name = "all"
limit_usd = 1000
enforcement = "hard"
window = "day"
"""
SIZES = (4, 262_144)  # numbers in a tensor
REST, UNARY, STREAM = "REST", "gRPC", "gRPC, in one stream"
REFUSED = "gRPC, refused unread"
HEAD_LENGTH = b"inference-header-content-length"
Ask = Callable[[], Awaitable[None]]


@dataclass
class Row:
    """One way to call, over the rounds."""

    way: str
    numbers: int
    calls_per_s: float
    cpu_us: float
    x_calls: float
    x_cpu: float


class Model(asyncio.Protocol):
    """The model server: returns the tensor that it gets."""

    def __init__(self) -> None:
        self._got = bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            lines = bytes(self._got[:end]).lower().split(b"\r\n")[1:]
            fields = dict(line.split(b": ", 1) for line in lines)
            length = int(fields.get(b"content-length", b"0"))
            body = bytes(self._got[end + 4 : end + 4 + length])
            if len(body) < length:
                return
            del self._got[: end + 4 + length]
            raw = body[int(fields.get(HEAD_LENGTH, b"0")) :]
            self._transport.write(reply(raw))


def reply(raw: bytes) -> bytes:
    """Return a response with one raw tensor."""
    head = orjson.dumps({"model_name": "m", "outputs": [described(raw)]})
    length = len(head) + len(raw)
    fields = b"content-length: %d\r\n%b: %d\r\n" % (length, HEAD_LENGTH, len(head))
    return b"HTTP/1.1 200 OK\r\n%b\r\n%b%b" % (fields, head, raw)


def described(raw: bytes) -> dict[str, Any]:
    size = {"binary_data_size": len(raw)}
    return {"name": "x", "datatype": "FP32", "shape": [len(raw) // 4], "parameters": size}


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", port)
    await server.serve_forever()


@contextlib.contextmanager
def standing() -> Iterator[tuple[int, int, int]]:
    """Run the model and the gateway; yield the ports for REST and gRPC, and the gateway's id."""
    model, rest, over_grpc = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "tollway.toml"
        file.write_text(CONFIG.format(model=model, rest=rest, grpc=over_grpc))
        with started([sys.executable, __file__, "--model", str(model)], model, -1):
            command = [sys.executable, "-m", "tollway", "serve", str(file)]
            with started(command, rest, 0, log=Path(home) / "log") as pid:
                yield rest, over_grpc, pid


@contextlib.asynccontextmanager
async def clients(rest: int, over_grpc: int, numbers: int, count: int) -> Any:
    """Yield what makes one call in each way."""
    raw = np.linspace(0, 1, numbers, dtype=np.float32).tobytes()
    document = {"inputs": [described(raw)], "parameters": {"binary_data_output": True}}
    head = orjson.dumps(document)
    fields = [(HEAD_LENGTH, b"%d" % len(head))]
    transport = open_transport(f"http://127.0.0.1:{rest}", connections=count)
    schema = Schema()
    request = schema.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[numbers])
    request.raw_input_contents.append(raw)
    message, answer = request.SerializeToString(), schema.ModelInferResponse.FromString
    loop = asyncio.get_running_loop()

    async def over_rest() -> None:
        call = Call(b"POST", b"/v2/models/m/infer", list(fields), head + raw)
        response = await transport.send(call, loop.time() + 60)
        body = await response.read(1 << 30)
        assert response.status == 200, body
        assert body.endswith(raw)

    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{over_grpc}", options) as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        unary = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        many = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        administers = channel.unary_unary(f"/{SERVICE}/TraceSetting")
        streams = [many() for _ in range(count)]
        idle = list(streams)

        async def over_unary() -> None:
            assert answer(await unary(message)).raw_output_contents[0] == raw

        async def over_stream() -> None:
            stream = idle.pop()
            await stream.write(message)
            got = schema.ModelStreamInferResponse.FromString(await stream.read())
            assert got.infer_response.raw_output_contents[0] == raw, got.error_message
            idle.append(stream)

        async def refused() -> None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await administers(message)
                raise AssertionError("a server was administered")

        yield {REST: over_rest, UNARY: over_unary, STREAM: over_stream, REFUSED: refused}
        for stream in streams:
            await stream.done_writing()
    await transport.aclose()


async def loaded(ask: Ask, pid: int, calls: int, count: int) -> tuple[float, float]:
    """Make calls; return (calls a second, CPU seconds of a call)."""
    left = iter(range(calls))

    async def client() -> None:
        for _ in left:
            await ask()

    used_s, begun = cpu_s(pid), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(count)))
    return calls / (time.perf_counter() - begun), (cpu_s(pid) - used_s) / calls


async def main(given: argparse.Namespace) -> list[Row]:
    rows = []
    with standing() as (rest, over_grpc, pid):
        for numbers in SIZES:
            calls = given.calls if numbers < 1000 else given.calls // 10
            async with clients(rest, over_grpc, numbers, given.clients) as ways:
                found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
                for turn in range(given.rounds + 1):  # the first warms it up
                    for way, ask in ways.items():
                        one = await loaded(ask, pid, calls, given.clients)
                        if turn:
                            found[way].append(one)
            rows += [row(way, numbers, found[way], found[REST]) for way in ways]
    return rows


def row(
    way: str, numbers: int, mine: list[tuple[float, float]], rest: list[tuple[float, float]]
) -> Row:
    pairs = list(zip(mine, rest, strict=True))
    return Row(
        way,
        numbers,
        median(per_s for per_s, _ in mine),
        median(used_s for _, used_s in mine) * 1e6,
        median(one[0] / other[0] for one, other in pairs),
        median(one[1] / other[1] for one, other in pairs),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.model:
        asyncio.run(serve(chosen.model))
    stay(-1)
    table = asyncio.run(main(chosen))
    print("| calls | numbers | calls/s | cpu_us | calls/s to REST | cpu_us to REST |")
    print("|---|---|---|---|---|---|")
    for one in table:
        figures = (
            f"{one.calls_per_s:,.0f} | {one.cpu_us:,.0f} | {one.x_calls:.2f} | {one.x_cpu:.2f}"
        )
        print(f"| {one.way} | {one.numbers:,} | {figures} |")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(one) for one in table], indent=1))
