"""The implementation of `tollway simulate replay`; its options are in journal_commands.py."""

import argparse
from dataclasses import asdict

import orjson

from tollway.gateway.cli import terminal
from tollway.policies.types import Objective
from tollway.simulations.replay import log_files, replay, targets
from tollway.simulations.replay import page as replay_page
from tollway.simulations.replay.bounded import Bounded
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.estimators import Estimate, Refused
from tollway.simulations.replay.logs import BadLog, Log
from tollway.simulations.replay.scratch import Scratch
from tollway.simulations.report import page as report


def read(arguments: argparse.Namespace, scratch: Scratch) -> Log:
    """Return the log that the arguments name."""
    columns = Columns(
        arm=arguments.arm,
        propensity=arguments.propensity,
        quality=arguments.quality,
        cost=arguments.cost,
        time=arguments.time,
        latency=arguments.latency,
        features=tuple(filter(None, arguments.features.split(","))),
        probabilities=arguments.probabilities,
    )
    return log_files.read(arguments.journal, scratch, columns, route=arguments.route)


def parsed(arguments: argparse.Namespace, log: Log, text: str) -> targets.Target:
    """Return the policy that a text names, with its objective."""
    objective = Objective(
        arguments.objective, arguments.floor, arguments.value_per_correct_usd, baseline=None
    )
    allowance = arguments.allowance_usd
    if allowance is None and arguments.objective == "max_quality":
        allowance = float(log.total_usd.mean())
    return targets.parse(text, objective, allowance, arguments.seed)


def run(arguments: argparse.Namespace) -> int:
    """Estimate from a log the quality and cost of other policies, and print them."""
    scratch = Scratch()  # the log is read from there until the end
    try:
        log = read(arguments, scratch)
        asked = (
            [parsed(arguments, log, text) for text in arguments.policy]
            if arguments.policy
            else replay.fixed(log)
        )
        options = replay.Options(
            arguments.alpha, arguments.interval, arguments.p_min, arguments.cost_max_usd
        )
        replayed = replay.Replay(log, options)
        outcomes = [
            replayed.logged(),
            *(replayed.ask(one) for one in asked if one.name != "logged"),
        ]
    except BadLog as exc:
        return terminal.fail(terminal.FAILED, str(exc))
    notes = replayed.notes()
    terminal.say(*lines(outcomes), *notes_lines(outcomes, notes))
    if arguments.json is not None:
        arguments.json.write_bytes(document(log, outcomes, notes))
    if arguments.html is not None:
        report.write(arguments.html, replay_page.page(log, outcomes, notes, arguments.alpha))
    return terminal.OK


# -- output


def interval(answer: Estimate | Refused, digits: int) -> str:
    """Return a value with the ends of its interval, or bounds; a dash if there is neither."""
    if isinstance(answer, Bounded):
        return f"{answer.low:.{digits}f} to {answer.high:.{digits}f}"
    if isinstance(answer, Refused):
        return "-"
    if by_quotes(answer):
        return f"{answer.value:.{digits}f} by quotes"
    return f"{answer.value:.{digits}f} [{answer.low:.{digits}f}, {answer.high:.{digits}f}]"


def by_quotes(answer: Estimate | Refused) -> bool:
    """Return whether a cost is by the logged quotes alone."""
    return isinstance(answer, Estimate) and answer.basis == "quotes"


def per_thousand(answer: Estimate | Refused) -> Estimate | Refused:
    """Return a cost per thousand requests, which is easier to read."""
    return answer if isinstance(answer, Refused) else answer.scaled(1000.0)


def lines(outcomes: list[replay.Outcome]) -> list[str]:
    """Return the table of outcomes."""
    rows = [("POLICY", "QUALITY", "GAIN", "$ PER 1000", "SAVING", "ESS")]
    for one in outcomes:
        ess = f"{one.quality.ess:.0f}"
        saving = "-" if one.saving is None else "{:.1%} [{:.1%}, {:.1%}]".format(*one.saving)
        if one.saving is not None and by_quotes(one.cost_usd):
            saving = f"{one.saving[0]:.1%} by quotes"
        if one.label == "logged":
            saving = ""
        rows.append(
            (
                one.label,
                interval(one.quality, 4),
                "" if one.label == "logged" else interval(one.quality_gain, 4),
                interval(per_thousand(one.cost_usd), 4),
                saving,
                ess,
            )
        )
    return terminal.columns(rows)


def notes_lines(outcomes: list[replay.Outcome], notes: list[str]) -> list[str]:
    """Return the lines below the table: refusals with a remedy, then notes."""
    refused = [
        f"{one.label}: {stated(one.quality)}"
        for one in outcomes
        if isinstance(one.quality, Refused)
    ]
    return [*refused, *(f"note: {note}" for note in notes)]


def stated(answer: Refused) -> str:
    """Return bounds, or that there is no estimate, with the reason and a remedy."""
    return f"quality {answer}" if isinstance(answer, Bounded) else f"no estimate: {answer}"


def _said(answer: Estimate | Refused) -> dict[str, str]:
    return {"says": stated(answer)} if isinstance(answer, Refused) else {}


def document(log: Log, outcomes: list[replay.Outcome], notes: list[str]) -> bytes:
    """Return the outcomes as JSON; a refusal has `why`, its bounds, and `says` in words."""
    members = {
        "decisions": len(log),
        "arms": log.arms,
        "excluded": log.excluded,
        "notes": notes,
        "policies": [{**asdict(one), **_said(one.quality)} for one in outcomes],
    }
    return orjson.dumps(members, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
