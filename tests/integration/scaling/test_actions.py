"""Actions of a running gateway: a command that is run, reported, and kept over a reload."""

import json
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.reloading import File
from tests.support.until import until
from tollway.gateway.wiring.jobs import look

pytestmark = pytest.mark.integration

SCALING = """
[[scaling]]
name = "cheap"
min = 2
max = 3
calls_per_replica = 1
replica_usd_per_hour = 1.5
[scaling.action]
kind = "command"
command = ["sh", "-c", "echo $TOLLWAY_REPLICAS >> {log}; echo set"]
"""
OWN = '\n[[scaling]]\nname = "tollway"\nkind = "gateway"\nmax = 9\ncalls_per_replica = 1\n'


async def recommended(tollway: Running) -> None:
    """Have a minute of the gateway's load measured."""
    gateway = tollway.gateway
    for at_s in (1000.0, 1060.0):
        gateway.wall = gateway.scaler._wall = lambda at_s=at_s: at_s
        await look(gateway)
        await tollway.infer()


def test_a_command_sets_what_is_recommended_and_is_reported(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            ledger = f"sqlite:///{tmp_path}/tollway.db"
            text = two_backends(a, b, ledger=ledger, more=SCALING.format(log=log) + OWN)
            async with running(text, tmp_path) as tollway:
                gateway = tollway.gateway
                file = File(tollway, tmp_path)
                await recommended(tollway)
                await gateway.scaler.tick()
                await until(lambda: gateway.scaler.counts["cheap", "made"])
                told = await tollway.get("/_tollway/scaling/cheap")
                assert told["action"]["replicas"] == told["replicas"] == 2
                assert told["money"]["usd_per_hour"] == 3.0
                events = (await tollway.get("/_tollway/events"))["events"]
                (event,) = [one for one in events if one["kind"] == "replicas_changed"]
                assert event["details"]["output"] == "set"
                await until(lambda: gateway.audit.newest(1))
                act = (await tollway.get("/_tollway/audit"))["acts"][0]
                assert (act["act"], act["after"]["replicas"]) == ("scale", 2)
                every = (await tollway.get("/_tollway/scaling"))["scaling"]
                assert [one["backend"] for one in every] == ["cheap", "tollway"]
                assert every[1]["replicas"] == 1 and every[1]["service_s"] > 0.0
                reply = await file.reload(text.replace("min = 2", "min = 3"))
                assert reply.json() == {"changed": ["scaling of cheap changed"]}
                gateway.wall = gateway.scaler._wall = lambda: 1100.0
                await look(gateway)
                await gateway.scaler.tick()
                await until(lambda: gateway.scaler.counts["cheap", "made"] == 2)
                text = (await tollway.client.get(tollway.url + "/metrics")).text
                assert 'tollway_backend_replicas_set{backend="cheap"} 3.0' in text

    run(main)
    assert log.read_text().split() == ["2", "3"]


def test_the_number_for_kedas_metrics_api_is_a_number_or_absent(tmp_path: Path) -> None:
    """KEDA reads `replicas`; null is an error to it, and it then uses its fallback."""

    async def main() -> None:
        async with serving(Upstream()) as a:
            text = two_backends(a, a, more=SCALING.partition("[scaling.action]")[0])
            async with running(text, tmp_path) as tollway:
                page = f"{tollway.url}/_tollway/scaling/cheap"
                assert json.loads((await tollway.client.get(page)).text)["replicas"] is None
                await recommended(tollway)
                assert (await tollway.client.get(page)).json()["replicas"] == 2

    run(main)
