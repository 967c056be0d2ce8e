"""How far signals are trusted, and what is learned from them."""

from random import Random

import pytest

from tests.support.two_arms import CHEAP, DEAR
from tollway.policies.evidence.prediction_powered import PredictionPowered
from tollway.policies.evidence.signal_trust import SignalEstimate, SignalPrior, SignalTrust
from tollway.policies.registry import build
from tollway.policies.types import Context, LearnsSignals, Objective

HALF = SignalPrior(0.9, 0.8)


def judged(right: bool, accuracy: float, rng: Random) -> float:
    """Return the verdict of a judge that is right with a probability."""
    return float(right if rng.random() < accuracy else not right)


@pytest.mark.parametrize("quality", [0.3, 0.6, 0.9])
def test_estimates_are_unbiased_where_the_declared_rates_are_true(quality: float) -> None:
    rng, trust = Random(1), SignalTrust()
    total = 0.0
    for _ in range(20_000):
        right = rng.random() < quality
        score = float(rng.random() < (0.9 if right else 0.2))
        estimate = trust.estimate("a", {"s": score}, {"s": HALF}, 0.7)
        assert estimate is not None
        total += estimate.quality
    assert total / 20_000 == pytest.approx(quality, abs=0.015)


def test_a_signal_without_value_moves_nothing_once_labels_show_it() -> None:
    rng, trust = Random(2), SignalTrust()
    before = trust.trust("s", HALF)
    for _ in range(200):
        right = rng.random() < 0.7
        trust.label("a", {"s": float(rng.random() < 0.5)}, float(right), {"s": HALF})
    assert before == pytest.approx(0.7)
    assert trust.trust("s", HALF) < 0.1
    estimate = trust.estimate("a", {"s": 1.0}, {"s": HALF}, 0.7)
    assert estimate is None or estimate.belief < 0.02


def test_labels_teach_the_rates_of_a_judge_that_was_declared_too_good() -> None:
    rng, trust = Random(3), SignalTrust()
    for _ in range(300):
        right = rng.random() < 0.7
        trust.label("a", {"s": judged(right, 0.7, rng)}, float(right), {"s": HALF})
    assert trust.trust("s", HALF) == pytest.approx(0.4, abs=0.1)
    assert trust.agreement("s") == pytest.approx(0.7, abs=0.06)


def test_without_labels_the_anchors_declared_quality_calibrates_a_weak_judge() -> None:
    rng, trust, declared = Random(4), SignalTrust(), SignalPrior(0.85, 0.85)
    for _ in range(1000):
        trust.see({"s": judged(rng.random() < 0.95, 0.7, rng)}, 1.0)
    assert trust.trust("s", declared) == pytest.approx(0.7)
    assert trust.trust("s", declared, anchor=0.95) == pytest.approx(0.4, abs=0.08)


def test_the_anchors_own_estimates_have_its_declared_quality_as_their_mean() -> None:
    rng, trust, priors = Random(8), SignalTrust(), {"s": SignalPrior(0.98, 0.5)}
    scores = []
    for _ in range(3000):
        right = rng.random() < 0.94
        scores.append(float(right or rng.random() < 0.8))  # its wrong answers pass more often
        trust.see({"s": scores[-1]}, 1.0)
    estimates = [
        trust.estimate("dear", {"s": score}, priors, 0.9, 0.94, is_anchor=True) for score in scores
    ]
    mean = sum(one.quality for one in estimates if one is not None) / len(scores)
    assert mean == pytest.approx(0.94, abs=0.01)


def test_a_judge_that_prefers_one_arm_is_corrected_for_it_by_labels() -> None:
    rng, trust, priors = Random(5), SignalTrust(), {"s": SignalPrior(0.9, 0.9)}
    for _ in range(300):
        right = rng.random() < 0.5
        verdict = 1.0 if rng.random() < 0.5 else float(right)  # flatters `own` half of the time
        trust.label("own", {"s": verdict}, float(right), priors)
        right = rng.random() < 0.5
        trust.label("other", {"s": float(right)}, float(right), priors)
    own = other = 0.0
    for _ in range(3000):
        right = rng.random() < 0.5
        verdict = 1.0 if rng.random() < 0.5 else float(right)
        for arm, score in (("own", verdict), ("other", float(right))):
            estimate = trust.estimate(arm, {"s": score}, priors, 0.5)
            assert estimate is not None
            own += estimate.quality * (arm == "own") / 3000
            other += estimate.quality * (arm == "other") / 3000
    assert own == pytest.approx(0.5, abs=0.08)
    assert other == pytest.approx(0.5, abs=0.08)


def test_the_state_survives_saving_and_a_damaged_one_changes_nothing() -> None:
    trust = SignalTrust()
    trust.label("a", {"s": 1.0}, 1.0, {"s": HALF})
    trust.see({"s": 1.0, "without labels": 0.0}, 0.5)
    copy = SignalTrust()
    copy.load(trust.save())
    assert copy.save() == trust.save()
    for anchor in ([float("nan"), 1.0, 1.0, 1.0], [1.0, 1.0, 1.0]):
        damaged = trust.save()
        damaged["s"]["anchor"] = anchor
        with pytest.raises(ValueError, match="does not fit"):
            copy.load(damaged)
        assert copy.save() == trust.save()


def test_many_predictions_and_few_labels_bound_a_mean_and_bad_predictions_do_no_harm() -> None:
    rng = Random(6)
    good, bad = PredictionPowered(alpha=0.05), PredictionPowered(alpha=0.05)
    for _ in range(3000):
        right = float(rng.random() < 0.9)
        labelled = rng.random() < 0.05
        for bound, prediction in ((good, 0.95 * right + 0.02), (bad, 1.0)):
            bound.predict(prediction)
            if labelled:
                bound.rectify(right - prediction)
    assert 0.7 < good.value <= 0.9
    assert bad.value <= 0.9
    assert good.value > bad.value


@pytest.mark.parametrize("objective", ["max_quality", "min_cost"])
def test_a_policy_learns_from_signals_which_arm_is_better(objective: str) -> None:
    floor = 0.6 if objective == "min_cost" else None
    policy = build("lagrangian", Objective(objective, floor), options={}, seed=1)
    assert isinstance(policy, LearnsSignals)
    rng, context = Random(7), Context((1.0,))
    for _ in range(400):
        choice = policy.choose(context, [CHEAP, DEAR], rng)
        right = rng.random() < {"cheap": 0.4, "dear": 0.9}[choice.arm]
        quality = (judged(right, 0.8, rng) - 0.2) / 0.6
        estimate = SignalEstimate(quality, 0.3, min(max(quality, 0.0), 1.0))
        policy.learn_signal(context, choice, choice.arm, estimate)
    choice = policy.choose(context, [CHEAP, DEAR], rng)
    hats = dict(zip(choice.arms, choice.quality_hat, strict=True))
    assert hats["dear"] > hats["cheap"] + 0.2
