"""`tollway simulate replay | frontier | capacity`: the command lines that analyse a journal.

This module defines their options. Their implementations are imported when they run, because they
need polars.
"""

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tollway.gateway.cli import terminal
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.intervals import METHODS

_REPLAY = """\
JOURNAL is the folder of a gateway's journal-*.jsonl (or the folder above), one of these files, a
file of Vowpal Wabbit's dsjson, a CSV or Parquet file, or one of the Open Bandit Dataset:
  tollway simulate replay .tollway/journal                   every arm by itself
  tollway simulate replay .tollway/journal --policy fixed:arm=cpu --policy weighted:cpu=9,gpu=1
  tollway simulate replay .tollway/journal --policy lagrangian:p_min=0.02 --html replay.html
  tollway simulate replay log.parquet --arm model --propensity p --quality reward --cost usd
A policy is NAME or NAME:OPTION=VALUE,...; options are those of policy_options in tollway.toml.
One that learns is taught by the log's feedback, in its order, when it was told.

Each figure has a 95 % interval that holds at small samples. Where the log cannot support an answer
it says so, and how much exploration would: p_min is an option of the policy that is logged, and
holds within its explore_share.
"""
_FRONTIER = """\
Four lines, each with intervals, from one journal: every backend by itself; the hull, which is their
best mix and the bar for any router; the learned router at several shadow prices; and hindsight,
the same rule with all of the journal known.
  tollway simulate frontier .tollway/journal --html frontier.html
  tollway simulate frontier .tollway/journal --policy lagrangian
"""
_CAPACITY = """\
JOURNAL is the folder of a gateway's journal-*.jsonl, best of some weeks; or a CSV or Parquet file
of one row a call, with columns of its backend (--arm), time and latency:
  tollway simulate capacity .tollway/journal --within 0.5
  tollway simulate capacity .tollway/journal --within 0.5 --html capacity.html \\
    --replica large:places=4,usd=2.50,spot_usd=0.90,reserved_usd=1.60
A replica is BACKEND:OPTION=VALUE,... with the options places (calls at once), up (share of time),
usd, spot_usd and reserved_usd (dollars an hour), spot_up (share of time that a spot one is there).

Growth, hours of the day and days of the week are fitted where the journal is long enough to tell
them; the worst case is that of many futures; waiting is by queueing theory. How well the last day
is foretold from those before is told too.
"""


def add(commands: Any) -> None:
    """Add the commands."""
    summary = "say what other policies would have given and cost, from a journal"
    command = terminal.add(commands, "replay", _lazily("replay.commands"), summary, _REPLAY)
    _add_log(command)
    command.add_argument(
        "--policy",
        action="append",
        metavar="POLICY",
        help="ask about it; may be repeated (default: each arm by itself)",
    )
    _add_objective(command)
    command.add_argument("--alpha", type=float, default=0.05, help="what may miss (%(default)s)")
    command.add_argument(
        "--interval", choices=sorted(METHODS), default="bernstein", help="(%(default)s)"
    )
    _add_outputs(command)
    _add_frontier(commands)
    _add_capacity(commands)


def _add_frontier(commands: Any) -> None:
    summary = "say what each further point of accuracy costs, from a journal"
    command = terminal.add(
        commands, "frontier", _lazily("replay.frontier_commands"), summary, _FRONTIER
    )
    _add_log(command)
    command.add_argument(
        "--policy", action="append", default=[], metavar="POLICY", help="show it too; see replay"
    )
    _add_objective(command)
    _add_outputs(command)


def _add_capacity(commands: Any) -> None:
    summary = "say how many replicas a journal's traffic needs, and what they cost"
    command = terminal.add(commands, "capacity", _lazily("capacity.commands"), summary, _CAPACITY)
    command.add_argument("journal", type=Path, metavar="JOURNAL", help="a journal or a file")
    default = Columns()
    for option, name in (
        ("--arm", default.arm),
        ("--time", default.time),
        ("--latency", default.latency),
    ):
        command.add_argument(option, default=name, metavar="COLUMN", help=f"of a file ({name})")
    command.add_argument(
        "--replica", action="append", default=[], metavar="REPLICA", help="what can be rented"
    )
    for option, otherwise, what in (
        ("--within", None, "seconds that calls may take (twice what they take by themselves)"),
        ("--share", 0.95, "of the calls, within that time (%(default)s)"),
        ("--availability", 0.999, "of enough replicas (%(default)s)"),
        ("--headroom", 0.5, "above each hour's expected rate (%(default)s: 50 %%)"),
        ("--peak", 2.0, "above the usual hour's rate, at the top (%(default)s: 200 %%)"),
        ("--worst", 0.95, "of the futures, whose highest hour is held (%(default)s)"),
        ("--growth", None, "a week, instead of the journal's (0.05: 5 %%)"),
    ):
        command.add_argument(option, type=float, default=otherwise, metavar="X", help=what)
    command.add_argument("--days", type=int, default=28, help="to plan for (%(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of the futures (%(default)s)")
    _add_outputs(command)


def _add_log(command: Any) -> None:
    """Add the options that name a log and the columns of a foreign file."""
    command.add_argument("journal", type=Path, metavar="JOURNAL", help="a journal or a file")
    command.add_argument("--route", help="of a journal; default: the one with most decisions")
    default = Columns()
    for option, name, what in (
        ("--arm", default.arm, "the arm drawn"),
        ("--propensity", default.propensity, "its probability"),
        ("--quality", default.quality, "its quality, 0 to 1; empty where it was not told"),
        ("--cost", default.cost, "its cost in dollars"),
        ("--time", default.time, "seconds since 1970, or ISO 8601"),
        ("--latency", default.latency, "seconds"),
    ):
        command.add_argument(
            option, default=name, metavar="COLUMN", help=f"column of {what} ({name})"
        )
    command.add_argument("--features", default="", metavar="A,B", help="columns of numbers")
    command.add_argument(
        "--p-min", type=float, help="the least probability that any arm was drawn with"
    )
    command.add_argument(
        "--cost-max-usd", type=float, help="highest cost of a request (default: the highest logged)"
    )


def _add_objective(command: Any) -> None:
    """Add the options for the objective of learning policies."""
    kinds = ("max_quality", "min_cost", "value")
    command.add_argument("--objective", choices=kinds, default="max_quality", help="(%(default)s)")
    command.add_argument("--floor", type=float, help="the accuracy that min_cost must hold")
    command.add_argument("--value-per-correct-usd", type=float, help="what value is worth")
    command.add_argument(
        "--allowance-usd", type=float, help="what a request may cost (what the log's did)"
    )
    command.add_argument("--seed", type=int, default=0, help="of policies that draw (%(default)s)")


def _add_outputs(command: Any) -> None:
    """Add the options that write the results to files."""
    command.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    command.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures")


def _lazily(module: str) -> Callable[[argparse.Namespace, Mapping[str, str]], int]:
    """Return a command that imports its module when run, and explains a missing polars."""

    def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
        if find_spec("polars") is None:
            return terminal.fail(
                terminal.FAILED,
                "needs polars; install it in a clone of Tollway: pip install '.[simulate]'",
            )
        return int(import_module(f"tollway.simulations.{module}").run(arguments))

    return run
