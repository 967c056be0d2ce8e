"""Simulated rollouts: the controller sees what is there, and nothing where nothing is."""

import json

import pytest

from tollway.simulations.cli import main
from tollway.simulations.rollouts import figures
from tollway.simulations.rollouts.judges import HELD, Argo, Thresholds, Tollway
from tollway.simulations.rollouts.play import Outcome, Reply, play, seeds
from tollway.simulations.rollouts.scenarios import SCENARIOS, STABLE


@pytest.mark.parametrize("name", ["errors", "cost"])
def test_a_worse_version_is_rolled_back(name: str) -> None:
    found = play(SCENARIOS[name], Tollway(HELD), seed=3, rate=200.0, most_s=120.0)
    assert found.outcome == "rolled_back"
    assert found.candidate < 2400  # of 24,000 requests


def test_the_same_seed_gives_the_same_play() -> None:
    plays = [
        play(SCENARIOS["errors"], Tollway(HELD), seed=5, rate=100.0, most_s=60.0) for _ in range(2)
    ]
    assert plays[0] == plays[1]


def test_a_version_that_is_no_worse_goes_on() -> None:
    found = play(SCENARIOS["same"], Tollway(HELD), seed=4, rate=100.0, most_s=20.0)
    assert (found.outcome, found.seconds) == ("undecided", 20.0)


def test_fixed_thresholds_forgive_as_many_failures_as_their_limit() -> None:
    judge = Argo(Thresholds.of(STABLE), HELD, interval_s=10.0, failure_limit=2)
    for second in range(1, 31):
        judge.saw(True, 0, Reply(failed=True, right=False, latency_s=0.01, cost_nano=1))
        judge.look(float(second))
        assert judge.outcome == ("rolled_back" if second == 30 else "")


def test_harm_is_counted_where_the_stable_version_would_have_been_right() -> None:
    found = play(SCENARIOS["same"], Tollway(HELD), seed=9, rate=100.0, most_s=10.0)
    assert found.candidate > 50
    assert found.harmed == 0


def test_figures_are_those_of_the_outcomes() -> None:
    outcomes = [
        Outcome("rolled_back", 10.0, 100, 3),
        Outcome("rolled_back", 30.0, 100, 5),
        Outcome("promoted", 200.0, 100, 0),
        Outcome("undecided", 300.0, 100, 1),
    ]
    found = figures.of("x", "tollway", outcomes)
    assert (found.promoted, found.rolled_back, found.undecided) == (0.25, 0.5, 0.25)
    assert (found.rollback_median_s, found.promotion_median_s, found.harmed_median) == (20, 200, 2)


def test_the_command_prints_how_long_and_how_often(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rollout", "errors", "--seeds", "2", "--rate", "100", "--hold", "--argo", "--json"]
    assert main([*words, "--seconds", "60"], {}) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["judge"] for one in found] == ["tollway", "argo"]
    assert found[0]["plays"] == 2
    assert main(["rollout", "--list"], {}) == 0
    assert "quality falls by 5 points" in capsys.readouterr().out
    assert main(["rollout", "nothing"], {}) == 2
    assert "no scenario nothing" in capsys.readouterr().err


def test_seeds_are_the_same_for_the_same_first() -> None:
    assert seeds(1, 3) == seeds(1, 3) != seeds(2, 3)
