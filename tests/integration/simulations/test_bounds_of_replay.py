"""Bounds where a log lacks evidence hold: the truth lies between them in every one of 100 logs."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.synthetic import COST, world
from tollway.simulations.replay.bounded import Bounded
from tollway.simulations.replay.estimators import Estimate
from tollway.simulations.replay.logs import Floats, Log
from tollway.simulations.replay.replay import Outcome, Replay
from tollway.simulations.replay.targets import parse

pytestmark = pytest.mark.integration
COUNT, SHARE = 1200, 0.25
SEEDS = range(100)


def with_a_hole(seed: int, *, whole: bool) -> tuple[Log, Floats]:
    """Return a log that never draws `fair` in a quarter of the contexts, and true qualities.

    `fair` is best there and worse elsewhere: an estimate from the rest alone would be wrong.
    """
    found = world(COUNT, seed, p_min=0.2, learns=False)
    rng = np.random.default_rng(10_000 + seed)
    hole = found.x > 1.0 - 2.0 * SHARE
    expected = found.expected.copy()
    expected[:, 1] = np.where(hole, 0.99, 0.7)
    quality = (rng.random((COUNT, 3)) < expected).astype(float)
    pmf = np.where(hole[:, None], [0.5, 0.0, 0.5], [0.2, 0.6, 0.2])
    arm = (rng.random((COUNT, 1)) > pmf.cumsum(axis=1)).sum(axis=1).clip(max=2)
    rows = np.arange(COUNT)
    seen = quality[rows, arm]
    log = replace(
        found.log,
        arm=arm,
        pmf=pmf if whole else np.full((COUNT, 3), np.nan),
        propensity=pmf[rows, arm],
        quality=seen,
        final_quality=seen,
        cost_usd=COST[arm],
        total_usd=COST[arm],
        names=("x",),
    )
    return log, expected


def asked(seed: int, *, whole: bool) -> tuple[Outcome, float]:
    log, expected = with_a_hole(seed, whole=whole)
    return Replay(log).ask(parse("fixed:arm=fair")), float(expected[:, 1].mean())


@pytest.mark.parametrize("whole", [True, False])
def test_the_truth_lies_between_the_bounds_in_all_of_100_logs(whole: bool) -> None:
    for seed in SEEDS:
        outcome, truth = asked(seed, whole=whole)
        quality, cost = outcome.quality, outcome.cost_usd
        assert isinstance(quality, Bounded), seed
        assert quality.low <= truth <= quality.high, seed
        assert quality.unseen == pytest.approx(SHARE, abs=0.1), seed
        assert quality.high - quality.low < 0.65, seed
        assert isinstance(cost, Estimate), seed
        assert cost.value == pytest.approx(COST[1]), seed
