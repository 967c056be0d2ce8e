"""Probabilities: their sum, their order, and the cost of exploration."""

import math
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.policies.exploration import Exploration, Offer, Uniform
from tollway.policies.sampling import cap_extra, certain, draw

ARMS = st.integers(1, 40)
UNSURE = -1e7  # a quality from which an arm could still become the best at any score here


def offer(quality: float, costs_usd: Sequence[float], errors: Sequence[float]) -> Offer:
    names = tuple(map(str, range(len(costs_usd))))
    return Offer(names, [quality] * len(names), [*costs_usd], [*errors])


@given(st.data(), ARMS)
def test_probabilities_are_a_distribution_with_the_best_on_top(
    data: st.DataObject, count: int
) -> None:
    scores = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=count, max_size=count))
    errors = data.draw(st.lists(st.floats(1e-9, 1e9), min_size=count, max_size=count))

    top, pmf, _ = Exploration(share=1.0).pmf(scores, offer(UNSURE, [1.0] * count, errors), 1.0)

    assert top == scores.index(max(scores))
    assert sum(pmf) == pytest.approx(1.0)
    assert min(pmf) >= -1e-12
    assert pmf[top] == pytest.approx(max(pmf))


@given(st.data(), ARMS)
def test_exploration_never_costs_more_than_its_share(data: st.DataObject, count: int) -> None:
    scores = data.draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count))
    costs = data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    explore = Exploration(share=0.05, p_min=0.02)

    top, pmf, extra = explore.pmf(scores, offer(UNSURE, costs, [0.1] * count), 0.01)

    spent = sum(p * max(cost - costs[top], 0) for p, cost in zip(pmf, costs, strict=True))
    assert spent == pytest.approx(extra, abs=1e-12)
    assert spent <= 0.05 * 0.01 + 1e-12
    assert sum(pmf) == pytest.approx(1.0)
    assert min(pmf) >= 0.0


def test_every_arm_has_its_least_probability_where_money_allows() -> None:
    explore = Exploration(p_min=0.02)

    _, pmf, _ = explore.pmf([1.0, -9.0], offer(1.0, [1.0, 1.0], [1e-4, 1e-4]), 1.0)

    assert pmf[1] == pytest.approx(0.02)


def test_an_arm_is_tried_as_often_as_it_is_believed_to_be_the_best() -> None:
    """Two arms: the probability that a draw from one belief is above a draw from the other's."""
    explore = Exploration(scale=0.5)

    _, pmf, _ = explore.pmf([0.9, 0.8], offer(0.9, [1.0, 1.0], [0.03, 0.01]), 1.0)

    z = 0.1 / (0.5 * math.sqrt(0.03 + 0.01))
    assert pmf[1] == pytest.approx(0.5 * math.erfc(z / math.sqrt(2.0)), abs=0.0003)


def test_arms_that_cannot_be_told_apart_are_tried_equally_often() -> None:
    _, pmf, _ = Exploration().pmf([0.9] * 5, offer(0.9, [1.0] * 5, [0.01] * 5), 1.0)

    assert pmf == pytest.approx([0.2] * 5)


def test_a_newcomer_is_tried_and_a_known_loser_is_left_alone() -> None:
    shown = offer(0.9, [1.0, 1.0, 1.0], [1e-4, 1e-4, 0.09])

    _, pmf, _ = Exploration().pmf([0.9, 0.8, 0.8], shown, 1.0)

    assert 1e-4 < pmf[1] < 1.1e-3  # beliefs may be wrong by more than their errors
    assert pmf[2] > 0.1


def test_arms_whose_labels_say_nothing_more_are_not_an_error() -> None:
    _, pmf, _ = Exploration().pmf([0.9, 0.9 - 1e-9], offer(0.9, [1.0, 1.0], [0.0, 0.0]), 1.0)

    assert sum(pmf) == pytest.approx(1.0)


def test_an_arm_that_could_not_be_best_is_not_tried() -> None:
    shown = offer(0.5, [1.0, 90.0, 1.0], [9.0, 9.0, 9.0])

    _, pmf, _ = Exploration().pmf([0.9, -3.0, 0.5], shown, 1.0)

    assert pmf[1] == 0.0
    assert pmf[2] > 0.0
    assert sum(pmf) == pytest.approx(1.0)


def many(gaps: Sequence[float], error: float) -> Offer:
    names = tuple(map(str, range(len(gaps))))
    qualities = [0.5 - gap for gap in gaps]
    return Offer(names, qualities, [1.0] * len(names), [error] * len(names))


def test_of_many_arms_only_those_likeliest_to_be_best_are_on_the_short_list() -> None:
    shown = many([0.0, *[0.05] * 10, *[0.4] * 39], error=0.008)

    top, pmf, _ = Exploration(short_list=11).pmf(shown.qualities, shown, 1.0)

    assert top == 0
    assert all(p > 0.0 for p in pmf[:11])
    assert pmf[11:] == [0.0] * 39
    assert sum(pmf) == pytest.approx(1.0)


def test_a_short_list_has_at_most_its_number_of_arms_each_explored_as_if_alone() -> None:
    shown = many([0.0, *[0.01 * at for at in range(1, 50)]], error=0.09)
    few = many([0.0, 0.01, 0.02, 0.03], error=0.09)
    explore = Exploration(short_list=4)

    _, pmf, _ = explore.pmf(shown.qualities, shown, 1.0)
    _, alone, _ = explore.pmf(few.qualities, few, 1.0)

    assert pmf[:4] == pytest.approx(alone)
    assert pmf[4:] == [0.0] * 46


def test_the_least_probability_holds_off_the_short_list_too() -> None:
    shown = many([0.0] * 40, error=0.02)

    _, pmf, _ = Exploration(short_list=4, p_min=0.005).pmf(shown.qualities, shown, 1.0)

    assert min(pmf) == pytest.approx(0.005)
    assert sum(pmf) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"short_list": 1}, "short list of 1"), ({"scale": 0.0}, "explore_scale 0.0")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Exploration(**settings)


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
    top, pmf, extra = Uniform(0.1).pmf([1.0, 0.0], offer(1.0, [1.0, 101.0], [0.1, 0.1]), 1.0)

    assert top == 0
    assert pmf == pytest.approx([0.95, 0.05])
    assert extra == pytest.approx(5.0)
