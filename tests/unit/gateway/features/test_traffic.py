"""Tenants' shares of the traffic follow their calls and add up to one."""

import math
import time
from random import Random

import pytest

from tollway.gateway.features.traffic_shares import KEPT, TENANTS_MAX, Traffic


def test_the_only_tenant_has_the_whole_share() -> None:
    traffic = Traffic()
    assert traffic.share("anonymous") == 1.0
    for _ in range(3000):
        traffic.count("anonymous")
        assert traffic.share("anonymous") == pytest.approx(1.0)


def test_shares_follow_who_calls_and_add_up() -> None:
    traffic, rng = Traffic(), Random(0)
    for _ in range(5000):
        traffic.count("a" if rng.random() < 0.8 else "b")
    assert traffic.share("a") == pytest.approx(0.8, abs=0.05)
    assert traffic.share("a") + traffic.share("b") == pytest.approx(1.0)
    for _ in range(3000):
        traffic.count("b")
    assert traffic.share("b") > 0.9


def test_a_state_is_restored_and_other_workers_count() -> None:
    one, other = Traffic(), Traffic()
    for _ in range(30):
        one.count("a")
    other.load(one.save())
    other.others = [{"b": 90.0}]
    assert other.share("a") == pytest.approx(0.25, abs=0.01)
    assert other.share("b") == pytest.approx(0.75, abs=0.01)
    for damaged in ({"a": math.nan}, {"a": "x"}, {"a": -1}, {"a": None}):
        with pytest.raises((ValueError, TypeError)):
            other.load(damaged)  # type: ignore[arg-type]


def test_tenants_beyond_count_are_forgotten() -> None:
    traffic = Traffic()
    for number in range(TENANTS_MAX + 10):
        traffic.count(f"t{number}")
    traffic.count("a")
    began = time.thread_time()
    assert len(traffic.save()) <= TENANTS_MAX
    assert time.thread_time() - began < 1.0


def test_requests_counted_in_batches_weigh_as_if_counted_one_by_one() -> None:
    whole, asked = Traffic(), Traffic()
    rng, expected = Random(1), {"a": 0.0, "b": 0.0, "c": 0.0}
    for _ in range(1000):
        tenant = rng.choices("abc", (6, 3, 1))[0]
        expected = {name: KEPT * count + (name == tenant) for name, count in expected.items()}
        whole.count(tenant)
        asked.count(tenant)
        asked.share("a")  # so that batches of all lengths are counted
    assert whole.save() == pytest.approx(expected)
    assert asked.save() == pytest.approx(expected)
