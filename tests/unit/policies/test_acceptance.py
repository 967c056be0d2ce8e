"""Cheap replies are accepted as far as paired labels show that the floor is kept."""

import math
from random import Random

import pytest

from tollway.policies.acceptance import UNLABELLED_MAX, VAIN, AcceptanceRule

BASELINE = 0.9


def rule(floor: float = 0.88, declared: float = BASELINE) -> AcceptanceRule:
    return AcceptanceRule(
        "small", "big", floor=floor, declared=declared, margin=0.001, slack=0.02, alpha=0.05
    )


def teach(one: AcceptanceRule, count: int, rng: Random, loss: float, base: float = BASELINE) -> int:
    """Pair labels: a reply is wrong where the baseline is right with twice `loss` at the lowest
    confidence and never at the highest. Return how many pairs it took to use a rule; 0 if none was.
    """
    for pairs in range(1, count + 1):
        confidence = rng.random()
        right = float(rng.random() < base)
        one.see(confidence)
        wrong = rng.random() < 2.0 * loss * (1.0 - confidence)
        one.compare(confidence, 0.0 if wrong else right, right)
        if pairs % 25 == 0 and one.decide():
            return pairs
    return 0


def test_no_reply_is_accepted_before_there_are_labels() -> None:
    assert rule().accepts(1.0) == 0.0
    assert rule().asks_both(1e-4, 1e-3) == 1.0


def test_the_threshold_is_where_the_loss_uses_up_what_the_baseline_has_above_the_floor() -> None:
    """Accepting from t on loses .2 (1 - t)^2 of .9: .019 is used up at t = .67."""
    one, rng = rule(), Random(0)
    assert teach(one, 1000, rng, loss=0.2)
    for _ in range(20):
        for _ in range(500):
            teach(one, 1, rng, loss=0.2)
        one.decide()

    assert one.threshold == pytest.approx(0.67, abs=0.08)
    assert one.accepts(one.threshold - 0.01) == 0.0
    assert one.accepts(0.99) > 0.9
    # Where the difference varies most, more is measured.
    assert one.accepts(one.threshold + 0.01) < one.accepts(0.99)


def test_a_cheap_arm_below_the_floor_less_the_slack_is_hardly_ever_accepted() -> None:
    """Every confidence means the same here, so any rule that accepts half loses .05 of quality."""
    released = 0
    for seed in range(60):
        one, rng = rule(), Random(seed)
        for pairs in range(1, 801):
            confidence, right = rng.random(), float(rng.random() < BASELINE)
            one.see(confidence)
            one.compare(confidence, right * (rng.random() > 0.1), right)
            if pairs % 25 == 0:
                one.decide()
                if one.threshold < 0.5:
                    released += 1
                    break

    assert released <= 0.05 * 60


def test_luck_of_a_baseline_on_the_floor_hardly_ever_lets_too_much_pass() -> None:
    """Baseline and floor are at .9, so accepting everything, at .868, is .012 too low."""
    wrong = 0
    for seed in range(40, 80):
        one, rng = rule(floor=0.9), Random(seed)
        for request in range(800):
            confidence, luck = rng.random(), rng.random()
            cheap, baseline = float(luck < 0.868), float(luck < 0.9)
            one.see(confidence)
            if rng.random() < one.accepts(confidence):
                one.accepted(confidence, cheap)
            else:
                one.compare(confidence, cheap, baseline)
            if request % 20 == 0:
                one.decide()
                if one.threshold < 0.375:  # where .625 of the replies lose .032
                    wrong += 1
                    break

    assert wrong <= 0.05 * 40


def test_a_baseline_that_was_lucky_excuses_no_loss_until_more_of_its_labels_confirm_it() -> None:
    """Its 400 labels are at .9375, with a standard error of .012; the cheap replies lose .0175."""
    one = rule(floor=0.9)
    for at in range(400):
        right = float(at % 16 != 0)
        one.see(0.0)
        one.compare(0.0, 0.0 if at % 57 == 1 else right, right)
    one.decide()
    assert one.accepts(0.0) == 0.0
    assert one.lower_bound <= 0.9

    for at in range(3000):
        one.alone(float(at % 16 != 0))
    one.decide()
    assert one.accepts(0.0) > 0.0


