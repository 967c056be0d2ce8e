"""What a collector makes of requests and labels."""

import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from tollway.gateway.rollouts.collector import Collector, bin_of
from tollway.gateway.rollouts.controller import alarm_at
from tollway.gateway.rollouts.measures import BINS
from tollway.gateway.rollouts.model import Criterion, Measure, RolloutPlan


def collector(*criteria: Criterion) -> Collector:
    return Collector(RolloutPlan("r", "old", "new", criteria=criteria))


def feed(made: Collector, count: int = 3000, seed: int = 0, **candidate: Any) -> None:
    """Count requests of both versions, which are alike but for what the candidate does."""
    rng = Random(seed)
    for n in range(count):
        new = rng.random() < 0.2
        how: dict[str, Any] = {
            "failed": rng.random() < 0.01,
            "invalid": False,
            "latency_s": rng.lognormvariate(-3.0, 0.4),
            "cost_nano": 1000,
            "answer": rng.randrange(10),
        }
        if new:
            how.update({key: value(rng, how[key]) for key, value in candidate.items()})
        made.request(new, n % 64, **how)


def found(made: Collector) -> Measure:
    (measure,) = made.total({}).values()
    return measure


def is_stopped(made: Collector) -> bool:
    (criterion,) = made.plan.criteria
    measure = found(made)
    return max(measure.log_evidence, measure.over_limit) >= alarm_at(made.plan, criterion)


CASES = {
    "error_rate": (Criterion("error_rate", 0.001), {"failed": lambda rng, _: rng.random() < 0.05}),
    "invalid_rate": (Criterion("invalid_rate"), {"invalid": lambda rng, _: rng.random() < 0.05}),
    "p95_latency": (Criterion("p95_latency", 0.25), {"latency_s": lambda _, old: 2.0 * old}),
    "cost": (Criterion("cost", 0.05), {"cost_nano": lambda _, old: 1200}),
    "answers": (Criterion("answers", 0.05), {"answer": lambda _, old: min(old, 4)}),
}


@pytest.mark.parametrize("metric", CASES)
def test_a_candidate_that_is_worse_in_a_metric_is_stopped_by_it(metric: str) -> None:
    criterion, worse = CASES[metric]
    made = collector(criterion)
    feed(made, **worse)
    assert is_stopped(made)


@pytest.mark.parametrize("metric", CASES)
def test_a_candidate_that_is_alike_is_not(metric: str) -> None:
    made = collector(CASES[metric][0])
    feed(made)
    assert not is_stopped(made)


def test_moments_that_are_slow_for_both_versions_are_no_evidence() -> None:
    made, rng = collector(Criterion("p95_latency", 0.25)), Random(1)
    for n in range(4000):
        slow = 10.0 if n % 400 > 300 and n > 1000 else 1.0
        made.request(
            rng.random() < 0.2,
            n % 64,
            failed=False,
            invalid=False,
            latency_s=slow * rng.lognormvariate(-3.0, 0.4),
            cost_nano=1,
            answer=1,
        )
    assert not is_stopped(made)


@pytest.mark.parametrize(
    ("criterion", "worse"),
    [
        (Criterion("error_rate", limit=0.02), {"failed": lambda rng, _: rng.random() < 0.08}),
        (Criterion("p95_latency", limit=0.2), {"latency_s": lambda _, old: 5.0 * old}),
        (Criterion("cost", limit=1.1e-6), {"cost_nano": lambda _, old: 2000}),
    ],
)
def test_a_limit_stops_without_a_stable_version(
    criterion: Criterion, worse: dict[str, Any]
) -> None:
    made = collector(criterion)
    feed(made, **worse)
    assert found(made).over_limit >= alarm_at(made.plan, criterion)


def test_labels_count_as_quality_and_value() -> None:
    made = collector(Criterion("quality", margin=0.2, limit=0.5), Criterion("value"))
    for n in range(400):
        made.label(n % 2 == 0, n % 64, float(n % 10 != 0), value_usd=0.01, cost_usd=0.001)
    measures = made.total({})
    assert measures["quality"].candidate == pytest.approx(0.8)
    assert measures["quality"].stable == pytest.approx(1.0)
    assert measures["quality"].difference == pytest.approx(-0.2)
    assert measures["quality"].low < -0.2 < measures["quality"].high
    assert measures["value"].candidate < measures["value"].stable


def test_evidence_of_other_processes_is_added_and_that_of_other_criteria_is_not() -> None:
    one, two = collector(Criterion("error_rate")), collector(Criterion("error_rate"))
    other = collector(Criterion("cost"))
    for seed, each in enumerate((one, two, other)):
        feed(each, 500, seed)
    alone = one.total({})["error_rate"].candidate_count
    both = one.total({"two": two.save(), "other": other.save()})["error_rate"].candidate_count
    assert both == alone + two.total({})["error_rate"].candidate_count


def test_nothing_is_known_without_a_candidate() -> None:
    made = collector(Criterion("error_rate"), Criterion("cost"), Criterion("answers"))
    made.request(False, 0, failed=False, invalid=False, latency_s=1.0, cost_nano=1, answer="x")
    assert made.total({}) == {}


@pytest.mark.parametrize(
    "answer", [7, 7.5, math.nan, math.inf, "cat", "x" * 1000, True, None, [1, 2], {"a": 1}, -3, 0.0]
)
def test_every_answer_has_a_group(answer: Any) -> None:
    assert 0 <= bin_of(answer) < BINS


def test_evidence_of_another_version_of_the_gateway_is_left_out() -> None:
    one, two = collector(Criterion("error_rate")), collector(Criterion("error_rate"))
    for seed, each in enumerate((one, two)):
        feed(each, 500, seed)
    alone = one.total({})["error_rate"]
    damaged: list[Any] = [two.save() for _ in range(4)]
    damaged[0]["comparisons"]["error_rate"]["groups"] = {"0": [1.0, [0.0]]}
    del damaged[1]["comparisons"]["error_rate"]["claim"]
    damaged[2]["comparisons"]["error_rate"]["stable"] = [1.0]
    del damaged[3]["p95_s"]
    others = {str(at): each for at, each in enumerate([*damaged, {}])}
    assert one.total(others)["error_rate"] == alone


@pytest.mark.parametrize("changed", [{"tolerance": 0.05}, {"limit": 0.5}])
def test_evidence_for_other_claims_is_not_added(changed: dict[str, float]) -> None:
    criterion = Criterion("error_rate", 0.001, limit=0.02)
    one, two = collector(criterion), collector(replace(criterion, **changed))  # type: ignore[arg-type]
    for seed, each in enumerate((one, two)):
        feed(each, 500, seed)
    assert one.total({"two": two.save()}) == one.total({})


def test_a_version_that_calls_more_requests_wrong_is_worse() -> None:
    made, rng = collector(Criterion("invalid_rate")), Random(0)
    for n in range(1000):
        new = rng.random() < 0.2
        made.request(
            new,
            n % 64,
            failed=False,
            invalid=False,
            latency_s=0.1,
            cost_nano=1,
            answer=1,
            rejected=new or rng.random() < 0.02,
        )
    assert is_stopped(made)
