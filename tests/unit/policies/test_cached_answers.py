"""A cached answer is drawn where it is worth as much as a fresh one, until labels say otherwise."""

from random import Random

import pytest

from tests.support.two_arms import CHEAP, DEAR
from tollway.policies.cached_answers import CachedAnswers, fresh, inside
from tollway.policies.registry import build
from tollway.policies.types import Arm, Choice, Context, Objective

CACHED = Arm("cache:cheap", 0.0)
CONTEXT = Context((1.0,))


def policy(share: float = 0.0, name: str = "cheapest") -> CachedAnswers:
    inner = build(name, Objective(), seed=1, options={})
    return CachedAnswers(inner, fresh_share=share)


def test_without_a_cached_answer_the_policy_inside_chooses() -> None:
    choice = policy().choose(CONTEXT, (CHEAP, DEAR), Random(0))
    assert (choice.arms, choice.arm) == (("cheap", "dear"), "cheap")


def test_a_cached_answer_is_drawn_with_a_probability_that_is_logged() -> None:
    one, rng = policy(0.1), Random(0)
    choices = [one.choose(CONTEXT, (CHEAP, DEAR, CACHED), rng) for _ in range(2000)]
    drawn = [choice for choice in choices if choice.arm == "cache:cheap"]
    assert len(drawn) / len(choices) == pytest.approx(0.9, abs=0.02)
    for choice in choices[:50]:
        assert sum(choice.pmf) == pytest.approx(1.0)
        assert choice.propensity == pytest.approx(0.9 if choice.arm == "cache:cheap" else 0.1)
        assert choice.cost_hat_usd[-1] == 0.0
    assert {choice.reason for choice in drawn} == {"cached"}


def test_an_answer_of_a_backend_that_the_policy_would_not_choose_is_not_preferred() -> None:
    one = policy(0.0, "most_accurate")
    arms = (Arm("cheap", 1e-4, 0.5), Arm("dear", 1e-3, 0.9), CACHED)
    assert one.choose(CONTEXT, arms, Random(0)).arm == "dear"
    kept = (*arms[:2], Arm("cache:dear", 0.0))
    assert one.choose(CONTEXT, kept, Random(0)).arm == "cache:dear"


def test_labels_of_cached_answers_turn_the_policy_away_and_back() -> None:
    one, rng = policy(0.0, "most_accurate"), Random(0)
    arms = (Arm("cheap", 1e-4, 0.9), CACHED)
    cached = one.choose(CONTEXT, arms, rng)
    assert cached.arm == "cache:cheap"
    for _ in range(12):
        one.learn(CONTEXT, cached, "cache:cheap", 0.0)
    assert one.choose(CONTEXT, arms, rng).arm == "cheap"
    assert one.figures()["cache_loss"] > 0.5
    for _ in range(400):
        one.learn(CONTEXT, cached, "cache:cheap", 1.0)
    assert one.choose(CONTEXT, arms, rng).arm == "cache:cheap"


def test_chance_does_not_turn_the_policy_away() -> None:
    rng = Random(1)
    arms = (Arm("cheap", 1e-4, 0.9), CACHED)
    turned = 0
    for _ in range(50):
        one = policy(0.0, "most_accurate")
        cached = one.choose(CONTEXT, arms, rng)
        for _ in range(100):
            one.learn(CONTEXT, cached, "cache:cheap", float(rng.random() < 0.9))
        turned += one.choose(CONTEXT, arms, rng).arm != "cache:cheap"
    assert turned <= 5  # two standard errors: 2.5 % of routes


def test_a_clients_floor_above_the_cached_quality_gets_a_fresh_answer() -> None:
    one = policy(0.0, "most_accurate")
    arms = (Arm("cheap", 1e-4, 0.7), Arm("dear", 1e-3, 0.7), CACHED)
    assert one.choose(CONTEXT, arms, Random(0), 0.8).arm != "cache:cheap"


def test_the_only_arm_is_drawn_for_certain() -> None:
    choice = policy().choose(CONTEXT, (CACHED,), Random(0))
    assert (choice.arm, choice.pmf) == ("cache:cheap", (1.0,))


