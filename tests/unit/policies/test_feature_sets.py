"""A policy uses an embedding as far as it routes better."""

from random import Random

import pytest

from tollway.policies.feature_sets import LEAST, SETTLED, Evidence, FeatureSets, Mixture
from tollway.policies.registry import build
from tollway.policies.types import EMBEDDING, WARM_UP, Arm, Choice, Context, Objective

ARMS = [Arm("a", 0.001), Arm("b", 0.001)]


def policy(seed: int = 0) -> FeatureSets:
    made = build("lagrangian", Objective(), options={}, seed=seed, embedded=True)
    assert isinstance(made, FeatureSets)
    return made


def context(rng: Random, telling: float) -> Context:
    """Return a context whose embedding tells by its first number which arm is right."""
    noise = [rng.gauss(0.0, 0.2) for _ in range(EMBEDDING - 1)]
    return Context((rng.random(), telling, *noise))


def taught(count: int, *, tells: bool, seed: int = 0) -> tuple[FeatureSets, float]:
    """Return a policy after a stream, and the mean quality of the second half."""
    rng, made, total = Random(seed), policy(seed), 0.0
    for number in range(count):
        side = rng.choice((-1.0, 1.0))
        seen = context(rng, side if tells else rng.choice((-1.0, 1.0)))
        choice = made.choose(seen, ARMS, rng)
        chance = 0.9 if (choice.arm == "a") == (side > 0) else 0.2
        quality = float(rng.random() < chance)
        assert sum(choice.pmf) == pytest.approx(1.0)
        made.learn(seen, choice, choice.arm, quality)
        if made.resolve_due():
            made.resolve()
        total += quality * (number >= count // 2)
    return made, total / (count - count // 2)


def test_an_embedding_that_tells_is_used() -> None:
    made, quality = taught(1200, tells=True)
    assert made.figures()["embedding_share"] > 1.0 - 2 * LEAST
    assert made.figures()["embedding_gain"] > 0.0
    assert quality > 0.75


def test_an_embedding_that_tells_nothing_gains_nothing_and_is_not_preferred() -> None:
    made, quality = taught(600, tells=False)
    assert abs(made.figures()["embedding_gain"]) < 0.1
    assert made.figures()["embedding_gain_lower_bound"] < 0.0
    assert quality == pytest.approx(0.55, abs=0.08)


@pytest.mark.parametrize(
    ("differences", "low", "high"),
    [
        ([], LEAST, LEAST),
        ([0.0] * 2000, LEAST, LEAST),  # no reason to prefer it
        ([0.4, -0.1] * 2000, 1.0 - SETTLED, 1.0),
        ([-0.4, 0.1] * 2000, 0.0, SETTLED),
        ([1.0, -0.9] * 200, 0.4, 0.95),
        ([5.0] * 20, LEAST, LEAST),  # too few to prefer it
    ],
)
def test_the_share_follows_the_evidence(differences: list[float], low: float, high: float) -> None:
    evidence = Evidence()
    for one in differences:
        evidence.add(one)
    assert low <= evidence.share <= high


def test_the_bounds_narrow_with_labels() -> None:
    evidence, widths = Evidence(), []
    rng = Random(1)
    for number in range(4000):
        evidence.add(rng.gauss(0.0, 1.0))
        if number in (99, 999, 3999):
            widths.append(evidence.radius)
    assert widths[0] > widths[1] > widths[2] > abs(evidence.mean)


def test_a_warm_up_teaches_both_sets_and_compares_nothing() -> None:
    made, rng = policy(), Random(0)
    for _ in range(60):
        side = rng.choice((-1.0, 1.0))
        seen = context(rng, side)
        made.choose(seen, ARMS, rng)
        for at, name in enumerate("ab"):
            choice = Choice(("a", "b"), (0.5, 0.5), at, (0.5, 0.5), (0.001,) * 2, 0.0, WARM_UP, 0)
            made.learn(seen, choice, name, float((name == "a") == (side > 0)))
    assert made._evidence.count == 0
    rich = made._sets[1]
    seen = context(rng, 1.0)
    qualities, _ = rich.expect(seen, ARMS, ("a", "b"))
    assert qualities[0] > qualities[1] + 0.3


def test_what_was_learned_is_saved_with_the_evidence() -> None:
    made, _ = taught(300, tells=True)
    other = policy()
    other.load(made.save())
    assert other.figures()["embedding_share"] == made.figures()["embedding_share"]
    seen = context(Random(5), 1.0)
    rng, same = Random(3), Random(3)
    assert other.choose(seen, ARMS, rng).quality_hat == made.choose(seen, ARMS, same).quality_hat
    with pytest.raises(ValueError, match="not of"):
        other.load(build("lagrangian", Objective(), options={}, seed=0).save())


def test_a_mixture_spends_what_both_sets_spend() -> None:
    class Fixed:
        max_cost_usd = 1.0

        def __init__(self, value: float) -> None:
            self.value = value

        def quality(self, price: float) -> float:
            return self.value

        cost = quality

    market = Mixture(Fixed(0.2), Fixed(0.6), 0.25)
    assert market.cost(1.0) == market.quality(1.0) == pytest.approx(0.3)


def test_only_the_lagrangian_policy_with_ridge_heads_chooses_features() -> None:
    for name, options in (("cascade", {}), ("lagrangian", {"head": "vowpal"})):
        with pytest.raises(ValueError, match="embedding"):
            build(name, Objective(), options=options, seed=0, embedded=True)