def test_labels_of_accepted_replies_let_more_pass_without_asking_the_baseline() -> None:
    """Both are right independently, so their difference is noisy: 600 pairs are not enough."""
    one, rng = rule(), Random(3)
    for _ in range(600):
        confidence = rng.random()
        one.see(confidence)
        one.compare(confidence, float(rng.random() < 0.92), float(rng.random() < BASELINE))
    one.decide()
    assert one.threshold > 0.3

    for _ in range(6000):
        confidence = rng.random()
        one.see(confidence)
        one.accepted(confidence, float(rng.random() < 0.92))
    one.decide()

    assert one.pairs == 600
    assert one.threshold < 0.1


def test_replies_of_the_baseline_alone_show_its_quality_too() -> None:
    """400 unlucky pairs look like a baseline below the floor; its other replies do not."""
    one, rng = rule(), Random(1)
    for at in range(400):
        confidence, right = rng.random(), float(at % 10 < 8)
        one.see(confidence)
        one.compare(confidence, right * (rng.random() > 0.02 * (1.0 - confidence)), right)
    one.decide()
    assert one.threshold == math.inf

    for at in range(3000):
        one.alone(float(at % 100 < 92))
    one.decide()

    assert one.threshold < 0.1


def test_a_snapshot_without_labels_of_cheap_replies_is_read() -> None:
    one, copy = rule(), rule()
    teach(one, 700, Random(6), loss=0.1)
    state = one.save()
    del state["alone"]

    copy.load({**state, "tables": state["tables"][:5]})

    assert copy.save()["tables"][5] == state["tables"][1]
    assert copy.threshold == pytest.approx(one.threshold, abs=0.2)


def test_a_baseline_below_the_floor_gives_no_room_for_a_loss() -> None:
    one = rule(floor=0.88, declared=0.95)
    teach(one, 3000, Random(1), loss=0.1, base=0.8)
    one.decide()

    assert one.threshold > 0.8


def test_labels_overrule_the_declared_quality_of_the_baseline() -> None:
    modest, proud = rule(declared=0.88), rule(declared=0.99)
    for one in (modest, proud):
        for _ in range(4):
            teach(one, 1000, Random(2), loss=0.1)
        one.decide()

    assert modest.threshold == pytest.approx(proud.threshold, abs=0.1)


def test_replies_without_a_confidence_are_accepted_all_or_none() -> None:
    for loss, accepted in ((0.0, True), (0.2, False)):
        one, rng = rule(), Random(3)
        for _ in range(1000):
            right = float(rng.random() < BASELINE)
            one.see(0.0)
            one.compare(0.0, right * (rng.random() >= loss), right)
        one.decide()

        assert (one.accepts(0.0) > 0.0) == accepted


def test_both_are_asked_only_now_and_then_if_nothing_can_be_saved() -> None:
    useless, unlabelled = rule(), rule()
    for _ in range(3):
        teach(useless, 1000, Random(4), loss=0.5)
    for _ in range(UNLABELLED_MAX + 1):
        unlabelled.see(0.5)

    assert useless.asks_both(1e-3, 1e-3) == VAIN
    assert unlabelled.asks_both(1e-4, 1e-3) == VAIN


def test_labels_of_one_reply_only_make_it_unusable() -> None:
    one = rule()
    one.unpaired = 100
    assert not one.usable

    teach(one, 300, Random(5), loss=0.1)
    assert one.usable


def test_a_restored_rule_goes_on_like_the_original() -> None:
    one, copy = rule(), rule()
    teach(one, 700, Random(6), loss=0.1)
    copy.load(one.save())

    for each in (one, copy):
        teach(each, 100, Random(7), loss=0.1)
        each.decide()

    assert copy.save() == one.save()
    assert copy.accepts(0.9) == one.accepts(0.9)


@pytest.mark.parametrize("damage", [{"tables": [[1.0]] * 7}, {"tables": [[math.nan] * 24] * 7}])
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    one = rule()
    teach(one, 200, Random(8), loss=0.1)

    with pytest.raises(ValueError, match="intervals"):
        rule().load({**one.save(), **damage})
