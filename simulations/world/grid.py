"""Grids of runs: each cell is a scenario with changes and a seed; it runs once and is cached.

A cell's result is stored in a file named by the hash of everything it depends on: the scenario's
text, the changes, the seed and the code. So an interrupted grid resumes where it stopped, a
repeated grid is immediate, and a changed scenario never reuses old results. Cells are functions
of these inputs alone, so any engine may run them in any order. Results keep the grid's order.
"""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from itertools import product
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from threading import Thread
from typing import Any

import orjson

from tollway.gateway.storage import snapshot_file
from tollway.simulations.world import engine, results, scenario_file

PACKAGES = ("backends", "policies", "gateway", "simulations")

Result = dict[str, Any]
Done = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a scenario by name or path, changes to it, and its seed.

    `labels` identify it within its grid: (column, value).
    """

    scenario: str
    seed: int
    changes: tuple[tuple[str, Any], ...] = ()
    labels: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """Its name in progress output: labels and seed."""
        parts = [f"{value}" for _, value in self.labels] or [self.scenario]
        return ", ".join([*parts, f"seed {self.seed}"])

    def key(self) -> str:
        """Return the hash of everything that the result depends on."""
        text = scenario_file.find(self.scenario).read_bytes()
        settings = orjson.dumps([self.seed, sorted(self.changes, key=lambda change: change[0])])
        return hashlib.sha256(text + b"\0" + settings + b"\0" + code().encode()).hexdigest()[:32]


@cache
def code() -> str:
    """Return the hash of the code that runs cells."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        folder = Path(str(import_module(f"tollway.{package}").__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def cells(
    names: Sequence[str],
    seeds: Sequence[int],
    axes: Sequence[tuple[str, Sequence[tuple[str, Mapping[str, Any]]]]] = (),
) -> list[Cell]:
    """Return the cells of all scenarios, all values of all axes and all seeds.

    An axis is (name, values); a value is (label, the changes it makes).
    """
    planned = []
    for name in names:
        for values in product(*(values for _, values in axes)):
            changes = {key: value for _, change in values for key, value in change.items()}
            labels = [("scenario", name)] if len(names) > 1 else []
            labels += [(axis, label) for (axis, _), (label, _) in zip(axes, values, strict=True)]
            planned += [
                Cell(name, seed, tuple(sorted(changes.items())), tuple(labels)) for seed in seeds
            ]
    return planned


def run_cell(cell: Cell) -> Result:
    """Run one cell."""
    with quiet():
        world = scenario_file.load(cell.scenario, dict(cell.changes))
        return results.summarise(engine.run(world, seed=cell.seed))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the gateways' own log during a simulation: its events are in the results.

    The former log level is restored, because a simulation may run inside a larger process.
    """
    log = logging.getLogger("tollway")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def run(
    wanted: Sequence[Cell],
    *,
    parts: Path | None = None,
    workers: int = 1,
    on: str = "local",
    done: Done = lambda count, of, name: None,
) -> list[Result]:
    """Run the cells without a stored result; return all results in the order of the cells.

    `parts` is the folder of stored results, `on` the engine: `local` processes, or `ray`.
    """
    for cell in wanted:
        scenario_file.load(cell.scenario, dict(cell.changes))  # report errors before hours of work
    results: dict[int, Result] = {}
    if parts is not None:
        parts.mkdir(parents=True, exist_ok=True)
        for at, cell in enumerate(wanted):
            path = parts / f"{cell.key()}.json"
            if path.exists():
                results[at] = orjson.loads(path.read_bytes())
    missing = [at for at in range(len(wanted)) if at not in results]
    for at, result in _engine(on)([wanted[at] for at in missing], workers):
        place = missing[at]
        results[place] = result
        if parts is not None:
            part = parts / f"{wanted[place].key()}.json"
            snapshot_file.write(part, orjson.dumps(result), durable=False)
        done(len(results), len(wanted), wanted[place].name)
    return [results[at] for at in range(len(wanted))]


def _engine(name: str) -> Callable[[Sequence[Cell], int], Iterator[tuple[int, Result]]]:
    if name == "ray":
        from tollway.simulations.world.cluster import on_ray  # noqa: PLC0415 - an extra

        return partial(on_ray, run_cell)
    return _locally


def _end_with_parent() -> None:
    """End this worker when its parent process is killed."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _locally(wanted: Sequence[Cell], workers: int) -> Iterator[tuple[int, Result]]:
    """Yield (index, result) as cells finish, from processes; with one worker, from this one."""
    if workers <= 1 or len(wanted) <= 1:
        for at, cell in enumerate(wanted):
            yield at, run_cell(cell)
        return
    count = min(workers, len(wanted))
    with ProcessPoolExecutor(count, get_context("spawn"), _end_with_parent) as pool:
        places = {pool.submit(run_cell, cell): at for at, cell in enumerate(wanted)}
        try:
            for future in as_completed(places):
                yield places[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds with its 95 % interval (Student's); the ends are nan for one seed."""

    value: float
    low: float
    high: float


def mean(values: Sequence[float]) -> Mean:
    """Return the mean of a figure over runs."""
    middle, count = fmean(values), len(values)
    if count < 2:
        return Mean(middle, math.nan, math.nan)
    half = _student(count - 1) * stdev(values) / math.sqrt(count)
    return Mean(middle, middle - half, middle + half)


def _student(degrees: int) -> float:
    """Return Student's 97.5 % quantile: exact for 1 and 2 degrees, else by Fisher's expansion."""
    if degrees <= 2:
        return {1: 12.7062, 2: 4.3027}[degrees]
    z, v = NormalDist().inv_cdf(0.975), float(degrees)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / v + second / v**2 + third / v**3 + fourth / v**4


def flat(cell: Cell, result: Result) -> dict[str, Any]:
    """Return a cell and its totals as one row, with the first change's recovery."""
    row: dict[str, Any] = {"scenario": cell.scenario, "seed": cell.seed, **dict(cell.labels)}
    row |= {key: value for key, value in result["total"].items() if not isinstance(value, dict)}
    row |= {f"share_{arm['name']}": arm["share"] for arm in result["backends"]}
    for number, change in enumerate(result["changes"]):
        row[f"recovery_s_{number}"] = change["recovery_s"]
    return row


def write_parquet(path: Path, wanted: Sequence[Cell], results: Sequence[Result]) -> None:
    """Write all cells' totals as one Parquet file; ModuleNotFoundError without the extra."""
    import polars as pl  # noqa: PLC0415 - an extra, and slow to import

    rows = [flat(cell, result) for cell, result in zip(wanted, results, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
