"""One tenant's answers and labels move little of what signals say to all tenants."""

from random import Random

import pytest

from tollway.policies.evidence.signal_influence import SignalInfluence
from tollway.policies.evidence.signal_trust import SignalPrior, SignalTrust

PRIORS = {"judge": SignalPrior(0.85, 0.85)}
RIGHT = 0.8


class Route:
    """A route with a judge that is right in nine of ten cases, and labels of its tenants."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.trust = SignalTrust()
        self.limit = SignalInfluence()

    def label(self, tenant: str, share: float, *, lie: str = "") -> None:
        right = float(self.rng.random() < RIGHT)
        score = right if self.rng.random() < 0.9 else 1.0 - right
        quality = {"": right, "contrary": 1.0 - score, "agreeing": score}[lie]
        group = self.limit.labelled(tenant, share)
        if group is not None:
            self.trust.label("arm", {"judge": score}, quality, PRIORS, group)

    @property
    def judge(self) -> float:
        return self.trust.trust("judge", PRIORS["judge"])

    @property
    def estimate(self) -> float:
        """The mean estimate of the arm's quality, which is RIGHT."""
        passed = RIGHT * 0.9 + (1 - RIGHT) * 0.1
        said = [self.trust.estimate("arm", {"judge": s}, PRIORS, 0.8) for s in (0.0, 1.0)]
        bad, good = (one.quality if one is not None else 0.8 for one in said)
        return passed * good + (1 - passed) * bad


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lie", ["contrary", "agreeing"])
def test_one_tenants_labels_do_not_move_the_trust_that_others_labels_taught(
    lie: str, seed: int
) -> None:
    alone, attacked = Route(seed), Route(seed)
    for number in range(600):
        for route in (alone, attacked):
            route.label(f"honest-{number % 3}", 0.25)
        if number % 2:  # a third of the labels
            attacked.label("mallory", 0.3, lie=lie)
    assert alone.judge == pytest.approx(0.8, abs=0.06)
    assert attacked.judge == pytest.approx(alone.judge, abs=0.06)
    assert attacked.estimate == pytest.approx(alone.estimate, abs=0.03)


def test_without_the_limit_they_do() -> None:
    route = Route(1)
    for number in range(600):
        route.label(f"honest-{number % 3}", 1.0)
        if number % 2:
            route.label("mallory", 1.0, lie="contrary")
    assert route.judge < 0.4


@pytest.mark.parametrize("lie", [0.0, 1.0])
def test_one_tenants_answers_move_an_arm_by_less_than_a_hundredth(lie: float) -> None:
    rng, limit = Random(1), SignalInfluence()
    mean = without = 0.8

    def predicted(score: float) -> float:
        return 0.8 + 0.3 * (score - 0.8)

    for number in range(1500):
        score = float(rng.random() < 0.8)
        arms, signals = limit.scored(
            f"honest-{number % 3}", 0.25, {"a": predicted(score)}, {"judge": score}, {"a": 0.8}
        )
        mean += 0.01 * arms["a"] * (predicted(score) - mean)
        without += 0.01 * (predicted(score) - without)
        arms, signals = limit.scored(
            "mallory", 0.25, {"a": predicted(lie)}, {"judge": lie}, {"a": 0.8}
        )
        mean += 0.01 * arms["a"] * (predicted(lie) - mean)
        assert signals["judge"] <= 1.0
    assert mean == pytest.approx(without, abs=0.015)


def test_the_only_tenant_is_believed_and_the_state_survives_saving() -> None:
    route = Route(2)
    for _ in range(300):
        route.label("one", 1.0)
    assert route.judge == pytest.approx(0.8, abs=0.08)
    copy = SignalInfluence()
    copy.load(route.limit.save())
    assert copy.save() == route.limit.save()
    damaged = copy.save() | {"labels": {}}
    with pytest.raises(KeyError):
        copy.load(damaged)
    assert copy.save() == route.limit.save()
