"""Estimates from a journal what other policies would have given and cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import polars as pl

from tollway.policies.types import Objective
from tollway.simulations.replay import log_files, targets
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.replay import Options, Outcome, Replay, fixed
from tollway.simulations.replay.scratch import Scratch


@dataclass(frozen=True, slots=True)
class Replayed:
    """The outcomes of a replay, the logged one first, and notes on what the log leaves out."""

    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]


def read_decisions(path: str | PathLike[str], *, route: str | None = None) -> pl.DataFrame:
    """Return logged feedback as a table, one row per decision of a route, oldest first.

    `route` defaults to the one with the most decisions. The columns include `id`, `time`, `arm`
    (drawn), `arms` and `pmf` (offered, and their probabilities), `propensity`, `cost_usd` and
    `total_usd`, `latency_s`, and `quality` (null without feedback). Decisions that were not drawn
    as logged are left out, as in `replay`. The table must fit in memory; `read_journal` streams.

    ValueError if there is no journal or no decision of the route.
    """
    scratch = Scratch()  # a folder that exists as long as this object
    log = log_files.read(Path(path), scratch, Columns(), route=route)
    assert log.path is not None
    return pl.read_parquet(log.path)


def replay(
    path: str | PathLike[str],
    policies: Sequence[str] = (),
    *,
    route: str | None = None,
    objective: Objective = targets.BEST,
    allowance_usd: float | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Replayed:
    """Estimate what policies would have given and cost, from a journal that another policy drew.

    The same as `tollway simulate replay`. `policies` are written `NAME` or `NAME:OPTION=VALUE,...`,
    such as `fixed:arm=cpu`; without any, each arm is estimated by itself. `objective` and
    `allowance_usd` (dollars per request) are for policies that learn; with `max_quality` the
    allowance defaults to the mean cost that was logged. Intervals miss with probability `alpha`.

    An outcome's `quality` and `cost_usd` (per request) are each an `Estimate`, or a `Refused` where
    the log cannot support one. A quality that is `Bounded`, which is a `Refused` too, has the ends
    `low` and `high` that the true value lies between; a cost may be by quotes (`basis`).

    ValueError if there is no journal, too few labels, or an unknown policy.
    """
    scratch = Scratch()  # the log is read from there until the end
    log = log_files.read(Path(path), scratch, Columns(), route=route)
    if allowance_usd is None and objective.kind == "max_quality":
        allowance_usd = float(log.total_usd.mean())
    asked = [targets.parse(text, objective, allowance_usd, seed) for text in policies]
    found = Replay(log, Options(alpha=alpha))
    outcomes = [found.ask(one) for one in asked or fixed(log) if one.name != "logged"]
    return Replayed((found.logged(), *outcomes), tuple(found.notes()))
