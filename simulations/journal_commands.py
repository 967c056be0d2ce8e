"""`tollway simulate replay | frontier | capacity | fit`: the command lines that analyse a journal.

This module defines their options. Their implementations are imported when they run, because they
need polars.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tollway.gateway.cli import terminal
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.intervals import METHODS

_REPLAY = """\
examples:
  tollway simulate replay .tollway/journal                   every arm by itself
  tollway simulate replay .tollway/journal --policy fixed:arm=cpu --policy weighted:cpu=9,gpu=1
  tollway simulate replay .tollway/journal --policy lagrangian:p_min=0.02 --html replay.html
  tollway simulate replay log.parquet --arm model --propensity p --quality reward --cost usd

JOURNAL is the folder of a gateway's journal-*.jsonl (or its parent folder), one of these files, a
file in Vowpal Wabbit's dsjson, a CSV or Parquet file, or a file of the Open Bandit Dataset.

A policy is NAME or NAME:OPTION=VALUE,... with the options of policy_options in tollway.toml. A
learning policy learns from the log's feedback, at the times at which it arrived.

Each figure has a 95 % interval that is valid for small samples. If the log does not support an
estimate, the output says so, and how much exploration would: p_min is an option of the logged
policy, limited by its explore_share.
"""
_FRONTIER = """\
examples:
  tollway simulate frontier .tollway/journal --html frontier.html
  tollway simulate frontier .tollway/journal --policy lagrangian

Estimates four lines from one journal, with intervals: single backends; the hull, which is their
best mix and which any router must beat; the learned router at several shadow prices; and
hindsight, the same rule with the whole journal known in advance.
"""
_CAPACITY = """\
examples:
  tollway simulate capacity .tollway/journal --within 0.5
  tollway simulate capacity .tollway/journal --within 0.5 --html capacity.html \\
    --replica large:places=4,usd=2.50,spot_usd=0.90,reserved_usd=1.60
  tollway simulate capacity --tiers million
  tollway simulate capacity --tiers my.toml --set workload.rate=200000 --set CDN.keeps=500000

JOURNAL is the folder of a gateway's journal-*.jsonl, preferably of some weeks; or a CSV or Parquet
file with one row per call and columns of its backend (--arm), time and latency.

A replica is BACKEND:OPTION=VALUE,... with these options:
  places                        concurrent calls
  up                            share of the time that it is available
  usd, reserved_usd, spot_usd   dollars per hour: on demand, reserved, spot
  spot_up                       share of the time that a spot replica is available

Growth, hours of the day and days of the week are fitted if the journal is long enough. The worst
case is a quantile over many simulated futures, and waiting times come from queueing theory. The
held-out error shows how well the last day is predicted from the days before.
"""
_FIT = """\
examples:
  tollway simulate fit .tollway/journal -o world.toml
  tollway simulate run world.toml
  tollway simulate compare world.toml --policies lagrangian fixed:arm=large

