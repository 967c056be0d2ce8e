"""Capacity: the traffic forecast, the replicas that it needs, and their cost."""

import json
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest

from tollway.backends.pricing import Price
from tollway.gateway.cli.main import main
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.journal_reader import Damage
from tollway.simulations.capacity.capacity import Replica, Sizing, Target, bills, need, spared
from tollway.simulations.capacity.forecast import Forecast, forecast, held_out
from tollway.simulations.capacity.traffic import read
from tollway.simulations.capacity.waiting import Service
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.logs import BadLog
from tollway.simulations.replay.scratch import Scratch
from tollway.simulations.world.servers import Server
from tollway.simulations.world.truth import Condition

FIRST_H = 20_000 * 24
SERVICE = Service.of(np.random.default_rng(3).gamma(4.0, 0.1, 2000))  # 0.4 s, scv 1/4


def rates(seed: int, days: int, *, growth: float = 0.05) -> np.ndarray:
    """Calls per second by the hour: growth, days and nights, weekends, days that differ."""
    rng, hour = np.random.default_rng(seed), FIRST_H + np.arange(days * 24)
    weekend = np.isin(hour // 24 % 7, [2, 3])
    usual = 15.0 * (1.0 + growth) ** ((hour - FIRST_H) / 168)
    usual *= 1.0 + 0.6 * np.cos(2.0 * np.pi * (hour % 24 - 14) / 24)
    usual *= np.where(weekend, 0.6, 1.0) * np.repeat(np.exp(rng.normal(0.0, 0.08, days)), 24)
    return rng.poisson(usual * 3600) / 3600


# -- what is to come


def test_growth_and_seasons_are_found_and_the_last_day_is_predicted() -> None:
    came = rates(1, 42)
    told = forecast(came, FIRST_H, 24, np.random.default_rng(0))
    assert told.known == ("growth", "hours of the day", "days of the week")
    assert told.growth_week == pytest.approx(0.05, abs=0.02)
    tested = held_out(came, FIRST_H, np.random.default_rng(0), 0.95)
    assert tested is not None
    assert tested.error < 0.2
    assert tested.worst_peak > tested.expected_peak


def test_the_worst_case_holds_what_comes_as_often_as_it_says() -> None:
    held = 0
    for seed in range(40):
        came = rates(seed, 28)
        told = forecast(came[: 21 * 24], FIRST_H, 168, np.random.default_rng(seed), draws=200)
        held += came[21 * 24 :].max() <= told.worst(0.95)
    assert held >= 35  # of 40; 38 are expected


@pytest.mark.parametrize(("days", "known"), [(1, ()), (5, ("hours of the day",))])
def test_a_short_history_yields_no_invented_seasons(days: int, known: tuple[str, ...]) -> None:
    told = forecast(rates(1, days), FIRST_H, 24, np.random.default_rng(0))
    assert told.known == known
    assert told.growth_week == 0.0
    assert held_out(rates(1, 2), FIRST_H, np.random.default_rng(0), 0.95) is None


def test_hours_in_which_nothing_ran_are_no_hours_without_calls() -> None:
    came, gap = rates(1, 28), rates(1, 28)
    gap[100:110] = np.nan
    told = [forecast(one, FIRST_H, 24, np.random.default_rng(0)).expected for one in (came, gap)]
    np.testing.assert_allclose(told[0], told[1], rtol=0.05)


def test_a_growth_that_is_given_is_taken() -> None:
    told = forecast(rates(1, 28), FIRST_H, 336, np.random.default_rng(0), growth_week=0.2)
    assert told.growth_week == pytest.approx(0.2)
    week = told.expected[:168].mean(), told.expected[168:].mean()
    assert week[1] / week[0] == pytest.approx(1.2)


# -- how many


def sizing(target: Target) -> Sizing:
    return Sizing(SERVICE, Replica(places=2), target, 1.0, 200.0)


def share_late(rate: float, places: int, within_s: float) -> float:
    """Run the simulation's own server at a rate; return the share of calls that were late."""
    rng, calls = np.random.default_rng(4), 200_000
    took = rng.choice(SERVICE.times_s, calls)
    arrivals = np.cumsum(rng.exponential(1.0 / rate, calls))
    server = Server(Random(0), places=places, queue=10**9, condition=Condition(None, Price()))
    done = [server.admit(*one) for one in zip(arrivals.tolist(), took.tolist(), strict=True)]
    return float((np.array(done, float) - arrivals > within_s).mean())


@pytest.mark.integration
def test_as_many_replicas_as_it_says_keep_the_target_in_a_simulated_queue_and_fewer_do_not() -> (
    None
):
    target = Target(within_s=1.0)
    for rate in (6.0, 30.0):
        count = int(sizing(target).waiting(np.array([rate]))[0])
        assert share_late(rate, 2 * count, 1.0) <= 0.055
        assert share_late(rate, 2 * (count - 1), 1.0) > 0.05


def flat(rate: float, hours: int = 48) -> Forecast:
    return Forecast(np.full(hours, rate), np.full((50, hours), rate), 0.0, ())


@pytest.mark.parametrize(
    ("headroom", "peak", "rule", "most"),
    [(0.5, 2.0, "peak", 60), (3.0, 2.0, "headroom", 80), (0.0, 0.0, "waiting", None)],
)
def test_the_rule_that_needs_the_most_replicas_applies(
    headroom: float, peak: float, rule: str, most: int | None
) -> None:
    target = Target(within_s=5.0, headroom=headroom, peak=peak, availability=0.5)
    rate = 40.0 / SERVICE.mean_s  # keeps 40 places, 20 replicas, busy
    found = need(sizing(target), flat(rate), Replica(places=2), target)
    assert found.rule == rule
    if most is None:
        assert 20 < found.waiting < 30
    else:
        assert found.top == most


def test_as_many_spares_stand_by_as_the_availability_needs() -> None:
    assert spared(1, 0.9, 0.9) == 1
    assert spared(1, 0.9, 0.99) == 2  # 1 - 0.1^2
    assert spared(1, 0.9, 0.999) == 3
    up = np.random.default_rng(0).random((100_000, 24)) < 0.95
    count = spared(20, 0.95, 0.98)
    assert (up[:, :count].sum(axis=1) >= 20).mean() == pytest.approx(0.98, abs=0.02)
    assert (up[:, : count - 1].sum(axis=1) >= 20).mean() < 0.98


def test_a_target_below_the_time_of_service_is_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"no number of replicas meets the target of 0\.3 s"):
        sizing(Target(within_s=0.3))


