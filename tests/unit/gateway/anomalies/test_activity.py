"""The detector's input: counted at every attempt, added up over workers."""

from types import SimpleNamespace
from typing import Any

import orjson

from tollway.backends.types import Usage
from tollway.gateway.anomalies import activity
from tollway.gateway.anomalies.activity import Activity, ActivityCounter
from tollway.gateway.anomalies.detector import Total

KEY = ("r", "b", "t")


def attempt(cost_nano: int, usage: Usage | None) -> Any:
    return SimpleNamespace(backend="b", outcome=SimpleNamespace(cost_nano=cost_nano, usage=usage))


def test_attempts_are_counted_in_the_unit_that_they_are_charged_by() -> None:
    cases: list[tuple[Usage | None, Total]] = [
        (Usage(input_tokens=50.0, output_tokens=10.0), Total(2, 120.0, 0.5)),
        (Usage(device_s=1.5, input_tokens=50.0), Total(2, 3.0, 0.5)),
        (None, Total(2, 2, 0.5)),
    ]
    for usage, total in cases:
        counter = ActivityCounter()
        for _ in range(2):
            counter.attempt("r", "t", attempt(250_000_000, usage))
        assert counter.counts[KEY].total() == total


def test_a_declared_tenant_starts_at_zero_and_keeps_its_counts() -> None:
    counter = ActivityCounter()
    counter.declare("r", ["b"], ["t", "u"])
    counter.attempt("r", "t", attempt(7, None))
    counter.declare("r", ["b"], ["t", "u"])

    assert counter.counts == {KEY: Activity(1, cost_nano=7), ("r", "b", "u"): Activity()}


def test_the_counts_of_workers_add_up_and_stay_their_own() -> None:
    mine = {KEY: Activity(1, 0.5, 3.0, 10), ("r", "b", "idle"): Activity()}
    other = activity.read(orjson.loads(orjson.dumps(activity.document(mine))))

    assert other == {KEY: mine[KEY]}
    assert activity.add(mine, other) == {
        KEY: Activity(2, 1.0, 6.0, 20),
        ("r", "b", "idle"): Activity(),
    }
    assert mine[KEY] == Activity(1, 0.5, 3.0, 10)
