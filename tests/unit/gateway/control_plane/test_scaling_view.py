"""docs/autoscaling.md shows a configuration, an explanation and objects as they are."""

import re
import textwrap
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tollway.gateway import settings as config
from tollway.gateway.control_plane.scaling import scaling
from tollway.gateway.scaling.advisor import BackendScaling, ScalingPlan
from tollway.gateway.scaling.calendar import Bounds
from tollway.gateway.scaling.coming import Coming
from tollway.gateway.scaling.load_meter import LoadMeter, Tick
from tollway.gateway.scaling.recommendation import Expected, Observed, recommend
from tollway.gateway.settings.errors import ConfigError
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
    table, *_ = blocks("toml")
    return scaling_plans(config.parse(GATEWAY + table, {}))["digits-gpu"]


def test_the_configuration_of_the_page_is_accepted() -> None:
    assert len(plan().calendar.schedule) == 2
    assert plan().calendar.events[0].factor == 4.0


def test_the_explanation_of_the_page_is_what_is_printed() -> None:
    wanted = ((MONDAY_NOON_S - 10.0, 5),)
    observed = Observed(20.0, 0.5, latest_per_s=20.0, wanted=wanted, steady=5, replicas=5)
    tick = Tick(MONDAY_NOON_S, 60.0, 1200.0, 600.0, 0.0, 0.0)
    one = BackendScaling(plan(), LoadMeter(deque([tick]), service_s=0.5))
    one.current = recommend(
        one.plan.target, observed, Expected(16.0), one.plan.calendar, MONDAY_NOON_S
    )
    first, *more = scaling("digits-gpu", one)["story"]
    assert "\n".join([first, *(f"  {line}" for line in more)]) + "\n" in PAGE


def test_an_unknown_load_is_explained() -> None:
    document = scaling("digits-gpu", BackendScaling(plan()))
    assert document["replicas"] is None
    assert "no recommendation yet" in document["story"][0]


def test_the_objects_of_the_page_ask_for_one_replica_for_each_that_is_recommended() -> None:
    keda, api, rule, hpa = (list(yaml.safe_load_all(block)) for block in blocks("yaml"))
    (polled,) = api[0]["triggers"]
    assert polled["metadata"]["valueLocation"] in scaling("digits-gpu", BackendScaling(plan()))
    assert polled["authenticationRef"]["name"] == api[1]["metadata"]["name"]
    (external,) = rule[0]["externalRules"]
    assert METRIC in external["seriesQuery"] and not external["resources"]["namespaced"]
    (trigger,) = keda[0]["spec"]["triggers"]
    assert METRIC in trigger["metadata"]["query"]
    assert (trigger["metricType"], trigger["metadata"]["threshold"]) == ("AverageValue", "1")
    (metric,) = hpa[0]["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == METRIC
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}


def test_the_actions_of_the_page_are_accepted() -> None:
    _, command, webhook, *_ = blocks("toml")
    made = config.parse(GATEWAY + command, {}).scaling[0].action
    assert made is not None and made.dry_run
    head = command.split("[scaling.action]")[0]
    made = config.parse(GATEWAY + head + webhook, {}).scaling[0].action
    assert made is not None and made.kind == "webhook"
    named = {"TOLLWAY_SCALING__DIGITS_GPU__ACTION__SECRET": "fedcba9876543210"}
    made = config.parse(GATEWAY + head + webhook, named).scaling[0].action
    assert made is not None and made.secret is not None
    assert made.secret.get_secret_value() == "fedcba9876543210"


def test_a_recommendation_tells_what_it_costs_and_what_comes() -> None:
    priced = replace(plan(), replica_nano_per_hour=2_000_000_000, floor_routes=("r",))
    tick = Tick(MONDAY_NOON_S, 60.0, 1200.0, 600.0, 0.0, 0.0)
    one = BackendScaling(priced, LoadMeter(deque([tick]), service_s=0.5))
    observed = Observed(20.0, 0.5, latest_per_s=20.0)
    one.current = recommend(priced.target, observed, None, priced.calendar, MONDAY_NOON_S)
    one.coming = Coming(2, 600.0, "max")
    document = scaling("digits-gpu", one)
    assert document["money"] == {
        "usd_per_hour": 8.0,
        "idle_share": 0.375,
        "idle_usd_per_hour": 3.0,
    }
    story = " ".join(document["story"])
    assert "In 10 minutes 2 replicas will be recommended" in story
    assert "$8 per hour, $3 of it idle (38%)" in story and "accuracy floor of: r" in story


def test_the_configuration_of_a_backend_that_starts_from_zero_is_accepted() -> None:
    *_, zero = blocks("toml")
    longer = GATEWAY.replace("price =", "timeout_s = 100\nprice =")
    assert config.parse(longer + zero, {}).scaling[0].start_wait_s == 90
    with pytest.raises(ConfigError, match="is not below the timeout_s"):
        config.parse(GATEWAY + zero, {})


def test_the_nights_of_the_page_are_off() -> None:
    (text,) = re.findall(r"^   ```toml\n(.*?)^   ```$", PAGE, re.MULTILINE | re.DOTALL)
    nights = scaling_plans(config.parse(GATEWAY + textwrap.dedent(text), {}))["digits-gpu"]
    midnight_s = MONDAY_NOON_S + 12 * 3600  # 01:00 in Berlin
    usual, lead_s = nights.target.usual, nights.target.lead_s
    assert nights.calendar.bounds(usual, midnight_s, lead_s) == Bounds(0, 0)
    assert nights.calendar.bounds(usual, MONDAY_NOON_S, lead_s) == Bounds(1, 8)
    assert nights.calendar.bounds(usual, midnight_s + 6 * 3600 - 120, lead_s) == Bounds(1, 8)
