"""`tollway simulate rollout`: how long rollouts take to be decided, and how often they err."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

from tollway.gateway.cli import terminal
from tollway.gateway.rollouts.model import QUALITY, Criterion, Step
from tollway.gateway.wiring.rollouts.plans import CRITERIA
from tollway.simulations.rollouts import figures
from tollway.simulations.rollouts.judges import HELD, STEPS, Argo, Thresholds, Tollway
from tollway.simulations.rollouts.play import Judge, Outcome, play, seeds
from tollway.simulations.rollouts.scenarios import SCENARIOS, Scenario

_MORE = """\
examples:
  tollway simulate rollout --list                       list the scenarios
  tollway simulate rollout worse better --seeds 50      play two of them
  tollway simulate rollout same --hold --seconds 600    how often 10 % are rolled back for nothing
  tollway simulate rollout errors --argo                beside fixed thresholds
  tollway simulate rollout leak --margin 0.008          a step ends only if quality fell by less

ROLLBACK is the median time until the rollout was rolled back, P95 its 95th percentile, PROMOTION
the median time until it was promoted. HARMED counts the requests of the candidate, in the median,
that failed or were wrong where the stable version would have been right.
"""
SECONDS_MAX = 100_000


def add(commands: Any) -> None:
    """Add the command."""
    summary = "play rollouts of worse and better versions: how long until decided, how often wrong"
    command = terminal.add(commands, "rollout", _run, summary, _MORE)
    command.add_argument("scenarios", nargs="*", help="names of scenarios (default: all)")
    command.add_argument("--list", action="store_true", help="list the scenarios")
    command.add_argument("--seeds", type=int, default=20, metavar="N", help="plays of each (20)")
    command.add_argument("--seed", type=int, default=1, help="the first seed (1)")
    command.add_argument("--rate", type=float, default=200.0, help="requests a second (200)")
    command.add_argument(
        "--seconds", type=float, default=900.0, help="virtual seconds of a play at most (900)"
    )
    command.add_argument("--hold", action="store_true", help="one step of 10 %% that has no end")
    command.add_argument(
        "--margin", type=float, metavar="Q", help="margin of the quality criterion (0.02)"
    )
    command.add_argument("--argo", action="store_true", help="also play fixed thresholds")
    command.add_argument("--processes", type=int, default=1, metavar="N", help="processes (1)")
    terminal.add_json(command)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if arguments.list:
        terminal.say(*(f"{one.name:<8} {one.text}" for one in SCENARIOS.values()))
        return terminal.OK
    unknown = set(arguments.scenarios) - SCENARIOS.keys()
    if unknown:
        known = ", ".join(SCENARIOS)
        return terminal.fail(terminal.USAGE, f"no scenario {', '.join(unknown)}; there are {known}")
    if not (1 <= arguments.seeds <= 10_000 and 0 < arguments.rate <= 10_000):
        return terminal.fail(terminal.USAGE, "--seeds is 1 to 10000, and --rate up to 10000")
    if not 0 < arguments.seconds <= SECONDS_MAX:
        return terminal.fail(terminal.USAGE, f"--seconds is up to {SECONDS_MAX}")
    if arguments.margin is not None and not 0 < arguments.margin <= 1:
        return terminal.fail(terminal.USAGE, "--margin is above 0 and at most 1")
    names = arguments.scenarios or list(SCENARIOS)
    found = [
        figures.of(name, judge, many(SCENARIOS[name], judge, arguments))
        for name in names
        for judge in (["tollway", "argo"] if arguments.argo else ["tollway"])
    ]
    if arguments.json:
        terminal.say_json([one.document() for one in found])
    else:
        terminal.say(*terminal.columns([figures.HEAD, *map(figures.row, found)]))
    return terminal.OK


def many(scenario: Scenario, judge: str, arguments: argparse.Namespace) -> list[Outcome]:
    """Return the outcomes of a scenario with each seed."""
    one = partial(
        played,
        scenario,
        judge,
        HELD if arguments.hold else STEPS,
        arguments.rate,
        arguments.seconds,
        arguments.margin,
    )
    chosen = seeds(arguments.seed, arguments.seeds)
    if arguments.processes <= 1:
        return list(map(one, chosen))
    with get_context("spawn").Pool(arguments.processes) as pool:
        return pool.map(one, chosen, chunksize=1)


def played(  # noqa: PLR0917 - the last is the seed, which `map` gives
    scenario: Scenario,
    name: str,
    steps: tuple[Step, ...],
    rate: float,
    most_s: float,
    margin: float | None,
    seed: int,
) -> Outcome:
    """Play one rollout; `margin`: of the quality criterion, None for the default."""
    criteria: tuple[Criterion, ...] = CRITERIA
    if margin is not None:
        criteria = tuple(
            [replace(one, margin=margin) if one.metric == QUALITY else one for one in CRITERIA]
        )
    judge: Judge = Tollway(steps, criteria)
    if name == "argo":
        judge = Argo(Thresholds.of(scenario.stable), steps)
    return play(scenario, judge, seed=seed, rate=rate, most_s=most_s)
