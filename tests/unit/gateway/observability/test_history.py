"""The counters' history: what was added, when; bounded, and kept over restarts of either side."""

import pytest

from tollway.gateway.observability.aggregation import Family
from tollway.gateway.observability.time_series import LEVELS, TimeSeries, total


def families(usd: float, backend: str = "a") -> list[Family]:
    labels = {"route": "r", "backend": backend, "tenant": "t", "provenance": "usage"}
    return [
        {
            "name": "tollway_cost_usd",
            "type": "counter",
            "text": "",
            "samples": [["tollway_cost_usd_total", labels, usd]],
        },
        {
            "name": "tollway_ledger_up",
            "type": "gauge",
            "text": "",
            "samples": [["tollway_ledger_up", {}, 1.0]],
        },
    ]


def spent(history: TimeSeries, range_s: float, now_s: float) -> float:
    _, buckets = history.buckets(range_s, now_s)
    return total(buckets, "tollway_cost_usd_total", lambda labels: True).get("", 0.0)


def test_increases_are_found_again_by_time() -> None:
    history = TimeSeries()
    for at in range(1, 61):
        history.sample(families(at * 0.5), at * 10.0)

    assert spent(history, 3600, 600) == pytest.approx(30.0)
    assert spent(history, 100, 600) == pytest.approx(5.0, abs=0.51)
    step_s, _ = history.buckets(3600, 600)
    assert step_s == 10.0
    assert history.buckets(86_400, 600)[0] == 300.0
    assert history.buckets(2_592_000, 600)[0] == 3600.0


def test_a_counter_reset_loses_nothing() -> None:
    history = TimeSeries()
    for at, usd in enumerate((1.0, 2.0, 0.5, 0.75), start=1):
        history.sample(families(usd), at * 10.0)

    assert spent(history, 3600, 40) == pytest.approx(2.75)


def test_groups_and_filters() -> None:
    history = TimeSeries()
    history.sample(families(1.0, "a") + families(2.0, "b"), 10.0)
    _, buckets = history.buckets(3600, 10.0)

    assert total(buckets, "tollway_cost_usd_total", lambda labels: True, "backend") == {
        "a": 1.0,
        "b": 2.0,
    }
    only = total(buckets, "tollway_cost_usd_total", lambda labels: labels["backend"] == "b")
    assert only == {"": 2.0}


def test_it_is_bounded_and_survives_a_restart() -> None:
    history = TimeSeries()
    for at in range(1, 1000):
        history.sample(families(float(at)), at * 10.0)
    state = history.save()
    copy = TimeSeries()
    copy.load(state)

    assert len(copy.buckets(3600, 9990.0)[1]) <= LEVELS[0][1] + 1
    assert spent(copy, 86_400, 9990.0) == pytest.approx(spent(history, 86_400, 9990.0))
    for damaged in (b"[1, 2, 3]", b"[[[1]]]", b"{"):
        with pytest.raises(ValueError, match=r"damaged|unpack|values|unexpected"):
            copy.load(damaged)
    assert spent(copy, 86_400, 9990.0) == pytest.approx(999.0)


def test_all_buckets_share_the_keys_of_their_series() -> None:
    history, restored = TimeSeries(), TimeSeries()
    for at in range(1, 7):
        history.sample(families(at * 0.5), at * 10.0)
    restored.load(history.save())
    restored.sample(families(4.0), 70.0)

    for one in (history, restored):
        keys = [key for bucket in one.buckets(3600, 70)[1] for key in bucket.added]
        assert len(keys) >= 6
        assert len({id(key) for key in keys}) == 1
