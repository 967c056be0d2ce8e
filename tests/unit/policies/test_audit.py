"""Audits select the most informative answers, with a known probability, within their limits."""

from collections.abc import Sequence
from random import Random

import pytest

from tollway.policies.evidence.audit import LEAST, MOST, Auditor
from tollway.policies.types import Choice


def choice(qualities: Sequence[float], price: float = 0.0) -> Choice:
    """Return a choice of the first of two arms."""
    costs = (1e-4, 1e-3)
    return Choice(("a", "b"), (0.9, 0.1), 0, tuple(qualities), costs, price, "best", 0)


CLOSE, FAR = choice((0.9, 0.89)), choice((0.9, 0.3))


def drawn(auditor: Auditor, told: Choice, rng: Random, count: int = 1) -> list[float]:
    taken = [
        auditor.draw("a", told, spent_nano=100_000, audit_nano=1_000_000, rng=rng)
        for _ in range(count)
    ]
    return [probability for probability in taken if probability]


def test_close_calls_are_audited_more_often_and_every_answer_sometimes() -> None:
    auditor, rng = Auditor(share=0.05), Random(0)
    close, far = [], []
    for _ in range(20_000):
        close += drawn(auditor, CLOSE, rng)
        far += drawn(auditor, FAR, rng)
    assert len(close) > 2 * len(far) > 0
    assert min(far) >= 0.5 * LEAST * 0.05
    assert max(close) <= 1.5 * MOST * 0.05


def test_answers_that_are_seldom_drawn_are_audited_more_often() -> None:
    auditor, rng = Auditor(share=0.05), Random(10)
    seldom = Choice(("a", "b"), (0.04, 0.96), 0, (0.9, 0.89), (1e-4, 1e-3), 0.0, "explore", 0)
    usual, rare = 0, 0
    for _ in range(5000):
        usual += len(drawn(auditor, CLOSE, rng))
        rare += len(drawn(auditor, seldom, rng))
    assert rare > 2 * usual


def test_the_shadow_price_decides_what_is_close() -> None:
    dear = choice((0.5, 0.95), price=500.0)  # 0.45 more quality for 0.45 of cost
    auditor, rng = Auditor(share=0.05), Random(1)
    at_a_price, free = 0, 0
    for _ in range(5000):
        at_a_price += len(drawn(auditor, dear, rng))
        free += len(drawn(auditor, choice((0.5, 0.95)), rng))
    assert at_a_price > 2 * free


def test_the_mean_is_the_share() -> None:
    for seed in range(3):
        auditor, rng = Auditor(share=0.02), Random(seed)
        count = 0
        for at in range(30_000):
            told = CLOSE if at % 7 == 0 or at > 20_000 else FAR  # more close calls later
            count += len(drawn(auditor, told, rng))
        assert count / 30_000 == pytest.approx(0.02, rel=0.15)


def test_the_probability_returned_is_the_one_drawn_with() -> None:
    auditor, rng = Auditor(share=0.1), Random(2)
    taken = drawn(auditor, CLOSE, rng, 20_000)
    assert sum(1 / probability for probability in taken) == pytest.approx(20_000, rel=0.05)


def test_an_arm_with_few_labels_is_audited_more_often() -> None:
    auditor, rng = Auditor(share=0.05), Random(3)
    for _ in range(200):
        auditor.learned("known")
    counts = {"known": 0, "new": 0}
    for _ in range(10_000):
        for arm in counts:
            probability = auditor.draw(arm, CLOSE, spent_nano=1, audit_nano=1, rng=rng)
            counts[arm] += probability > 0.0
    assert counts["new"] > 1.5 * counts["known"]


def test_the_budget_is_never_exceeded_and_mostly_used() -> None:
    auditor, rng, spent = Auditor(share=0.5, budget_share=0.02), Random(4), 0
    for at in range(1, 20_001):
        spent += 1_000_000 * len(drawn(auditor, CLOSE, rng))
        assert spent <= 0.02 * 100_000 * at
    assert spent >= 0.9 * 0.02 * 100_000 * 20_000


def test_replies_of_the_reference_add_to_the_balance_too() -> None:
    auditor, rng = Auditor(share=0.01, budget_share=0.5), Random(9)
    drawn(auditor, CLOSE, rng)
    before = auditor.balance_nano
    for _ in range(50):
        auditor.draw("b", CLOSE, spent_nano=100_000, audit_nano=0, rng=rng)
    assert auditor.balance_nano == before + 50 * 50_000


def test_what_an_audit_did_not_cost_goes_back_into_the_audit_budget() -> None:
    auditor, rng = Auditor(share=1.0, budget_share=1.0), Random(5)
    while not drawn(auditor, CLOSE, rng):
        pass
    before = auditor.balance_nano
    auditor.charge(-400_000)
    assert auditor.balance_nano == before + 400_000


def test_it_is_deterministic_under_a_seed() -> None:
    one, other = Auditor(share=0.1), Auditor(share=0.1)
    assert drawn(one, CLOSE, Random(6), 500) == drawn(other, CLOSE, Random(6), 500)


def test_a_saved_state_goes_on_as_the_original() -> None:
    auditor, copy = Auditor(share=0.1, budget_share=0.5), Auditor(share=0.1, budget_share=0.5)
    drawn(auditor, CLOSE, Random(7), 300)
    auditor.learned("a")
    copy.load(auditor.save())
    assert copy.save() == auditor.save()
    assert drawn(auditor, FAR, Random(8), 300) == drawn(copy, FAR, Random(8), 300)


def test_a_share_must_be_positive() -> None:
    for share, budget_share in ((0.0, None), (1.1, None), (0.1, 0.0)):
        with pytest.raises(ValueError, match="share"):
            Auditor(share=share, budget_share=budget_share)
