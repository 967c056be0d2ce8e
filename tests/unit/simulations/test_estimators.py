"""Estimates from logs: equal to VW's own, near the truth, and refused without evidence."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from estimators.bandits import ips, snips

from tests.support.synthetic import LEVEL, World, world
from tollway.simulations.replay import outcome_model
from tollway.simulations.replay.estimators import (
    ESS_MIN,
    Estimate,
    Refused,
    estimate,
    refuse,
    weigh,
)

LOGS = 60


def fixed(log_world: World, arm: int) -> np.ndarray:
    target = np.zeros_like(log_world.log.pmf)
    target[:, arm] = 1.0
    return target


@cache
def learned(seed: int) -> tuple[World, np.ndarray]:
    """Return a log of a learning policy, and its outcome model; several tests share them."""
    found = world(800, seed, p_min=0.12)
    return found, outcome_model.qualities(found.log)


def estimates(arm: int) -> Iterator[Estimate]:
    """Estimate one arm's quality from each log of a learning policy."""
    for seed in range(LOGS):
        found, model = learned(seed)
        got = answer(found, fixed(found, arm), model=model)
        assert isinstance(got, Estimate)
        yield got


def answer(
    found: World,
    target: np.ndarray,
    method: str = "bernstein",
    model: np.ndarray | None = None,
) -> Estimate | Refused:
    log = found.log
    weights = weigh(target, log.pmf, log.arm, log.propensity)
    if model is None:
        model = outcome_model.qualities(log)
    refused = refuse(weights)
    return refused or estimate(log.quality, model, log.arm, weights, method=method)


def test_ips_and_snips_are_those_of_vw_estimators() -> None:
    found = world(2000, 1)
    log, target = found.log, np.tile([0.2, 0.5, 0.3], (2000, 1))
    ours = answer(found, target)
    theirs_ips, theirs_snips = ips.Estimator(), snips.Estimator()
    for row in range(len(log)):
        chance = float(target[row, log.arm[row]])
        told = (float(log.propensity[row]), float(log.quality[row]), chance)
        theirs_ips.add_example(*told)
        theirs_snips.add_example(*told)
    assert isinstance(ours, Estimate)
    assert ours.ips == pytest.approx(theirs_ips.get(), rel=1e-9)
    assert ours.snips == pytest.approx(theirs_snips.get(), rel=1e-9)


@pytest.mark.integration
@pytest.mark.parametrize("arm", [0, 1, 2])
def test_intervals_cover_the_truth_on_logs_of_a_logger_that_learns(arm: int) -> None:
    covered, widths = 0, []
    for got in estimates(arm):
        covered += got.low <= LEVEL[arm] <= got.high
        widths.append(got.high - got.low)
    assert covered >= 0.95 * LOGS
    assert np.median(widths) < 0.5  # an interval that says nothing would cover too


@pytest.mark.integration
def test_the_doubly_robust_estimate_is_unbiased_and_steadier_than_ips() -> None:
    doubly, plain = [], []
    for got in estimates(2):
        doubly.append(got.value)
        plain.append(got.ips)
    error = float(np.std(doubly)) / LOGS**0.5
    assert abs(float(np.mean(doubly)) - LEVEL[2]) < 4 * error
    assert np.std(doubly) < 0.7 * np.std(plain)


def test_an_arm_that_was_never_drawn_is_refused_with_what_would_have_helped() -> None:
    found = world(1000, 1, p_min=0.0, learns=False)
    got = answer(found, fixed(found, 2))
    assert isinstance(got, Refused)
    assert got.missing == 1.0
    assert got.p_min == pytest.approx(0.1)
    assert "p_min = 0.1" in str(got)


def test_too_few_effective_decisions_are_refused() -> None:
    found = world(400, 1, p_min=0.03, learns=False)
    log = found.log
    got = answer(found, fixed(found, 2))
    assert isinstance(got, Refused)
    more = world(8000, 1, p_min=0.03, learns=False)
    assert isinstance(answer(more, fixed(more, 2)), Estimate)
    weights = weigh(fixed(found, 2), log.pmf, log.arm, log.propensity)
    assert weights.ess < ESS_MIN


def test_the_exploration_that_a_refusal_asks_for_is_enough() -> None:
    found = world(1000, 5, p_min=0.0, learns=False)
    refused = answer(found, fixed(found, 2))
    assert isinstance(refused, Refused)
    again = world(1000, 5, p_min=refused.p_min, learns=False)
    assert isinstance(answer(again, fixed(again, 2)), Estimate)


def test_mass_that_weights_leave_out_is_in_the_interval() -> None:
    pmf = np.tile([0.9499, 0.05, 0.0001], (4000, 1))
    target = np.tile([0.45, 0.5, 0.05], (4000, 1))
    arm = np.random.default_rng(1).choice(3, p=pmf[0], size=4000)
    weights = weigh(target, pmf, arm, pmf[np.arange(4000), arm])
    assert 0.0 < weights.missing_share <= 0.05
    model = np.full((4000, 3), 0.5)
    got = estimate(np.full(4000, 0.5), model, arm, weights)
    assert got.high - got.low >= weights.missing_share
    assert got.low <= 0.5 <= got.high


def test_a_model_that_knows_nothing_leaves_the_estimate_right() -> None:
    found = world(4000, 3)
    log, target = found.log, fixed(found, 1)
    weights = weigh(target, log.pmf, log.arm, log.propensity)
    got = estimate(log.quality, np.zeros((4000, 3)), log.arm, weights)
    assert got.value == pytest.approx(got.snips)
    assert got.low <= LEVEL[1] <= got.high
