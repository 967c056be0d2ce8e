"""`tollway simulate run | compare | sweep`: the command lines that run scenarios."""

import argparse
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tollway.gateway.cli import terminal
from tollway.gateway.settings.errors import ConfigError, Problem, did_you_mean
from tollway.policies.registry import POLICIES
from tollway.simulations import options
from tollway.simulations.report import page as report
from tollway.simulations.report import pages
from tollway.simulations.report import summary as telling
from tollway.simulations.world import engine, grid, results, scenario_file
from tollway.simulations.world.progress import Progress

_RUN = """\
examples:
  tollway simulate run steady --html steady.html
  tollway simulate run my.toml --seed 2 --set backends.large.price.per_request_usd=0.0005
  tollway simulate run --all --seeds 5          all included scenarios, one line each

A scenario is a TOML file, or the name of an included one (--list shows them). The gateway's own
code runs in virtual time. The same seed gives the same results on any machine.
"""
_COMPARE = """\
examples:
  tollway simulate compare price-cut --policies lagrangian fixed:arm=large cheapest
  tollway simulate compare steady --policies lagrangian lagrangian:explore_scale=1 --seeds 20

A policy is NAME or NAME:OPTION=VALUE,... with the options of policy_options in tollway.toml. All
policies get the same requests with the same random outcomes, so differences are paired by seed.
"""
_SWEEP = """\
example:
  tollway simulate sweep steady --grid labels.share=0.01,0.1,1 --grid budgets.day.limit_usd=10,30

With --out, finished runs are stored, and an interrupted sweep continues where it stopped.
"""


def add(commands: Any) -> None:
    """Add the commands."""
    run = terminal.add(commands, "run", _run, "run a scenario and report the results", _RUN)
    run.add_argument("scenario", nargs="*", help="a scenario's file or name")
    run.add_argument("--all", action="store_true", help="run all included scenarios")
    run.add_argument("--list", action="store_true", help="list the included scenarios and exit")
    run.add_argument(
        "--journal", type=Path, metavar="DIR", help="write the gateways' journals to this folder"
    )
    run.add_argument("--seed", type=int, help="override the scenario's seed")
    run.add_argument(
        "--policy", metavar="POLICY", help="override the scenario's policy; see compare --help"
    )
    run.add_argument(
        "--markdown", action="store_true", help="print the table of several runs as Markdown"
    )
    _shared(run)

    summary = "compare policies on the same requests"
    compare = terminal.add(commands, "compare", _compare, summary, _COMPARE)
    compare.add_argument("scenario", help="a scenario's file or name")
    compare.add_argument(
        "--policies", nargs="+", required=True, metavar="POLICY", help="the policies to compare"
    )
    _shared(compare, seeds=5)

    sweep = terminal.add(
        commands, "sweep", _sweep, "run a scenario with every combination of some values", _SWEEP
    )
    sweep.add_argument("scenario", help="a scenario's file or name")
    sweep.add_argument(
        "--grid", action="append", required=True, metavar="KEY=V1,V2", help="values of a key"
    )
    _shared(sweep, seeds=3)


def _shared(command: Any, seeds: int = 1) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set a scenario's key"
    )
    command.add_argument(
        "--seeds",
        type=_count,
        default=seeds,
        metavar="N",
        help=f"runs per cell, each with its own seed ({seeds})",
    )
    command.add_argument(
        "--workers",
        type=_count,
        default=_cores(),
        metavar="N",
        help="number of processes (one per core)",
    )
    command.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="where runs execute (local)"
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="store results and resume from them"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    command.add_argument("--html", type=Path, metavar="FILE", help="write an HTML page with charts")


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return count


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- run


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if arguments.list:
        scenarios = [(name, scenario_file.load(name).about) for name in scenario_file.shipped()]
        terminal.say(*terminal.columns(scenarios))
        return terminal.OK
    names = scenario_file.shipped() if arguments.all else arguments.scenario
    if not names:
        return terminal.fail(terminal.USAGE, "name a scenario or add --all; --list shows the names")
    changes = _changes(arguments)
    if arguments.policy:
        changes |= policy(arguments.policy)
    if len(names) > 1 or arguments.seeds > 1:
        return _overview(arguments, names, changes)
    return _one(arguments, names[0], changes)


def _one(arguments: argparse.Namespace, name: str, changes: dict[str, Any]) -> int:
    with grid.quiet():
        world = scenario_file.load(name, changes)
        run = engine.run(world, seed=arguments.seed, journal=arguments.journal)
    result = results.summarise(run)
    terminal.say(*telling.run_lines(result))
    _write(arguments, result, lambda: telling.run_page(result))
    return terminal.OK


