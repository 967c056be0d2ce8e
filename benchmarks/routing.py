"""Compares the production policy with rivals, the hull and optima on real tables.

    python benchmarks/routing.py --data DIR                        # everything; an hour or two
    python benchmarks/routing.py --data DIR --only curves --tables test --picture curves.png
    python benchmarks/routing.py --data DIR --only curves --seeds 3 --no-rivals    # a first look
    python benchmarks/routing.py --only pacing speed memory        # these need no data

DIR holds tables, at any depth, of two forms:

    NAME.jsonl  {"id", "group", "prompt", "q": {arm: score in [0, 1]}, "c": {arm: dollars}}
                a list of numbers "x" may replace the prompt or be given with it
    NAME.csv    columns <arm>.pred, <arm>.conf, <arm>.correct, true; a prices.csv in the same
                folder has the columns task, model, usd_per_call

A table `test` is streamed after the table `val` of its folder, and only `test` is measured. Of
every other table the second half of the stream is measured. The policy starts cold and sees only
the quality of the arm it chose. Its classes, the features and the cost estimator are the gateway's
own, with the same defaults for all tables. The studies:

"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from choosing import (  # noqa: E402
    cascade_values,
    cascades,
    changes,
    curves,
    league,
    pacing,
    picture,
    rivals,
    speed,
)
from choosing.figures import Effort, Row  # noqa: E402
from choosing.tables import Pair, Table, discover, paired  # noqa: E402

OURS = ["lagrangian", "lagrangian/vowpal"]
LEAGUE = ["linucb", "lin_thompson"]
RIVALS = ["epsilon_greedy", "squarecb", "cb_explore_adf", "linucb", "lin_thompson"]


@dataclass
class Setting:
    """The command line, and the tables that were found."""

    args: argparse.Namespace
    tables: dict[str, Table]
    others: dict[Path, str]
    effort: Effort

    @property
    def services(self) -> list[Table]:
        """The tables with each arm's answer and confidence."""
        return [
            table
            for table in self.tables.values()
            if table.said is not None and self._wanted(table)
        ]

    @property
    def pairs(self) -> list[Pair]:
        """The tables with a context, each with the table streamed before it."""
        return [pair for pair in paired(self.tables.values()) if self._wanted(pair.table)]

    def _wanted(self, table: Table) -> bool:
        return not self.args.tables or table.name in self.args.tables

    @property
    def names(self) -> list[str]:
        """The policies to compare."""
        return OURS[:1] if self.args.no_rivals else OURS + RIVALS


def curves_of(at: Setting) -> Iterator[Row]:
    python = rivals.environment(at.args.cache) if at.args.paretobandit else None
    for pair in at.pairs:
        yield from curves.curves(pair, at.names, at.effort, python)
    for table in at.services:
        yield from cascades.curve(table, at.effort)


def league_of(at: Setting) -> Iterator[Row]:
    names = OURS[:1] if at.args.no_rivals else OURS[:1] + LEAGUE + list(league.TRAINED)
    cells = league.Cells(at.args.cells)
    tables = [league.League(pair, names, cells, at.effort) for pair in at.pairs]
    for seed in range(at.args.seeds):  # so that what is known is balanced, if it is interrupted
        for table in tables:
            table.run([seed])
    rows = [row for table in tables for row in table.rows(at.args.seeds)]
    yield from rows
    yield from league.to_mend(rows, OURS[0])


def floors(at: Setting) -> Iterator[Row]:
    for pair in at.pairs:
        yield from curves.floors(pair, at.effort, at.args.floors)


def cascade_floors(at: Setting) -> Iterator[Row]:
    for table in at.services:
        yield from cascades.floors(table, at.effort, at.args.cascade_floor)


def cascade_worths(at: Setting) -> Iterator[Row]:
    for table in at.services:
        yield from cascade_values.study(table, at.effort)


def drift(at: Setting) -> Iterator[Row]:
    for pair in at.pairs:
        if len(pair.table.arms) >= 3:
            yield from changes.drift(pair.table, at.effort)


def tails(at: Setting) -> Iterator[Row]:
    for pair in at.pairs:
        yield from changes.tails(pair, at.effort)


def newcomer(at: Setting) -> Iterator[Row]:
    for pair in at.pairs:
        if len(pair.table.arms) >= 4:
            yield from changes.newcomer(pair.table, at.effort)


def cascading(at: Setting) -> Iterator[Row]:
    for table in at.services:
        yield from cascades.study(table, at.effort, at.args.shares)


def two_arms(at: Setting) -> Iterator[Row]:
    for pair in at.pairs:
        if len(pair.table.arms) == 2:
            yield from curves.two_arms(pair, at.names[:2], at.effort)


def llmdrift(at: Setting) -> Iterator[Row]:
    for path in at.others:
        with path.open() as file:
            if path.suffix == ".jsonl" and {"task", "model", "correct"} <= _keys(file.readline()):
                yield from changes.llmdrift(path, at.effort)


def _keys(line: str) -> set[str]:
    try:
        row = json.loads(line)
    except ValueError:
        return set()
    return set(row) if isinstance(row, dict) else set()


def labels(at: Setting) -> Iterator[Row]:
    for pair in at.pairs:
        yield from curves.scarce(pair, at.effort)
    for table in at.services:
        yield from cascades.study(table, at.effort, at.args.shares, labelled=0.01)


