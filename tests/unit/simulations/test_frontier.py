"""The frontier: its hull, its prices as slopes, and the gain from features."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic import as_frame, world
from tollway.gateway.cli.main import main
from tollway.simulations.replay import frontier_commands
from tollway.simulations.replay.estimators import Estimate
from tollway.simulations.replay.frontier import Point, choices, frontier, hull, priced
from tollway.simulations.replay.replay import Outcome, Replay


def point(name: str, cost: float, quality: float) -> Point:
    def known(value: float) -> Estimate:
        return Estimate(value, value, value, value, value, 100.0, 0.0, 100)

    outcome = Outcome(name, known(quality), known(cost), known(0.0), known(0.0), None)
    return Point("arm", outcome)


def test_the_hull_leaves_out_what_a_mix_of_others_beats() -> None:
    points = [point("a", 1, 0.5), point("b", 2, 0.55), point("c", 3, 0.9), point("d", 4, 0.8)]
    assert [one.outcome.label for one in hull(points)] == ["a", "c"]


def test_a_point_of_accuracy_costs_what_the_slope_says() -> None:
    first, second = priced([point("a", 0.001, 0.8), point("b", 0.002, 0.85)])
    assert first.usd_per_point is None
    assert second.usd_per_point == pytest.approx(1.0 / 5.0)  # $1 per 1,000 for 5 points


def test_at_no_price_the_best_arm_is_taken_and_at_a_high_one_the_cheapest() -> None:
    log = world(300, 1).log
    qualities = np.tile([0.6, 0.8, 0.9], (300, 1))
    assert (choices(log, qualities, log.cost_hat_usd, 0.0)[:, 2] == 1.0).all()
    assert (choices(log, qualities, log.cost_hat_usd, 1e9)[:, 0] == 1.0).all()


def test_the_intervals_of_the_learned_line_hold_the_truth() -> None:
    found = world(4000, 3, p_min=0.2)
    replay = Replay(found.log)
    for price in (0.0, 30.0, 300.0, 3000.0):
        taken = choices(found.log, replay.qualities, replay.costs, price)
        told = replay.outcome("learned", taken).quality
        assert isinstance(told, Estimate)
        assert told.low <= (taken * found.expected).sum(axis=1).mean() <= told.high
        assert told.high - told.low < 0.2


@pytest.mark.integration
def test_hindsight_and_learned_lines_go_from_cheap_to_good() -> None:
    found = frontier(Replay(world(4000, 2, p_min=0.2).log))
    kinds = {one.kind for one in found}
    assert kinds == {"logged", "arm", "mix", "learned", "hindsight"}
    for kind in ("learned", "hindsight"):
        places = [one.place for one in found if one.kind == kind and one.place]
        assert len(places) >= 3
        assert places[0][0] < places[-1][0] / 10
        assert places[0][1] < places[-1][1]


def test_the_command_prints_every_line_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, told, page = tmp_path / "log.parquet", tmp_path / "f.json", tmp_path / "f.html"
    as_frame(world(1500, 2, p_min=0.2)).write_parquet(path)
    names = ["--arm", "model", "--propensity", "p", "--quality", "reward", "--cost", "usd"]
    files = ["--json", str(told), "--html", str(page)]
    policy = ["--policy", "weighted:cheap=1,great=1"]
    assert main(["simulate", "frontier", str(path), *names, *files, *policy]) == 0
    out = capsys.readouterr().out
    for line in frontier_commands.LINES.values():
        assert line in out
    assert len(json.loads(told.read_text())["points"]) > 8
    assert "<svg" in page.read_text()


@pytest.mark.integration
def test_only_points_on_a_lines_own_hull_are_priced_and_prices_rise() -> None:
    found = frontier(Replay(world(4000, 2, p_min=0.2).log))
    for kind in ("arm", "learned", "hindsight"):
        prices = [one.usd_per_point for one in found if one.kind == kind and one.usd_per_point]
        assert prices == sorted(prices)
        assert prices


def test_a_line_without_answers_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.parquet"
    as_frame(world(1000, 1, p_min=0.01, learns=False)).write_parquet(path)
    names = ["--arm", "model", "--propensity", "p", "--quality", "reward", "--cost", "usd"]
    assert main(["simulate", "frontier", str(path), *names, "--features", "x"]) == 0
    out = capsys.readouterr().out
    assert out.count("hindsight: no estimate at") == 1
    assert "log with p_min" in out


def test_a_note_says_that_a_cascade_asked_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = world(800, 2, p_min=0.2).log
    twice = replace(log, total_usd=log.cost_usd * 2.0)
    monkeypatch.setattr("tollway.simulations.replay.frontier_commands.read", lambda *_: twice)
    assert main(["simulate", "frontier", "."]) == 0
    assert "called two backends for some requests (cascade)" in capsys.readouterr().out


def test_an_arm_the_log_knows_nothing_of_is_not_on_the_hull() -> None:
    found = world(1000, 1, p_min=0.0, learns=False)
    log = replace(found.log)
    points = frontier(Replay(log))
    assert [one.outcome.label for one in points if one.kind == "arm"] == ["fixed:arm=fair"]
