"""Measures how well a device's load is learned, and whether charges add up to its cost.

    python benchmarks/devices.py [--model large] [--seconds 20] [--json FILE]

An example server of digits runs in its own process and counts its busy seconds. Requests are sent
to it through a gateway at a rate that changes: each phase of `--loads` asks for that share of the
server's time. Four gateways are measured one after the other, which differ in where device seconds
come from:

    reply      x-device-seconds of each reply
    field      another field of each reply, which a relay renames
    counter    a counter in Prometheus' text format, polled every second
    duration   nothing: the duration of calls stands for it

For each: `seconds` is how much the device seconds that calls stand for are off those that the
server counted; `utilisation` how much the learned one is off the true one, on average over the
second half of each phase, and `at most` in any phase; `bill` how much of the device's cost calls
were charged, over all phases and at the end of each (its second half), where the load has been
learned. The half-life is a tenth of a phase. Relay, gateway and clients share one event loop, and
two cores with the server.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from examples.digits.data import halves  # noqa: E402
from examples.digits.processes import start  # noqa: E402
from tests.support.harness import Running, running, serving  # noqa: E402
from tollway.backends.http.factory import open_transport  # noqa: E402
from tollway.backends.types import Call  # noqa: E402
from tollway.gateway.listener.http_protocol import limited_protocol  # noqa: E402
from tollway.gateway.listener.request_head import HeadLimits  # noqa: E402

PATH = b"/v2/models/digits/infer"
FIELDS = [(b"content-type", b"application/json")]
NANO_PER_S = 1_000_000  # $3.60 an hour

CONFIG = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[devices]]
name = "gpu"
usd_per_hour = 3.6
min_utilization = 0.005
half_life_s = {half_life_s}
[[backends]]
name = "model"
kind = "gpu"
protocol = "oip"
url = "{url}"
model = "digits"
adaptive = false
queue_s = 10
device = "gpu"
{source}
[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["model"]
"""


@dataclass
class Line:
    """One line of the table: errors as shares of the true figure."""

    source: str
    seconds_error: float
    utilization_error: float
    utilization_error_max: float
    billed: float
    billed_when_learned: float


class Relay:
    """Passes requests on to the server, without the field that tells the device time.

    With `renamed` that field has another name. `/metrics` is what the server counts, as a counter.
    """

    def __init__(self, url: str, renamed: bytes = b"") -> None:
        self._transport = open_transport(url)
        self._renamed = renamed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        counts = scope["path"] == "/metrics"
        path = b"/stats" if counts else scope["raw_path"]
        headers = [(b"host", b"server"), *FIELDS]
        call = Call(scope["method"].encode(), path, headers, body)
        reply = await self._transport.send(call, asyncio.get_running_loop().time() + 30)
        answer = await reply.read(1 << 20)
        fields = [pair for pair in reply.headers if pair[0] != b"x-device-seconds"]
        if self._renamed:
            told = dict(reply.headers)[b"x-device-seconds"]
            fields.append((self._renamed, b"%.6f" % (1000 * float(told))))
        if counts:
            seconds = json.loads(answer)["device_s"]
            answer = b'busy_seconds_total{model="digits"} %.9f\n' % seconds
            fields = []
        await send({"type": "http.response.start", "status": reply.status, "headers": fields})
        await send({"type": "http.response.body", "body": answer})

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


async def counted(client: httpx.AsyncClient, url: str) -> float:
    """Return the busy seconds that the server has counted."""
    return float((await client.get(f"{url}/stats")).json()["device_s"])


async def offered(tollway: Running, bodies: list[bytes], per_s: float, until_s: float) -> None:
    """Send requests at random times, as many clients do, until a time of the loop."""
    loop, rng = asyncio.get_running_loop(), random.Random(0)
    transport = open_transport(tollway.url, connections=200)
    tasks: list[asyncio.Task[None]] = []

    async def one(body: bytes) -> None:
        reply = await transport.send(Call(b"POST", PATH, list(FIELDS), body), loop.time() + 30)
        answer = await reply.read(1 << 20)
        assert reply.status in (200, 503), answer  # a full server refuses calls, which cost nothing

    at_s = loop.time()
    while (at_s := at_s + rng.expovariate(per_s)) < until_s:
        await asyncio.sleep(max(0.0, at_s - loop.time()))
        tasks.append(asyncio.create_task(one(rng.choice(bodies))))
    await asyncio.gather(*tasks)
    await transport.aclose()