def test_the_policy_inside_learns_from_fresh_answers_by_their_own_probabilities() -> None:
    one = policy(0.5, "lagrangian")
    rng = Random(0)
    while (choice := one.choose(CONTEXT, (CHEAP, DEAR, CACHED), rng)).arm == "cache:cheap":
        pass
    given = fresh(choice)
    assert given.arms == ("cheap", "dear")
    assert sum(given.pmf) == pytest.approx(1.0)
    one.learn(CONTEXT, choice, choice.arm, 1.0)
    assert one.version == one.inner.version == 1


def test_what_was_learned_is_saved_and_a_state_of_the_policy_inside_is_taken_too() -> None:
    arms = (CHEAP, DEAR, CACHED)
    one, other = policy(0.0, "lagrangian"), policy(0.0, "lagrangian")
    choice = one.choose(CONTEXT, arms, Random(0))
    for _ in range(20):
        one.learn(CONTEXT, choice, "cache:cheap", 0.0)
    other.load(one.save())
    assert other.figures() == one.figures()
    assert other.version == one.version == 20
    third = policy(0.0, "lagrangian")
    third.load(one.inner.save())
    assert third.figures()["cache_loss"] == 0.0
    one.inner.load(inside(one.save()))


def test_a_damaged_state_is_refused() -> None:
    one = policy(0.0, "lagrangian")
    with pytest.raises(ValueError, match=r".*"):
        one.load(one.save()[:-1] + b"x")


def test_a_cached_answer_is_found_wherever_another_policy_has_put_it() -> None:
    choice = policy().choose(CONTEXT, (CACHED, CHEAP, DEAR), Random(0))
    assert (choice.arms, choice.arm) == (("cheap", "dear", "cache:cheap"), "cache:cheap")


def test_a_choice_is_made_fresh_wherever_the_cached_answer_stands() -> None:
    choice = Choice(
        ("cheap", "cache:cheap", "dear"),
        (0.2, 0.5, 0.3),
        2,
        (0.1, 0.2, 0.3),
        (1.0, 0.0, 2.0),
        0.0,
        "best",
        0,
    )
    given = fresh(choice)
    assert (given.arms, given.arm) == (("cheap", "dear"), "dear")
    assert given.pmf == pytest.approx((0.4, 0.6))
    assert given.cost_hat_usd == (1.0, 2.0)


def test_a_fresh_answer_that_was_drawn_before_is_given_and_logged_unconditionally() -> None:
    one, rng = policy(0.1), Random(0)
    lost = Context((1.0,), fresh=True)
    for _ in range(50):
        choice = one.choose(lost, (CHEAP, DEAR, CACHED), rng)
        assert (choice.arm, choice.propensity) == ("cheap", pytest.approx(0.1))
        assert choice.pmf[-1] == pytest.approx(0.9)
    assert one.choose(lost, (CACHED,), rng).arm == "cache:cheap"


def test_a_choice_that_was_certain_of_the_cached_answer_is_left_as_it_is() -> None:
    choice = policy().choose(Context((1.0,), fresh=True), (CHEAP, DEAR, CACHED), Random(0))
    assert (choice.arm, choice.pmf[-1]) == ("cheap", 1.0)
    assert fresh(choice) == choice


def test_in_a_cascade_an_answer_has_the_quality_it_was_accepted_with_until_labels_differ() -> None:
    inner = build("cheapest", Objective(), seed=1, options={})
    one = CachedAnswers(inner, fresh_share=0.0, is_cascade=True)
    accepted = Arm("cache:cheap", 0.0, 0.9)
    assert one.choose(CONTEXT, (CHEAP, DEAR, accepted), Random(0)).quality_hat[-1] == 0.9
    for _ in range(50):
        choice = one.choose(CONTEXT, (accepted,), Random(0))
        one.learn(CONTEXT, choice, "cache:cheap", 0.4)
    # The loss is counted once, not again and again.
    assert 0.35 <= one.choose(CONTEXT, (accepted,), Random(0)).quality_hat[-1] <= 0.45
