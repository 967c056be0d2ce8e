"""What an observer makes of labels and replies."""

from types import SimpleNamespace
from typing import Any

import pytest

from tollway.gateway.rollouts.collector import Collector
from tollway.gateway.rollouts.model import Criterion, RolloutPlan
from tollway.gateway.rollouts.observer import count, shrunk
from tollway.gateway.rollouts.rollout import Rollout


def label(quality: float, expected: float) -> Any:
    choice = SimpleNamespace(arms=("old", "new"), quality_hat=(0.1, expected))
    return SimpleNamespace(known={"new": quality}, drawn=[SimpleNamespace(choice=choice)])


@pytest.mark.parametrize(
    ("belief", "expected", "counted"),
    [(1.0, 0.8, 0.0), (0.5, 0.8, 0.4), (0.25, 1.2, 0.75), (0.5, -0.3, 0.0)],
)
def test_a_label_counts_as_far_as_its_sender_is_believed(
    belief: float, expected: float, counted: float
) -> None:
    assert shrunk(label(0.0, expected), "new", belief) == pytest.approx(counted)


@pytest.mark.parametrize(("unit", "counted"), [(-1.0, 1), (0.3, 0)])
def test_a_request_that_a_version_calls_wrong_counts_unless_the_client_chose_the_version(
    unit: float, counted: int
) -> None:
    plan = RolloutPlan("r", "old", "new", criteria=(Criterion("invalid_rate"),))
    one = Rollout(plan, Collector(plan))
    outcome = SimpleNamespace(
        error="",
        provenance="usage",
        forbidden=False,
        no_answer="",
        cost_nano=0,
        answer=SimpleNamespace(value=None),
    )
    state: Any = SimpleNamespace(
        inference=SimpleNamespace(client_deadline=False, tenant="t"),
        context=SimpleNamespace(unit=unit),
        id="d",
    )
    attempt: Any = SimpleNamespace(outcome=outcome, status=400, latency_s=0.1)
    count(one, state, attempt, candidate=True)
    assert one.collector.count == counted
    assert one.collector.comparisons["invalid_rate"].candidate.total == counted
