"""Times in logs from elsewhere."""

from pathlib import Path

import polars as pl
import pytest

from tollway.simulations.replay import log_files, times
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.logs import BadLog
from tollway.simulations.replay.scratch import Scratch

NEW_YEAR = 1_767_225_600.0  # 2026-01-01 00:00 UTC


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01",
        "2026-01-01 00:00:00",
        "2026-01-01T00:00:00Z",
        "2026-01-01T01:00:00+01:00",
        "2025-12-31T19:00:00.000-05:00",
        " 2026-01-01T00:00 ",
        "1767225600",
        "1.7672256e9",
    ],
)
def test_each_form_of_a_time_is_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")  # of the machine, which says nothing of the log
    assert times.parse(text) == NEW_YEAR


def read(folder: Path, stamps: list[str]) -> list[float]:
    path = folder / "log.csv"
    rows = [f"{'ab'[at % 2]},0.5,{at % 2},{stamp}" for at, stamp in enumerate(stamps)]
    path.write_text("\n".join(["arm,propensity,quality,time", *rows]) + "\n")
    return [float(time) for time in log_files.read(path, Scratch(), Columns()).time]


@pytest.mark.parametrize(
    "stamp", ["2026-01-01T00:00:{:02}Z", "2026-01-01T01:00:{:02}+01:00", "17672256{:02}"]
)
def test_a_csv_log_is_in_order_of_its_dates(tmp_path: Path, stamp: str) -> None:
    stamps = [stamp.format(second) for second in range(59, -1, -1)]
    assert read(tmp_path, stamps) == [NEW_YEAR + second for second in range(60)]


def test_offsets_may_differ_from_row_to_row(tmp_path: Path) -> None:
    stamps = ["2026-01-01T01:00:00+01:00", "2026-01-01T00:00:01", "1767225602"] * 20
    assert set(read(tmp_path, stamps)) == {NEW_YEAR, NEW_YEAR + 1, NEW_YEAR + 2}


@pytest.mark.parametrize("wrong", ["yesterday", "01/02/2026", "1767225600000", "nan", "2026-13-01"])
def test_what_is_no_time_is_named_with_its_row(tmp_path: Path, wrong: str) -> None:
    stamps = ["2026-01-01T00:00:00Z"] * 60
    stamps[41] = wrong
    with pytest.raises(BadLog, match=r"log\.csv row 42: time = .* is not a time; write seconds"):
        read(tmp_path, stamps)


@pytest.mark.parametrize("stamp", ["17672256{:02}", "2026-01-01T00:00:{:02}Z"])
def test_a_row_without_a_time_is_left_out_and_counted(tmp_path: Path, stamp: str) -> None:
    path = tmp_path / "log.csv"
    stamps = ["", *[stamp.format(second) for second in range(1, 60)]]
    rows = [f"a,0.5,1,{stamp}" for stamp in stamps]
    path.write_text("\n".join(["arm,propensity,quality,time", *rows]) + "\n")
    log = log_files.read(path, Scratch(), Columns())
    assert len(log) == 59
    assert log.excluded == {"without time": 1}


def test_dates_of_parquet_files_are_read_too() -> None:
    frame = pl.LazyFrame({"t": ["2026-01-01T00:00:00"]}).select(pl.col("t").str.to_datetime())
    for column in (pl.col("t"), pl.col("t").dt.date(), pl.col("t").dt.replace_time_zone("UTC")):
        scan = frame.select(t=column)
        assert scan.select(times.seconds(scan, "t", "x")).collect().item() == NEW_YEAR
