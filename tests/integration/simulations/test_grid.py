"""Grids: paired, in order, done once, the same on every engine."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from tests.support.until import until_now
from tollway.gateway.settings.errors import ConfigError
from tollway.simulations.world import grid

pytestmark = pytest.mark.integration

SCENARIO = """
name = "tiny"
hours = 0.05
pacing_interval_s = 10
[workload]
requests_per_day = 50_000
[[backends]]
name = "cheap"
price = { per_request_usd = 0.0001 }
quality = 0.7
[[backends]]
name = "dear"
price = { per_request_usd = 0.001 }
quality = 0.9
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(SCENARIO)
    return str(path)


def a_grid(scenario: str) -> list[grid.Cell]:
    axis = [
        (name, {"route.policy": "fixed", "route.policy_options": {"arm": name}})
        for name in ("cheap", "dear")
    ]
    return grid.cells([scenario], [1, 2], [("arm", axis)])


def test_cells_are_every_value_with_every_seed(scenario: str) -> None:
    assert [(cell.labels, cell.seed) for cell in a_grid(scenario)] == [
        ((("arm", "cheap"),), 1),
        ((("arm", "cheap"),), 2),
        ((("arm", "dear"),), 1),
        ((("arm", "dear"),), 2),
    ]


def test_a_finished_cell_is_kept_and_not_run_again(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, parts = a_grid(scenario), tmp_path / "parts"
    grid.run(wanted[:1], parts=parts)
    told: list[str] = []
    first = grid.run(wanted, parts=parts, done=lambda count, of, name: told.append(name))
    assert len(told) == 3
    monkeypatch.setattr(grid, "run_cell", lambda cell: pytest.fail("done again"))
    assert grid.run(wanted, parts=parts) == first
    assert [result["total"]["quality"] for result in first] == [0.7, 0.7, 0.9, 0.9]


def test_a_cell_restores_the_log_level(scenario: str) -> None:
    log = logging.getLogger("tollway")
    before = log.level
    log.setLevel(logging.INFO)
    try:
        grid.run_cell(a_grid(scenario)[0])
        assert log.level == logging.INFO
        with pytest.raises(ConfigError):
            grid.run_cell(grid.Cell(scenario, 1, (("route.policy", "no such policy"),)))
        assert log.level == logging.INFO
    finally:
        log.setLevel(before)


def test_an_interrupted_cell_is_run_again(scenario: str, tmp_path: Path) -> None:
    (cell, *_), parts = a_grid(scenario), tmp_path / "parts"
    parts.mkdir()
    (parts / f"{cell.key()}.tmp").write_bytes(b'{"tot')
    assert grid.run([cell], parts=parts)[0]["total"]["quality"] == 0.7


def test_a_changed_scenario_seed_or_value_is_another_cell(scenario: str) -> None:
    keys = {cell.key() for cell in a_grid(scenario)}
    Path(scenario).write_text(SCENARIO.replace("0.7", "0.8"))
    keys |= {cell.key() for cell in a_grid(scenario)}
    assert len(keys) == 8


def test_results_are_a_table_in_parquet(scenario: str, tmp_path: Path) -> None:
    wanted = a_grid(scenario)
    grid.write_parquet(tmp_path / "r.parquet", wanted, grid.run(wanted))
    table = pl.read_parquet(tmp_path / "r.parquet")
    assert table["arm"].to_list() == ["cheap", "cheap", "dear", "dear"]
    assert table["seed"].to_list() == [1, 2, 1, 2]
    assert table["quality"].to_list() == pytest.approx([0.7, 0.7, 0.9, 0.9])


def test_intervals_are_students() -> None:
    found = grid.mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3.0
    assert found.high - found.value == pytest.approx(2.7764 * (2.5**0.5) / 5**0.5, rel=1e-3)
    assert grid.mean([1.0]).low != grid.mean([1.0]).low  # nan: one run has no interval


@pytest.mark.integration
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_every_engine_gives_the_same_bytes(scenario: str, engine: str) -> None:
    wanted = a_grid(scenario)

    def bytes_of(found: list[Any]) -> bytes:
        return orjson.dumps(found)

    assert bytes_of(grid.run(wanted, workers=2, on=engine)) == bytes_of(grid.run(wanted))


@pytest.mark.integration
def test_workers_end_when_their_parent_is_killed() -> None:
    command = [sys.executable, "-m", "tollway", "simulate", "run", "--all", "--workers", "2"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    until_now(lambda: len(_computing(listed)) == 2)
    workers = _computing(listed)
    parent.kill()
    parent.wait()
    until_now(lambda: not any(map(_computes, workers)))


def _computing(listed: Path) -> list[str]:
    return [pid for pid in listed.read_text().split() if _computes(pid)]


def _computes(pid: str) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