# -- what it costs


def test_the_bills_are_replicas_times_hours_times_prices() -> None:
    target = Target(within_s=5.0, availability=0.5, headroom=0.0, peak=0.0)
    rate = np.tile([40.0, 40.0, 40.0, 4.0], 12)  # calls a second: three hours busy, one calm
    told = Forecast(rate, np.tile(rate, (50, 1)), 0.0, ())
    offer = Replica(places=2, usd=2.0, reserved_usd=1.2, spot_usd=0.5, spot_up=0.9)
    size = sizing(target)
    busy, calm = (int(size.waiting(np.array([value]))[0]) for value in (40.0, 4.0))
    top = need(size, told, offer, target).top
    assert top == busy
    always, hourly, reserved = bills(size, told, offer, target, top)  # none is left for spot
    assert always.usd_month == pytest.approx(busy * 2.0 * 730)
    assert hourly.usd_month == pytest.approx((3 * busy + calm) / 4 * 2.0 * 730)
    # Used in three hours of four, which is above 1.2 / 2: all are worth reserving.
    assert reserved.always == busy
    assert reserved.usd_month == pytest.approx(busy * 1.2 * 730)


def test_spot_replicas_come_with_spares_for_interruptions() -> None:
    target = Target(within_s=5.0, availability=0.99, headroom=0.0, peak=0.0)
    rate = np.tile([40.0, 4.0, 4.0, 4.0], 12)
    told = Forecast(rate, np.tile(rate, (50, 1)), 0.0, ())
    offer = Replica(places=2, usd=2.0, spot_usd=0.5, spot_up=0.9)
    size = sizing(target)
    top = need(size, told, offer, target).top
    always, hourly, spot = bills(size, told, offer, target, top)
    assert spot.plan == "on demand + spot"
    assert spot.most > top
    assert spot.usd_month < hourly.usd_month < always.usd_month


# -- from traffic


def calls(folder: Path, days: int, seed: int = 1) -> Path:
    """Write a file of calls to one backend."""
    rng, by_hour = np.random.default_rng(seed), rates(seed, days) * 0.02 * 3600
    count = rng.poisson(by_hour)
    start = np.repeat((FIRST_H + np.arange(days * 24)) * 3600.0, count)
    time = np.sort(start + rng.random(len(start)) * 3600)
    frame = pl.DataFrame({"arm": "large", "time": time})
    latency = rng.choice(SERVICE.times_s, len(time))
    path = folder / "calls.parquet"
    frame.with_columns(latency_s=pl.Series(latency)).write_parquet(path)
    return path


