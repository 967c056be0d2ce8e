"""Tests of logged propensities: holes in a log's support, and propensities of something else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic import COST, as_frame, world
from tollway.gateway.cli.main import main
from tollway.simulations.replay.bounded import Bounded
from tollway.simulations.replay.estimators import Estimate
from tollway.simulations.replay.logs import BadLog, Log
from tollway.simulations.replay.replay import Replay, fixed
from tollway.simulations.replay.targets import parse

COUNT = 3000


def log_of(seed: int, *, hole: str = "") -> Log:
    """Return a log with propensities of drawn arms only.

    `great` is drawn with probability 0.2, but never in the half of contexts that `hole` names.
    """
    log = world(COUNT, seed, p_min=0.2, learns=False).log
    x = np.array([context.dense[0] for context in log.features])
    without = {
        "": np.zeros(COUNT, bool),
        "x": x > np.median(x),
        "late": np.arange(COUNT) >= COUNT // 2,
    }
    rng = np.random.default_rng(1000 + seed)  # not that of the contexts
    chances = np.where(without[hole][:, None], [0.4, 0.6, 0.0], [0.2, 0.6, 0.2])
    arm = (rng.random((COUNT, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=2)
    propensity = chances[np.arange(COUNT), arm]
    return replace(
        log, arm=arm, propensity=propensity, pmf=np.full((COUNT, 3), np.nan), names=("x",)
    )


@pytest.mark.parametrize("hole", ["x", "late"])
@pytest.mark.parametrize("seed", range(6))
def test_an_arm_without_a_chance_in_half_of_the_contexts_has_bounds(hole: str, seed: int) -> None:
    outcome = Replay(log_of(seed, hole=hole)).ask(parse("fixed:arm=great"))
    assert isinstance(outcome.quality, Bounded)
    assert 0.0 < outcome.quality.low < outcome.quality.high < 1.0
    assert outcome.quality.unseen == pytest.approx(0.5, abs=0.15)
    assert isinstance(outcome.cost_usd, Estimate)
    assert (outcome.cost_usd.basis, outcome.cost_usd.value) == ("quotes", pytest.approx(COST[2]))
    part = {"x": "with x above", "late": "of the second half"}[hole]
    assert "average 0.00 instead of 1" in str(outcome.quality)
    assert part in str(outcome.quality)


def test_the_other_arms_of_such_a_log_are_estimated() -> None:
    outcome = Replay(log_of(1, hole="x")).ask(parse("fixed:arm=fair"))
    assert isinstance(outcome.quality, Estimate)


@pytest.mark.parametrize("seed", range(6))
def test_a_sound_log_is_not_refused(seed: int) -> None:
    replay = Replay(log_of(seed))
    for target in [*fixed(replay.log), parse("weighted:cheap=1,great=3")]:
        assert isinstance(replay.ask(target).quality, Estimate)


@pytest.mark.parametrize(
    ("factor", "said"), [(0.5, "smaller than those of the draws"), (1.6, "larger than those of")]
)
def test_propensities_that_are_not_those_of_the_draws_are_refused(factor: float, said: str) -> None:
    log = log_of(2)
    replay = Replay(replace(log, propensity=np.minimum(log.propensity * factor, 1.0)))
    for target in fixed(log):
        assert said in str(replay.ask(target).quality)


def test_a_hole_that_could_go_unnoticed_is_stated_and_shrinks_with_the_log() -> None:
    log = log_of(3)
    support = Replay(log).support
    assert support is not None
    assert 0.1 < support.overlooked() < 0.5
    (note,) = [note for note in Replay(log).notes() if "drawn arms only" in note]
    assert f"unnoticed up to a share of {support.overlooked():.0%}" in note


def test_probabilities_of_all_arms_must_sum_to_1() -> None:
    log = world(300, 4, p_min=0.2).log
    with pytest.raises(BadLog, match="must sum to 1 in each decision"):
        Replay(replace(log, pmf=log.pmf / 2, propensity=log.propensity / 2))


def test_the_command_refuses_a_file_with_a_hole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, log = tmp_path / "log.csv", log_of(5, hole="x")
    frame = as_frame(world(COUNT, 5, p_min=0.2, learns=False))
    names = [log.arms[arm] for arm in log.arm]
    frame = frame.with_columns(model=np.array(names), p=log.propensity)
    frame.write_csv(path)
    named = ["--arm", "model", "--propensity", "p", "--quality", "reward", "--cost", "usd"]
    assert main(["simulate", "replay", str(path), *named, "--features", "x"]) == 0
    out = capsys.readouterr().out
    assert "fixed:arm=great: quality between 0." in out
    assert "its importance weights average 0.00" in out
    assert "of requests never tried it; too wide to decide" in out
    assert "decisions with x above" in out