STUDIES: dict[str, tuple[Callable[[Setting], Iterator[Row]], str]] = {
    "curves": (curves_of, "quality at seven budgets, compared with rivals, hull and optima"),
    "league": (league_of, "the policy beside its closest rivals, seed by seed, and what to mend"),
    "floors": (floors, "the cost of holding an accuracy floor, compared with the hull's"),
    "cascade-floors": (
        cascade_floors,
        "the saving of a cascade at a floor, by section of the stream",
    ),
    "cascade-values": (
        cascade_worths,
        "cascades that weigh a right answer in dollars, and the best threshold in hindsight",
    ),
    "drift": (drift, "a price or the middle arm's quality is cut for a third of the stream"),
    "tails": (tails, "spend where costs are heavy-tailed (Pareto, exponent 1.5)"),
    "newcomer": (newcomer, "an arm is added after a third: requests until it gets 5 % of 100"),
    "cascades": (cascading, "cascades at --shares of the best single service's price"),
    "two-arms": (two_arms, "tables of two arms, at 25 and 50 % calls of the more expensive"),
    "llmdrift": (llmdrift, "model versions three months apart (rows of task, model, correct)"),
    "labels": (labels, "quality if one answer in a hundred has a label"),
    "pacing": (
        lambda at: pacing.study(at.effort),
        "an hour's budgets through bursts, lulls, price and limit changes, several at once",
    ),
    "speed": (lambda at: speed.speed(at.effort), "microseconds of a decision and an update"),
    "memory": (
        lambda at: speed.memory(at.effort, at.args.decisions),
        "resident memory along --decisions decisions",
    ),
}
DATALESS = {"pacing", "speed", "memory"}


def main() -> None:
    args = arguments()
    chosen = args.only or list(STUDIES)
    tables, others = discover(args.data) if args.data else ({}, {})
    for path, why in others.items():
        tell(f"not a table: {path}: {why}")
    for table in tables.values():
        if table.clipped:
            count = table.quality.size
            tell(f"{table.name}: {table.clipped} of {count} scores outside [0, 1]; clipped")
    unknown = set(args.tables or []) - set(tables)
    if unknown:
        found = ", ".join(tables) or "none"
        sys.exit(f"--tables: unknown {' '.join(sorted(unknown))}; tables found: {found}")
    setting = Setting(args, tables, others, Effort(args.seeds, tell))
    result: dict[str, object] = {"about": about(args, tables)}
    for name in chosen:
        started = time.monotonic()
        rows = list(STUDIES[name][0](setting))
        tell(f"{name}: done in {time.monotonic() - started:.0f} s", done=True)
        result[name] = rows
        print(f"\n## {name}: {STUDIES[name][1]}")
        show(rows)
        if args.json:
            args.json.write_text(json.dumps(result, indent=1))
        if args.picture and name == "curves" and rows:
            picture.draw(rows, args.picture)


def arguments() -> argparse.Namespace:
    listed = "\n".join(f"    {name:10}  {about}" for name, (_, about) in STUDIES.items())
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").rstrip() + "\n\n" + listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tollway"
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of tables")
    parser.add_argument(
        "--only", nargs="+", choices=STUDIES, metavar="STUDY", help="studies to run (all)"
    )
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="tables to measure on (all)")
    parser.add_argument("--seeds", type=int, default=20, help="streams per cell (20)")
    parser.add_argument(
        "--no-rivals", action="store_true", help="measure only the product's policy"
    )
    parser.add_argument(
        "--paretobandit",
        action="store_true",
        help=f"also run {rivals.PACKAGE}, in its own environment under --cache",
    )
    parser.add_argument("--floors", type=float, nargs="+", default=list(curves.FLOORS))
    parser.add_argument(
        "--cascade-floor",
        type=float,
        metavar="F",
        help="floor of cascade-floors (.01 below the best service's accuracy)",
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.1, 0.2, 0.33, 0.45, 0.6],
        help="budgets of cascades, as shares of the best single service's price",
    )
    parser.add_argument(
        "--decisions", type=int, default=1_000_000, help="decisions of the study memory"
    )
    parser.add_argument(
        "--cells", type=Path, metavar="FILE", help="keep the league's cells, and go on from them"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw the curves as PNG or SVG"
    )
    parser.add_argument("--cache", type=Path, default=cache, metavar="DIR")
    args = parser.parse_args()
    if args.data is None and not set(args.only or STUDIES) <= DATALESS:
        parser.error("--data DIR is required, except for " + " and ".join(sorted(DATALESS)))
    if args.data is not None and not args.data.is_dir():
        parser.error(f"--data {args.data}: no such folder")
    if args.seeds < 1 or args.decisions < 10:
        parser.error("--seeds must be at least 1, --decisions at least 10")
    return args


def about(args: argparse.Namespace, tables: dict[str, Table]) -> Row:
    """Return the versions, tables and settings of the run."""
    return {
        "seeds": args.seeds,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "defaults": "one set for all tables, chosen on ParetoBandit's val tables only",
        "tables": {name: [len(table), len(table.arms)] for name, table in tables.items()},
        "clipped_scores": {name: t.clipped for name, t in tables.items() if t.clipped},
    }


def tell(line: str, done: bool = False) -> None:
    """Show progress on stderr: one changing line on a terminal, else a line each time."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="\n" if done else "", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def show(rows: list[Row]) -> None:
    """Print rows as a table per kind of row."""
    if not rows:
        print("no table in the data folder fits this study")
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)
    for keys, same in kinds.items():
        lines = [list(keys)] + [[cell(row[key]) for key in keys] for row in same]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(map(str.ljust, line, widths)).rstrip())
        print()
    sys.stdout.flush()


def cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " / ".join(cell(part) for part in value)
    return str(value)


if __name__ == "__main__":
    main()
