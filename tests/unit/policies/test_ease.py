"""Labels of arms that were tried on hard requests only."""

from random import Random

import numpy as np
import pytest

from tollway.policies.evidence.ease import Ease, eases
from tollway.policies.quality import Quality
from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.types import Arm, Context

ARMS = tuple(Arm(f"arm{at}", 1.0) for at in range(6))
NAMES = tuple(arm.name for arm in ARMS)
HARD, EASY = Context((1.0,)), Context((-1.0,))


def taught(count: int = 6, *, alike: bool = True) -> Quality:
    """All arms but the last know both kinds of requests; the last is asked hard ones only.

    Alike, every arm is right in .6 of the hard and .9 of the easy ones; else half of them the other
    way round.
    """
    quality, rng = Quality(RidgeRegressor(), default=0.8), Random(0)
    quality.expect(HARD, ARMS[:count], NAMES[:count])
    table = quality.table(400)
    for at in range(400):
        table.put(at, HARD if at % 2 else EASY)

    def label(arm: int, context: Context) -> None:
        swapped = not alike and arm % 2
        right = 0.6 if (context is HARD) != swapped else 0.9
        quality.learn(context, NAMES[arm], float(rng.random() < right))

    for at in range(600):
        for arm in range(count - 1):
            label(arm, HARD if at % 2 else EASY)
        if at % 25 == 0:
            quality.rethink(table, slice(400), NAMES[:count])
    for _ in range(30):
        label(count - 1, HARD)
    return quality


def test_an_arm_tried_on_hard_requests_is_not_believed_to_be_worse() -> None:
    """At .6 its own labels say .6 everywhere; on easy requests it is as good as the others."""
    quality = taught()

    believed, _ = quality.expect(EASY, ARMS, NAMES)

    assert believed[-1] == pytest.approx(0.9, abs=0.12)
    assert quality.ease is not None
    assert quality.ease.share > 0.7


def test_with_few_arms_labels_are_compared_as_they_are() -> None:
    quality = taught(4)

    assert quality.ease is not None
    assert quality.ease.share == 0.0


def test_where_arms_are_right_on_what_others_are_wrong_on_there_is_no_ease() -> None:
    quality = taught(alike=False)

    assert quality.ease is not None
    assert quality.ease.share < 0.3


def test_the_ease_of_an_arm_is_that_of_the_others() -> None:
    found = eases(np.array([[0.2, 0.1, 0.1]]), [0.0] * 3, [1.0] * 3, [1e9] * 3)

    # Each counts for 200 labels, and 10 stand for none.
    assert found[0].tolist() == pytest.approx([40 / 410, 60 / 410, 60 / 410])


def test_one_request_is_expected_as_many_are() -> None:
    quality = taught()
    table = quality.table(2)
    table.put(0, HARD)
    table.put(1, EASY)

    many = quality.rethink(table, slice(2), NAMES)

    for row, context in zip(many.tolist(), (HARD, EASY), strict=True):
        assert row == pytest.approx(quality.expect(context, ARMS, NAMES)[0])


def test_what_was_learned_of_the_ease_is_kept() -> None:
    quality, again = taught(), Quality(RidgeRegressor(), default=0.8)

    again.load(quality.save())

    assert again.expect(EASY, ARMS, NAMES) == quality.expect(EASY, ARMS, NAMES)
    assert again.save() == quality.save()


def test_its_state_is_two_sums() -> None:
    ease = Ease()
    ease.learn(0.5, 0.5)
    other = Ease()
    other.load(ease.save())
    assert other.share == ease.share > 0.0