def test_every_attempt_of_a_journal_is_load(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for at in range(150):
        head = {"kind": "attempt", "id": journal.new_id(), "time": 1e9 + at, "error": ""}
        large = {**head, "attempt": 0, "backend": "large", "fallback": False, "latency_s": 0.2}
        journal.append(large, {**large, "attempt": 1, "backend": "small", "fallback": True})
        if at % 2:
            journal.append({**large, "attempt": 2, "audit": 0.1, "error": "status 500"})
    journal.close()
    large, small = read(tmp_path, Scratch(), Columns(), Damage())
    assert (large.backend, small.backend) == ("large", "small")
    assert large.calls.sum() == 225
    assert small.calls.sum() == 150
    assert large.service.mean_s == pytest.approx(0.2)


def test_damage_is_counted_and_a_file_of_nothing_else_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    head = {"kind": "attempt", "error": "", "attempt": 0, "backend": "a", "latency_s": 0.2}
    for at in range(150):
        journal.append({**head, "id": journal.new_id(), "time": 1e9 + at})
    journal.close()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    damage = Damage()
    (traffic,) = read(tmp_path, Scratch(), Columns(), damage)
    assert (damage.bad, damage.lines, traffic.calls.sum()) == (1, 150, 149)
    path.write_text("{}\n")
    with pytest.raises(BadLog, match="none of the 1 lines"):
        read(tmp_path, Scratch(), Columns(), Damage())
    table = tmp_path / "calls.csv"
    table.write_text("arm,time,latency_s\n" + "a,soon,0.1\n" * 200)
    with pytest.raises(BadLog, match="row 1: time = 'soon' is not a time"):
        read(table, Scratch(), Columns(), Damage())


def test_rows_of_a_table_without_backend_or_time_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "calls.csv"
    rows = [f"a,2026-01-01T00:{at // 60:02}:{at % 60:02}Z,0.1" for at in range(200)]
    rows[3], rows[7] = "a,,0.1", ",2026-01-01T00:00:07Z,0.1"
    table.write_text("\n".join(["arm,time,latency_s", *rows]) + "\n")
    offer = "a:usd=1.,spot_usd=.9"
    assert main(["simulate", "capacity", str(table), "--within", "2", "--replica", offer]) == 0
    assert "2 of 200 rows are left out" in capsys.readouterr().out


def test_a_backend_that_was_called_in_no_whole_hour_is_planned_for_too(tmp_path: Path) -> None:
    start = FIRST_H * 3600.0 + 1800.0
    rare, often = start + np.arange(150.0), start + np.arange(600.0) * 100.0
    frame = pl.DataFrame({"arm": ["rare"] * 150 + ["often"] * 600, "time": [*rare, *often]})
    frame.with_columns(latency_s=pl.lit(0.1)).write_parquet(tmp_path / "calls.parquet")
    often_one, rare_one = read(tmp_path / "calls.parquet", Scratch(), Columns(), Damage())
    assert (often_one.backend, rare_one.calls.sum()) == ("often", 0.0)
    assert rare_one.service.mean_s == pytest.approx(0.1)
    assert main(["simulate", "capacity", str(tmp_path / "calls.parquet")]) == 0


def test_bursts_are_distinguished_from_chance(tmp_path: Path) -> None:
    (chance,) = read(calls(tmp_path, 4), Scratch(), Columns(), Damage())
    assert chance.bursts == pytest.approx(1.0, abs=0.1)
    assert chance.service.mean_s == pytest.approx(SERVICE.mean_s, rel=0.03)
    frame = pl.read_parquet(tmp_path / "calls.parquet")
    fivefold = pl.concat([frame.sample(fraction=0.2, seed=1)] * 5)
    fivefold.write_parquet(tmp_path / "bursts.parquet")
    (bursts,) = read(tmp_path / "bursts.parquet", Scratch(), Columns(), Damage())
    assert bursts.bursts == pytest.approx(5.0, rel=0.2)


def test_the_command_prints_replicas_costs_and_the_forecast_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, told, page = calls(tmp_path, 21), tmp_path / "c.json", tmp_path / "c.html"
    offer = "large:places=1,usd=2.5,spot_usd=0.9,reserved_usd=1.6"
    files = ["--json", str(told), "--html", str(page)]
    assert (
        main(["simulate", "capacity", str(path), "--within", "2", "--replica", offer, *files]) == 0
    )
    out = capsys.readouterr().out
    assert "constant maximum" in out
    assert "reserved + hourly" in out
    (backend,) = json.loads(told.read_text())["backends"]
    assert backend["held_out"]["error"] < 0.5
    assert backend["need"]["top"] >= backend["need"]["waiting"] >= 1
    assert backend["bills"][1]["usd_month"] <= backend["bills"][0]["usd_month"]
    assert page.read_text().count("<svg") >= 2


def test_what_cannot_be_planned_is_said_in_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "capacity", str(calls(tmp_path, 1)), "--within", "0.2"]) == 0
    out = capsys.readouterr().out
    assert "no number of replicas meets the target" in out
    assert "enough to fit a constant rate only" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--replica", "huge:usd=1"], "no calls to huge; the backends are: large"),
        (["--replica", "large:prise=1"], "unknown option 'prise'; the options are: places"),
        (["--replica", "large:usd=cheap"], "usd=cheap is not a number above 0"),
        (["--replica", "large:up=1.5"], "up=1.5 is not a share above 0 and up to 1"),
        (["--share", "95"], "--share must be between 0 and 1"),
        (["--days", "0"], "--days must be"),
        (["--arm", "model"], "no column 'model'; set --arm"),
    ],
)
def test_an_invalid_question_is_refused_with_the_reason(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = calls(tmp_path, 1)
    assert main(["simulate", "capacity", str(path), *arguments]) == 1
    assert said in capsys.readouterr().err