async def measured(
    source: str, url: str, bodies: list[bytes], given: argparse.Namespace, each_s: float
) -> Line:
    """Measure one gateway; `each_s` is the device time of a request."""
    relay = Relay(url, b"x-compute-ms" if source == "field" else b"")
    try:
        async with serving(relay) as hidden:
            told = {
                "reply": "",
                "duration": "",
                "field": 'device_time = { source = "header", header = "x-compute-ms", '
                'unit = "ms" }',
                "counter": f'device_time = {{ source = "metric", url = "{hidden}/metrics", '
                "metric = 'busy_seconds_total{model=\"digits\"}', poll_s = 1 }",
            }[source]
            config = CONFIG.format(
                url=url if source == "reply" else hidden,
                source=told,
                half_life_s=given.seconds / 10,
            )
            with tempfile.TemporaryDirectory() as folder:
                http = limited_protocol(HeadLimits())
                async with running(config, Path(folder), http=http) as tollway:
                    return await phases(source, tollway, url, bodies, given, each_s)
    finally:
        await relay.aclose()


async def phases(
    source: str,
    tollway: Running,
    url: str,
    bodies: list[bytes],
    given: argparse.Namespace,
    each_s: float,
) -> Line:
    """Go through the phases, and compare what was learned with what the server counted."""
    costs = tollway.gateway.costs
    device, loop = costs.devices["gpu"].device, asyncio.get_running_loop()
    charged, user = costs.charged["model"], device.users["model"]
    errors: list[float] = []
    whole = learned_s = learned_nano = 0.0
    begun_s, begun_nano = loop.time(), charged.nano
    begun = await counted(tollway.client, url)
    await costs.run()
    busy_before = user.busy_s
    for load in given.loads:
        ends_s = loop.time() + given.seconds
        sending = asyncio.create_task(offered(tollway, bodies, load / each_s, ends_s))
        await asyncio.sleep(given.seconds / 2)
        half, half_s, half_nano = await counted(tollway.client, url), loop.time(), charged.nano
        seen = []
        while loop.time() < ends_s:
            await asyncio.sleep(0.25)
            seen.append(device.utilization)
        passed_s = loop.time() - half_s
        assert seen, "the event loop had no time: ask for less"
        true = (await counted(tollway.client, url) - half) / passed_s
        errors.append(sum(seen) / len(seen) / true - 1.0)
        learned_s += passed_s
        learned_nano += charged.nano - half_nano
        await sending
    await asyncio.sleep(1.0)
    await costs.run()
    whole = (charged.nano - begun_nano) / ((loop.time() - begun_s) * NANO_PER_S)
    seconds = (user.busy_s - busy_before) / (await counted(tollway.client, url) - begun)
    sizes = [abs(error) for error in errors]
    return Line(
        source,
        seconds - 1.0,
        sum(sizes) / len(sizes),
        max(sizes),
        whole,
        learned_nano / (learned_s * NANO_PER_S),
    )


async def main(given: argparse.Namespace) -> list[Line]:
    """Measure all gateways; return the lines."""
    images = halves()[1].images
    bodies = []
    for first in range(0, 200, 8):
        pixels = [float(pixel) for pixel in images[first : first + given.rows].ravel()]
        shape = [given.rows, 64]
        tensor = {"name": "image", "datatype": "FP32", "shape": shape, "data": pixels}
        bodies.append(json.dumps({"inputs": [tensor]}).encode())
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "examples.digits.serve", "--model", given.model]
        server = await start("digits", arguments, Path(folder, "server.log"))
        try:
            async with httpx.AsyncClient() as client:
                before = await counted(client, server.url)
                for body in bodies:
                    await client.post(server.url + PATH.decode(), content=body, headers=FIELDS)
                each_s = (await counted(client, server.url) - before) / len(bodies)
            print(f"a request takes {1000 * each_s:.2f} ms of the device", flush=True)
            return [
                await measured(source, server.url, bodies, given, each_s)
                for source in given.sources
            ]
        finally:
            server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="large", choices=("rules", "cpu", "large"))
    parser.add_argument("--seconds", type=float, default=20, help="of a phase")
    parser.add_argument("--rows", type=int, default=8, help="images in a request")
    parser.add_argument("--loads", type=float, nargs="*", default=[0.04, 0.12, 0.02])
    parser.add_argument("--sources", nargs="*", default=["reply", "field", "counter", "duration"])
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    began = time.perf_counter()
    table = uvloop.run(main(chosen))
    loads = ", ".join(f"{load:.0%}" for load in chosen.loads)
    print(f"digits-{chosen.model}, loads of {loads}, {chosen.seconds:g} s each")
    print("source    seconds  utilisation  at most    bill  when learned")
    for line in table:
        print(
            f"{line.source:9} {line.seconds_error:+6.1%}  {line.utilization_error:10.1%}  "
            f"{line.utilization_error_max:7.1%}  {line.billed:6.1%}  "
            f"{line.billed_when_learned:11.1%}"
        )
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(line) for line in table], indent=1))
