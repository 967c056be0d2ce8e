"""A backend without replicas: a request waits for the first one, which it has started."""

import asyncio
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, inference, run, running, serving
from tests.support.ports import free_port
from tests.support.until import until
from tollway.gateway.wiring.jobs import look

pytestmark = pytest.mark.integration

SCALING = """
[[scaling]]
name = "cheap"
min = 0
max = 2
calls_per_replica = 1
scale_down_after_s = 20
lead_s = 60
replica_usd_per_hour = 3.6
start_wait_s = 100
[scaling.action]
kind = "command"
command = ["sh", "-c", "echo $TOLLWAY_REPLICAS > {told}"]
min_interval_s = 0
"""
ANSWER = Upstream().answer(b"")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
    writer.write(b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
    await writer.drain()
    writer.close()


class Clock:
    """Seconds that pass a few at each look."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        self.now_s += 5.0
        return self.now_s


async def quiet(tollway: Running) -> None:
    """Let a while without calls pass, until no replica is recommended and that is set."""
    gateway = tollway.gateway
    for _ in range(20):
        await look(gateway)
        await gateway.scaler.tick()
        task = gateway.scaler.acting["cheap"].task
        if task is not None:
            await task
    assert gateway.scaler.acting["cheap"].applied.replicas == 0


def test_a_request_waits_for_the_first_replica_and_has_it_started(tmp_path: Path) -> None:
    told, port = tmp_path / "told", free_port()

    async def main() -> None:
        async with serving(Upstream()) as other:
            text = two_backends(
                f"http://127.0.0.1:{port}",
                other,
                policy="fixed",
                route='policy_options = { arm = "cheap" }\ntimeout_s = 120',
                backend="timeout_s = 110",
                more=SCALING.format(told=told),
            )
            async with running(text, tmp_path) as tollway:
                gateway = tollway.gateway
                gateway.wall = gateway.scaler._wall = Clock()
                await quiet(tollway)
                start = gateway.backends["cheap"].start
                assert start is not None and start.is_cold
                # A start and the time that the replica stays: 80 s at $3.60 an hour.
                assert start.surcharge_usd == pytest.approx(0.08)
                call = asyncio.create_task(
                    tollway.client.post(
                        tollway.url + "/v2/models/m/infer", json=inference(), timeout=120
                    )
                )
                await until(lambda: gateway.scaler.counts["cheap", "made"] == 2)
                assert told.read_text() == "1\n" and not call.done()
                page = (await tollway.client.get(tollway.url + "/metrics")).text
                assert 'tollway_backend_start_waiting{backend="cheap"} 1.0' in page
                async with await asyncio.start_server(answer, "127.0.0.1", port):
                    reply = await call
                assert (reply.status_code, reply.headers["x-tollway-backend"]) == (200, "cheap")
                await look(gateway)
                found = gateway.scaling.backends["cheap"].meter
                assert found.service_s < 60.0 and not found.cold  # the wait is no service

    run(main)
