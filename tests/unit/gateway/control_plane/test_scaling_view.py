"""docs/autoscaling.md shows a configuration, an explanation and objects as they are."""

import re
from collections import deque
from pathlib import Path

import yaml

from tollway.gateway import settings as config
from tollway.gateway.control_plane.scaling import scaling
from tollway.gateway.scaling.advisor import BackendScaling, ScalingPlan
from tollway.gateway.scaling.load_meter import LoadMeter, Tick
from tollway.gateway.scaling.recommendation import Observed, recommend
from tollway.gateway.wiring.scaling import scaling_plans

PAGE = (Path(__file__).parents[4] / "docs" / "autoscaling.md").read_text()
METRIC = "tollway_backend_replicas_recommended"
GATEWAY = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "digits-gpu"
kind = "gpu"
protocol = "oip"
url = "http://127.0.0.1:9"
price = { per_request_usd = 0.001 }
[[routes]]
name = "r"
path = "/x"
protocol = "oip"
backends = ["digits-gpu"]
"""
MONDAY_NOON_S = 1_795_435_200.0


def blocks(language: str) -> list[str]:
    """Return the page's blocks of code in a language; "" for those without one."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def plan() -> ScalingPlan:
    (table,) = blocks("toml")
    return scaling_plans(config.parse(GATEWAY + table, {}))["digits-gpu"]


def test_the_configuration_of_the_page_is_accepted() -> None:
    assert len(plan().calendar.schedule) == 2
    assert plan().calendar.events[0].factor == 4.0


def test_the_explanation_of_the_page_is_what_is_printed() -> None:
    wanted = ((MONDAY_NOON_S - 10.0, 5),)
    observed = Observed(20.0, 0.5, latest_per_s=20.0, wanted=wanted, steady=5, replicas=5)
    tick = Tick(MONDAY_NOON_S, 60.0, 1200.0, 600.0, 0.0, 0.0)
    one = BackendScaling(plan(), LoadMeter(deque([tick]), service_s=0.5))
    one.current = recommend(one.plan.target, observed, 16.0, one.plan.calendar, MONDAY_NOON_S)
    first, *more = scaling("digits-gpu", one)["story"]
    assert "\n".join([first, *(f"  {line}" for line in more)]) + "\n" in PAGE


def test_an_unknown_load_is_explained() -> None:
    document = scaling("digits-gpu", BackendScaling(plan()))
    assert document["replicas"] is None
    assert "no recommendation yet" in document["story"][0]


def test_the_objects_of_the_page_ask_for_one_replica_for_each_that_is_recommended() -> None:
    keda, hpa = (yaml.safe_load(block) for block in blocks("yaml"))
    (trigger,) = keda["spec"]["triggers"]
    assert METRIC in trigger["metadata"]["query"]
    assert (trigger["metricType"], trigger["metadata"]["threshold"]) == ("AverageValue", "1")
    (metric,) = hpa["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == METRIC
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}