The scenario has the journal's rate of requests, its daily peak and its tenants; each backend's mean
cost, its latencies as quantiles, and its quality as replay estimates it; and the share and delay of
labels. It draws the backends in the journal's shares. Add budgets and changes as you like.
"""


def add(commands: Any) -> None:
    """Add the commands."""
    summary = "estimate the quality and cost of other policies from a journal"
    command = terminal.add(commands, "replay", _lazily("replay.commands"), summary, _REPLAY)
    _add_log(command)
    command.add_argument(
        "--policy",
        action="append",
        metavar="POLICY",
        help="policy to estimate; may be repeated (default: each arm by itself)",
    )
    _add_objective(command)
    command.add_argument(
        "--alpha", type=float, default=0.05, help="intervals cover 1 - alpha (%(default)s)"
    )
    command.add_argument(
        "--interval",
        choices=sorted(METHODS),
        default="bernstein",
        help="kind of intervals (%(default)s)",
    )
    _add_outputs(command)
    _add_frontier(commands)
    _add_capacity(commands)
    _add_fit(commands)


def _add_fit(commands: Any) -> None:
    summary = "fit a scenario to a journal: its traffic, costs, latencies and qualities"
    command = terminal.add(commands, "fit", _lazily("world.fit_commands"), summary, _FIT)
    command.add_argument("journal", type=Path, metavar="JOURNAL", help="a journal")
    command.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="write the scenario to FILE"
    )
    command.add_argument(
        "--route", help="route of the journal (default: the one with most decisions)"
    )


def _add_frontier(commands: Any) -> None:
    summary = "estimate from a journal what each further point of accuracy costs"
    command = terminal.add(
        commands, "frontier", _lazily("replay.frontier_commands"), summary, _FRONTIER
    )
    _add_log(command)
    command.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="POLICY",
        help="add a policy; see replay --help",
    )
    _add_objective(command)
    _add_outputs(command)


def _add_capacity(commands: Any) -> None:
    summary = "compute how many replicas a journal's traffic needs and what they cost"
    command = terminal.add(commands, "capacity", _lazily("capacity.commands"), summary, _CAPACITY)
    command.add_argument(
        "journal", type=Path, nargs="?", metavar="JOURNAL", help="a journal or a file"
    )
    command.add_argument(
        "--tiers", metavar="FILE", help="plan a chain of tiers instead; `million` is an example"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="X=Y", help="with --tiers: set a value"
    )
    default = Columns()
    for option, name in (
        ("--arm", default.arm),
        ("--time", default.time),
        ("--latency", default.latency),
    ):
        command.add_argument(
            option, default=name, metavar="COLUMN", help=f"column of a CSV or Parquet file ({name})"
        )
    command.add_argument(
        "--replica", action="append", default=[], metavar="REPLICA", help="a replica and its prices"
    )
    for option, otherwise, what in (
        ("--within", None, "target latency in seconds (twice the latency without waiting)"),
        ("--share", 0.95, "share of calls that must meet the target (%(default)s)"),
        ("--availability", 0.999, "probability that enough replicas are up (%(default)s)"),
        ("--headroom", 0.5, "reserve above each hour's expected rate (%(default)s: 50 %%)"),
        ("--peak", 2.0, "reserve above the median hour's rate (%(default)s: 200 %%)"),
        ("--worst", 0.95, "share of futures whose highest hour meets the target (%(default)s)"),
        ("--growth", None, "growth per week, instead of the journal's (0.05: 5 %%)"),
    ):
        command.add_argument(option, type=float, default=otherwise, metavar="X", help=what)
    command.add_argument("--days", type=int, default=28, help="days to plan for (%(default)s)")
    command.add_argument("--seed", type=int, default=0, help="random seed (%(default)s)")
    _add_outputs(command)


def _add_log(command: Any) -> None:
    """Add the options that name a log and the columns of a foreign file."""
    command.add_argument("journal", type=Path, metavar="JOURNAL", help="a journal or a file")
    command.add_argument(
        "--route", help="route of the journal (default: the one with most decisions)"
    )
    default = Columns()
    for option, name, what in (
        ("--arm", default.arm, "the arm drawn"),
        ("--propensity", default.propensity, "its probability"),
        ("--quality", default.quality, "its quality, 0 to 1; empty without feedback"),
        ("--cost", default.cost, "its cost in dollars"),
        ("--time", default.time, "its time: seconds since 1970, or ISO 8601"),
        ("--latency", default.latency, "its latency in seconds"),
    ):
        command.add_argument(
            option, default=name, metavar="COLUMN", help=f"column of {what} ({name})"
        )
    command.add_argument("--features", default="", metavar="A,B", help="columns of features")
    command.add_argument(
        "--probabilities",
        default="",
        metavar="PREFIX",
        help="columns of the probabilities of all arms: PREFIX and the arm, as p_small",
    )
    command.add_argument(
        "--p-min", type=float, help="smallest probability with which the log drew any arm"
    )
    command.add_argument(
        "--cost-max-usd", type=float, help="highest cost of a request (default: the highest logged)"
    )


def _add_objective(command: Any) -> None:
    """Add the options for the objective of learning policies."""
    kinds = ("max_quality", "min_cost", "value")
    command.add_argument(
        "--objective",
        choices=kinds,
        default="max_quality",
        help="objective of learning policies (%(default)s)",
    )
    command.add_argument("--floor", type=float, help="accuracy floor of min_cost")
    command.add_argument(
        "--value-per-correct-usd", type=float, help="value of a right answer, for objective value"
    )
    command.add_argument(
        "--allowance-usd", type=float, help="mean cost allowed per request (the log's mean cost)"
    )
    command.add_argument("--seed", type=int, default=0, help="random seed (%(default)s)")


def _add_outputs(command: Any) -> None:
    """Add the options that write the results to files."""
    command.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    command.add_argument("--html", type=Path, metavar="FILE", help="write an HTML page with charts")


def _lazily(module: str) -> Callable[[argparse.Namespace, Mapping[str, str]], int]:
    """Return a command that imports its module when run, and explains a missing polars."""

    def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
        if find_spec("polars") is None:
            return terminal.fail(
                terminal.FAILED,
                "this command needs polars; in a clone of Tollway run: pip install '.[simulate]'",
            )
        try:
            with _stoppable():
                return int(import_module(f"tollway.simulations.{module}").run(arguments))
        except MemoryError:
            return terminal.fail(
                terminal.FAILED,
                "not enough memory; name fewer segments of the journal, or run where there is more",
            )

    return run


@contextmanager
def _stoppable() -> Iterator[None]:
    """End in order on SIGTERM, so that the folder of spooled logs is deleted."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
