"""Probabilities: their sum, their order, and the cost of exploration."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.policies.exploration import Exploration, Offer, Uniform
from tollway.policies.sampling import cap_extra, certain, draw

ARMS = st.integers(1, 40)
UNSURE = -1e7  # a quality from which an arm could still become the best at any score here


def offer(quality: float, costs_usd: Sequence[float], labels: Sequence[float]) -> Offer:
    names = tuple(map(str, range(len(costs_usd))))
    return Offer(names, [quality] * len(names), [*costs_usd], [*labels])


@given(st.data(), ARMS)
def test_probabilities_are_a_distribution_with_the_best_on_top(
    data: st.DataObject, count: int
) -> None:
    scores = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=count, max_size=count))
    labels = data.draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))

    top, pmf, _ = Exploration(share=1.0).pmf(scores, offer(UNSURE, [1.0] * count, labels), 1.0)

    assert top == scores.index(max(scores))
    assert sum(pmf) == pytest.approx(1.0)
    assert min(pmf) >= -1e-12
    assert pmf[top] == pytest.approx(max(pmf))


@given(st.data(), ARMS)
def test_exploration_never_costs_more_than_its_share(data: st.DataObject, count: int) -> None:
    scores = data.draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count))
    costs = data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    explore = Exploration(share=0.05, p_min=0.02)

    top, pmf, extra = explore.pmf(scores, offer(UNSURE, costs, [0] * count), 0.01)

    spent = sum(p * max(cost - costs[top], 0) for p, cost in zip(pmf, costs, strict=True))
    assert spent == pytest.approx(extra, abs=1e-12)
    assert spent <= 0.05 * 0.01 + 1e-12
    assert sum(pmf) == pytest.approx(1.0)
    assert min(pmf) >= 0.0


def test_every_arm_has_its_least_probability_where_money_allows() -> None:
    explore = Exploration(p_min=0.02)

    _, pmf, _ = explore.pmf([1.0, -9.0], offer(1.0, [1.0, 1.0], [500, 500]), 1.0)

    assert pmf[1] == pytest.approx(0.02)


def test_a_newcomer_is_tried_and_a_known_loser_is_left_alone() -> None:
    explore = Exploration(gamma=1000, gamma_first=10)

    _, pmf, _ = explore.pmf([0.9, 0.8, 0.8], offer(0.9, [1.0, 1.0, 1.0], [500, 500, 0]), 1.0)

    assert pmf[1] == pytest.approx(1 / 103)
    assert pmf[2] == pytest.approx(1 / 4)


def test_an_arm_that_could_not_be_best_is_not_tried() -> None:
    shown = offer(0.5, [1.0, 90.0, 1.0], [0, 0, 0])

    _, pmf, _ = Exploration().pmf([0.9, -3.0, 0.5], shown, 1.0)

    assert pmf[1] == 0.0
    assert pmf[2] > 0.0
    assert sum(pmf) == pytest.approx(1.0)


def many(gaps: Sequence[float], labels: float) -> Offer:
    names = tuple(map(str, range(len(gaps))))
    qualities = [0.5 - gap for gap in gaps]
    return Offer(names, qualities, [1.0] * len(names), [labels] * len(names))


def test_of_many_arms_only_those_that_may_be_best_are_on_the_short_list() -> None:
    shown = many([0.0, *[0.05] * 10, *[0.3] * 39], labels=24.0)

    top, pmf, _ = Exploration(short_list=11).pmf(shown.qualities, shown, 1.0)

    # After 24 labels a mean may be off by 1 / sqrt(25).
    assert top == 0
    assert all(p > 0.0 for p in pmf[:11])
    assert pmf[11:] == [0.0] * 39
    assert sum(pmf) == pytest.approx(1.0)


def test_a_short_list_has_at_most_its_number_of_arms_each_explored_as_if_alone() -> None:
    shown = many([0.0, *[0.01 * at for at in range(1, 50)]], labels=0.0)
    explore = Exploration(short_list=4, gamma_first=100.0)

    _, pmf, _ = explore.pmf(shown.qualities, shown, 1.0)

    assert [p > 0.0 for p in pmf] == [True] * 4 + [False] * 46
    assert pmf[1] == pytest.approx(1.0 / (4 + 100 * 0.01))


def test_few_arms_are_all_explored() -> None:
    shown = many([0.0, 0.4, 0.4], labels=1e4)

    _, pmf, _ = Exploration().pmf(shown.qualities, shown, 1.0)

    assert min(pmf) > 0.0


def test_the_least_probability_holds_off_the_short_list_too() -> None:
    shown = many([0.0] * 40, labels=10.0)

    _, pmf, _ = Exploration(short_list=4, p_min=0.005).pmf(shown.qualities, shown, 1.0)

    assert min(pmf) == pytest.approx(0.005)
    assert sum(pmf) == pytest.approx(1.0)


def test_a_short_list_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="short list of 1"):
        Exploration(short_list=1)


def test_the_cap_takes_from_more_expensive_arms_only() -> None:
    pmf = [0.4, 0.3, 0.3]

    cap_extra(pmf, 0, [1.0, 11.0, 0.5], extra=3.0, limit=0.3)

    assert pmf == pytest.approx([0.67, 0.03, 0.3])


def test_draws_have_the_frequencies_that_are_logged() -> None:
    rng, pmf = Random(0), (0.5, 0.3, 0.2, 0.0)

    counts = Counter(draw(pmf, rng) for _ in range(20_000))

    assert [counts[at] / 20_000 for at in range(4)] == pytest.approx(pmf, abs=0.015)
    assert counts[3] == 0


def test_a_sliver_lost_to_rounding_goes_to_the_likeliest() -> None:
    class Last(Random):
        def random(self) -> float:
            return 1.0 - 2.0**-53

    assert draw((0.3, 0.5, 0.2 - 1e-9), Last()) == 1


def test_a_certain_choice_has_all_the_probability() -> None:
    assert certain(3, 1) == (0.0, 1.0, 0.0)


def test_uniform_exploration_ignores_gaps_and_costs() -> None:
    top, pmf, extra = Uniform(0.1).pmf([1.0, 0.0], offer(1.0, [1.0, 101.0], [0, 0]), 1.0)

    assert top == 0
    assert pmf == pytest.approx([0.95, 0.05])
    assert extra == pytest.approx(5.0)
