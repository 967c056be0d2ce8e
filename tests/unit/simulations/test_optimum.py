"""Optima: compared with enumeration, and properties that must hold."""

import itertools

import numpy as np
import pytest

from tollway.simulations.world import optimum

RNG = np.random.default_rng(7)


def test_the_optimum_for_a_budget_is_between_the_best_whole_choices() -> None:
    quality, cost = RNG.random((7, 2)), RNG.random((7, 2))
    for budget in (0.05, 0.2, 0.4, 0.9):
        best = max(
            sum(q for q, _ in chosen)
            for chosen in itertools.product(
                *[[(0.0, 0.0), *zip(q, c, strict=True)] for q, c in zip(quality, cost, strict=True)]
            )
            if sum(c for _, c in chosen) <= budget * 7
        )
        found = optimum.for_budget(quality, cost, budget)
        # The relaxed optimum is above, by less than what one request can be worth.
        assert best / 7 - 1e-9 <= found.quality <= best / 7 + 1 / 7
        assert found.cost_usd <= budget + 1e-9


def test_the_optimum_is_never_below_the_hull() -> None:
    quality, cost = RNG.random((500, 4)), RNG.random((500, 4))
    for budget in np.linspace(0.01, 1.0, 17):
        hull = optimum.hull(quality.mean(axis=0), cost.mean(axis=0), budget)
        assert optimum.for_budget(quality, cost, budget).quality >= hull - 1e-9


def test_money_enough_buys_the_best_and_costs_no_price() -> None:
    quality, cost = RNG.random((50, 3)), RNG.random((50, 3))
    found = optimum.for_budget(quality, cost, np.inf)
    assert found.price == 0.0
    assert found.quality == pytest.approx(quality.max(axis=1).mean())


def test_the_cheapest_for_a_floor_agrees_with_the_best_for_its_cost() -> None:
    quality, cost = 0.5 + RNG.random((2000, 3)) / 2, RNG.random((2000, 3))
    for floor in (0.86, 0.87):  # so high that no answer at all is never worth what it saves
        held = optimum.for_floor(quality, cost, floor)
        best = optimum.for_budget(quality, cost, held.cost_usd)
        assert best.quality == pytest.approx(floor, abs=1e-3)


def test_a_floor_that_cannot_be_held_gets_the_best() -> None:
    quality, cost = np.full((5, 2), 0.5), np.ones((5, 2))
    assert optimum.for_floor(quality, cost, 0.9).quality == 0.5


def test_a_hull_of_two_arms_is_the_line_between_them() -> None:
    quality, cost = np.array([0.6, 0.9]), np.array([1.0, 3.0])
    assert optimum.hull(quality, cost, 2.0) == pytest.approx(0.75)
    assert optimum.hull(quality, cost, 0.5) == pytest.approx(0.3)
    assert optimum.hull(quality, cost, 9.0) == pytest.approx(0.9)
