"""Whole gateways whose backends run on a device: polled prices, counters of servers, reloads."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.configs import budget
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.reloading import File
from tests.support.until import until
from tollway.gateway import settings
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.wiring import build

pytestmark = pytest.mark.integration


@dataclass
class Exporter:
    """A server of one page."""

    page: str = "3.6"
    status: int = 200
    count: Callable[[], float] = lambda: 0.0
    paths: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        body = self.page.format(count=self.count()).encode()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})


def config(url: str, device: str, backend: str = "", more: str = "") -> str:
    """Return a gateway with one backend on one device."""
    return f"""
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[devices]]
name = "gpu"
{device}
[[backends]]
name = "model"
kind = "gpu"
protocol = "oip"
url = "{url}"
device = "gpu"
{backend}
[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["model"]
{more}
"""


async def polled(tollway: Running) -> None:
    """Read all prices and counters now."""
    costs = tollway.gateway.costs
    for one in costs.devices.values():
        one.due_s = 0.0
        for counter in one.clocks.values():
            counter.due_s = 0.0
    await costs.run()


def second_nano(tollway: Running) -> float:
    """Return the price in force of a second that a call is charged."""
    return tollway.gateway.routes["m"].backends["model"].price.per_device_s_nano


def test_a_polled_price_is_that_of_new_calls_only(tmp_path: Path) -> None:
    async def main() -> None:
        held = Upstream(hold=asyncio.Event(), headers=[(b"x-device-seconds", b"2")])
        exporter = Exporter("3.6")
        async with serving(held) as url, serving(exporter) as prices:
            # The load hardly changes in a test, so only the price of an hour moves.
            device = f'price_url = "{prices}/spot"\nutilization = 0.5\nhalf_life_s = 86400'
            async with running(config(url, device), tmp_path) as tollway:
                assert second_nano(tollway) == pytest.approx(2_000_000)
                first = asyncio.ensure_future(tollway.infer())
                await until(lambda: held.calls == 1)
                exporter.page = "7.2"
                await polled(tollway)
                assert second_nano(tollway) == pytest.approx(4_000_000, rel=0.01)
                second = asyncio.ensure_future(tollway.infer())
                await until(lambda: held.calls == 2)
                assert held.hold is not None
                held.hold.set()
                replies = await asyncio.gather(first, second)
                costs = [float(reply.headers["x-tollway-cost-usd"]) for reply in replies]
                assert costs == pytest.approx([0.004, 0.008], rel=0.01)
                await tollway.gateway.costs.run()
                metrics = (await tollway.client.get(f"{tollway.url}/metrics")).text
                assert 'tollway_device_usd_per_hour{device="gpu"} 7.2' in metrics
                charged = tollway.gateway.costs.charged["model"]
                assert charged.nano == round(1e9 * sum(costs))
                assert charged.us == 4_000_000
                decision = replies[1].headers["x-tollway-decision"]
                told = await tollway.get(f"/_tollway/decisions/{decision}")
                assert told["devices"]["model"]["device"] == "gpu"
                assert told["story"][-1].startswith("model runs on device gpu ($7.2 an hour)")
                assert "50% of that pays for idle time" in told["story"][-1]
                (one,) = (await tollway.get("/_tollway/overview"))["devices"]
                assert one["utilization"] == pytest.approx(0.5, abs=0.01)
                assert one["backends"]["model"]["charged_usd"] == pytest.approx(sum(costs))
                assert one["backends"]["model"]["idle_share"] == pytest.approx(0.5, abs=0.01)
        assert set(exporter.paths) == {"/spot"}

    run(main)


@pytest.mark.parametrize(
    ("page", "status", "why"),
    [("3.6", 503, "status 503"), ("no number", 200, "not a number"), ("0", 200, "not above 0")],
)
def test_a_gateway_without_the_price_of_its_device_does_not_start(
    tmp_path: Path, page: str, status: int, why: str
) -> None:
    async def main() -> None:
        async with serving(Exporter(page, status)) as prices:
            text = config("http://127.0.0.1:9", f'price_url = "{prices}"')
            gateway = build(settings.parse(text, {}, folder=tmp_path))
            with pytest.raises(ConfigError, match=why) as failed:
                await gateway.open()
            assert '[[devices]] "gpu" price_url' in str(failed.value)
            assert prices not in str(failed.value)

    run(main)


def test_a_price_that_is_no_longer_read_makes_costs_estimates_and_hard_budgets_refuse(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        upstream = Upstream(headers=[(b"x-device-seconds", b"0.5")])
        exporter = Exporter("3.6")
        async with serving(upstream) as url, serving(exporter) as prices:
            device = f'price_url = "{prices}"\nstale_after_s = 0'
            async with running(config(url, device), tmp_path) as tollway:
                await tollway.infer()
                exporter.status = 500
                await polled(tollway)
                assert (await tollway.infer()).status_code == 200
                rows = tollway.journalled("attempt")
                assert [row["provenance"] for row in rows] == ["usage", "estimated"]
                assert rows[1]["cost_nano"] == pytest.approx(rows[0]["cost_nano"], rel=0.02)
                metrics = (await tollway.client.get(f"{tollway.url}/metrics")).text
                assert 'tollway_device_price_known{device="gpu"} 0.0' in metrics
                kinds = [event["kind"] for event in tollway.gateway.events.newest()]
                assert kinds.count("device_price_unread") == 1
                exporter.status = 200
                await polled(tollway)
                await tollway.infer()
                assert tollway.journalled("attempt")[2]["provenance"] == "usage"
            text = config(url, device, more=budget("all", "10.0", more='enforcement = "hard"'))
            folder = tmp_path / "hard"
            folder.mkdir()
            async with running(text, folder) as tollway:
                assert (await tollway.infer()).status_code == 200
                exporter.status = 500
                await polled(tollway)
                refused = await tollway.infer()
                assert refused.status_code == 422
                assert "not known at present" in refused.text

    run(main)


def test_a_device_whose_price_is_not_known_can_be_left_out(tmp_path: Path) -> None:
    async def main() -> None:
        exporter = Exporter("3.6")
        async with serving(Upstream()) as url, serving(exporter) as prices:
            device = f'price_url = "{prices}"\nstale_after_s = 0\non_stale = "exclude"'
            async with running(config(url, device), tmp_path) as tollway:
                assert (await tollway.infer()).status_code == 200
                exporter.status = 500
                await polled(tollway)
                refused = await tollway.infer()
                assert refused.status_code == 429
                assert 1 <= int(refused.headers["retry-after"]) <= 3

    run(main)


COUNTED = """\
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{{model="digits",version="1"}} {count:.0f}
nv_inference_compute_infer_duration_us{{model="other",version="1"}} 77
"""


def test_a_server_s_counters_correct_what_its_calls_are_charged(tmp_path: Path) -> None:
    async def main() -> None:
        # Each call takes 20 ms, and the device works for a quarter of that.
        upstream = Upstream(delay_s=0.02)
        exporter = Exporter(COUNTED, count=lambda: 5000.0 * upstream.calls)
        async with serving(upstream) as url, serving(exporter) as counters:
            backend = (
                'model = "digits"\n'
                f'device_time = {{ source = "triton", url = "{counters}/metrics", poll_s = 3600 }}'
            )
            device = 'usd_per_hour = 3.6\nidle = "none"'
            async with running(config(url, device, backend), tmp_path) as tollway:
                assert second_nano(tollway) == pytest.approx(1_000_000)
                await polled(tollway)
                replies = [await tollway.infer() for _ in range(10)]
                await polled(tollway)
                user = tollway.gateway.costs.devices["gpu"].device.users["model"]
                charged_s = tollway.gateway.costs.charged["model"].us / 1e6
                assert charged_s >= 10 * 0.02
                assert user.share.value == pytest.approx(10 * 0.005 / charged_s)
                assert second_nano(tollway) == pytest.approx(1e6 * user.share.value, rel=0.02)
                after = await tollway.infer()
                usd = [float(r.headers["x-tollway-cost-usd"]) for r in (*replies, after)]
                assert usd[-1] < 0.5 * min(usd[:-1])
                # A quote follows at once: nothing has to be learned again.
                row = tollway.journalled("attempt")[-1]
                assert row["expected_nano"] < 0.5 * min(usd[:-1]) * 1e9
                exporter.status = 500
                await polled(tollway)
                kinds = [event["kind"] for event in tollway.gateway.events.newest()]
                assert kinds.count("device_time_unread") == 1
                assert (await tollway.infer()).status_code == 200

    run(main)


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        ('{ source = "header", header = "X-Compute", unit = "ms" }', [(b"x-compute", b"7.5")]),
        (
            '{ source = "server-timing", metric = "gpu" }',
            [(b"server-timing", b"queue;dur=1, gpu;dur=7.5")],
        ),
    ],
)
def test_calls_are_charged_the_time_that_their_replies_tell(
    tmp_path: Path, source: str, headers: list[tuple[bytes, bytes]]
) -> None:
    async def main() -> None:
        async with serving(Upstream(headers=headers)) as url:
            text = config(url, 'usd_per_hour = 3.6\nidle = "none"', f"device_time = {source}")
            async with running(text, tmp_path) as tollway:
                reply = await tollway.infer()
                assert float(reply.headers["x-tollway-cost-usd"]) == pytest.approx(7.5e-6)
                (row,) = tollway.journalled("attempt")
                assert (row["device_s"], row["provenance"]) == (0.0075, "usage")

    run(main)


def test_the_calls_of_a_batch_share_the_time_that_its_reply_tells(tmp_path: Path) -> None:
    class Rows(Upstream):
        def answer(self, body: bytes) -> bytes:
            count = orjson.loads(body)["inputs"][0]["shape"][0]
            tensor = {"name": "y", "shape": [count], "datatype": "INT64", "data": [1] * count}
            return orjson.dumps({"model_name": "m", "outputs": [tensor]})

    async def main() -> None:
        upstream = Rows(headers=[(b"x-compute", b"8")])
        async with serving(upstream) as url:
            backend = (
                'device_time = { source = "header", header = "x-compute", unit = "ms" }\n'
                "batch = { max_size = 4, max_wait_ms = 1000 }"
            )
            text = config(url, 'usd_per_hour = 3.6\nidle = "none"', backend)
            async with running(text, tmp_path) as tollway:
                replies = await asyncio.gather(*(tollway.infer() for _ in range(4)))
                assert upstream.calls == 1
                costs = [float(reply.headers["x-tollway-cost-usd"]) for reply in replies]
                assert sum(costs) == pytest.approx(8e-6)
                assert costs == pytest.approx([2e-6] * 4, rel=1e-3)

    run(main)


def test_a_reload_changes_a_device_and_keeps_what_it_has_learned(tmp_path: Path) -> None:
    async def main() -> None:
        upstream, exporter = Upstream(), Exporter("7.2")
        async with serving(upstream) as url, serving(exporter) as prices:
            before = config(url, "usd_per_hour = 3.6\nutilization = 0.25")
            after = config(url, f'price_url = "{prices}"')
            async with running(before, tmp_path) as tollway:
                file = File(tollway, tmp_path)
                assert second_nano(tollway) == pytest.approx(4_000_000)
                assert (await file.reload(after)).json() == {"changed": ["device gpu changed"]}
                assert second_nano(tollway) == pytest.approx(8_000_000, rel=0.1)
                exporter.status = 500
                unread = await file.reload(after.replace(prices, f"{prices}/else"))
                assert unread.status_code >= 400
                assert "price_url" in unread.text
                kept = await file.reload(after)  # its price is known, so it need not be read
                assert kept.json() == {"changed": []}
                assert (await tollway.infer()).status_code == 200

    run(main)


def test_a_name_that_leads_to_a_metadata_address_is_not_fetched(tmp_path: Path) -> None:
    text = config("http://127.0.0.1:9", 'price_url = "http://169.254.169.254/price"')
    with pytest.raises(ConfigError, match="link-local"):
        settings.parse(text, {}, folder=tmp_path)