def _overview(arguments: argparse.Namespace, names: list[str], changes: dict[str, Any]) -> int:
    seeds = _seeds(arguments, names[0])
    wanted = grid.cells(names, seeds, [("changes", [("", changes)])] if changes else [])
    results = _cells(arguments, wanted)
    by_scenario: dict[str, list[Any]] = {}
    for cell, result in zip(wanted, results, strict=True):
        by_scenario.setdefault(cell.scenario, []).append(result)
    rows = pages.overview_rows(by_scenario)
    _say_rows(rows, arguments.markdown)
    _write(arguments, results, lambda: pages.overview_page(by_scenario))
    return terminal.OK


# -- compare


def _compare(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    base = _changes(arguments)
    chosen = [(text, base | policy(text)) for text in arguments.policies]
    seeds = _seeds(arguments, arguments.scenario)
    wanted = grid.cells([arguments.scenario], seeds, [("policy", chosen)])
    results = _cells(arguments, wanted)
    by_policy = {place[0]: runs for place, runs in pages.grouped(wanted, results).items()}
    _say_rows(pages.compare_rows(by_policy), False)
    _write(
        arguments,
        [grid.flat(cell, result) for cell, result in zip(wanted, results, strict=True)],
        lambda: pages.compare_page(results[0]["scenario"], results[0]["about"], by_policy),
    )
    return terminal.OK


def policy(text: str) -> dict[str, Any]:
    """Return the changes that set a scenario's policy to `NAME:OPTION=VALUE,...`."""
    try:
        name, values = options.policy(text)
    except ValueError as exc:
        raise ConfigError([Problem("command line", "policy", str(exc), repr(text))]) from None
    if name not in POLICIES:
        why = did_you_mean(name, POLICIES)
        raise ConfigError([Problem("command line", "policy", why, repr(name))])
    cascade = name == "cascade"
    return {
        "route.policy": "lagrangian" if cascade else name,
        "route.cascade": cascade,
        "route.policy_options": values,
    }


# -- sweep


def _sweep(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    base = _changes(arguments)
    axes = []
    for number, text in enumerate(arguments.grid):
        key, values = _pair(text, "--grid")
        changes = [
            (value, {**(base if not number else {}), key: options.value(value)}) for value in values
        ]
        axes.append((key, changes))
    wanted = grid.cells([arguments.scenario], _seeds(arguments, arguments.scenario), axes)
    results = _cells(arguments, wanted)
    groups = pages.grouped(wanted, results)
    names = [key for key, _ in axes]
    _say_rows(pages.sweep_rows(names, groups), False)
    _write(
        arguments,
        [grid.flat(cell, result) for cell, result in zip(wanted, results, strict=True)],
        lambda: pages.sweep_page(arguments.scenario, names, groups),
    )
    return terminal.OK


def _pair(text: str, option: str) -> tuple[str, list[str]]:
    key, separator, values = text.partition("=")
    if not separator or not values:
        why = f"write it like {option} labels.share=0.01,0.1"
        raise ConfigError([Problem("command line", option, why, repr(text))])
    return key, values.split(",")


# -- shared


def _changes(arguments: argparse.Namespace) -> dict[str, Any]:
    changes = {}
    for text in arguments.set:
        key, separator, value = text.partition("=")
        if not separator:
            why = "write it like --set labels.share=0.2"
            raise ConfigError([Problem("command line", "--set", why, repr(text))])
        changes[key] = options.value(value)
    return changes


def _seeds(arguments: argparse.Namespace, name: str) -> list[int]:
    given = getattr(arguments, "seed", None)
    first = scenario_file.load(name).seed if given is None else given
    return list(range(first, first + arguments.seeds))


def _cells(arguments: argparse.Namespace, wanted: list[grid.Cell]) -> list[Any]:
    """Run cells; with --out, store them there and write them as one table."""
    if arguments.out is not None and find_spec("polars") is None:
        raise ConfigError([_missing("--out", "polars", "simulate")])
    if arguments.engine == "ray" and find_spec("ray") is None:
        raise ConfigError([_missing("--engine ray", "ray", "ray")])
    parts = None if arguments.out is None else arguments.out / "parts"
    with Progress() as progress:
        results = grid.run(
            wanted,
            parts=parts,
            workers=arguments.workers,
            on=arguments.engine,
            done=progress,
        )
    if arguments.out is not None:
        grid.write_parquet(arguments.out / "results.parquet", wanted, results)
    return results


def _missing(option: str, library: str, extra: str) -> Problem:
    why = f"needs {library}; in a clone of Tollway run: pip install '.[{extra}]'"
    return Problem("command line", option, why)


def _say_rows(rows: Any, markdown: bool) -> None:
    terminal.say(*(pages.markdown(rows) if markdown else terminal.columns(rows)))


def _write(arguments: argparse.Namespace, document: Any, page: Any) -> None:
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_bytes(results.to_json(document))
    if arguments.html is not None:
        report.write(arguments.html, page())
