"""`tollway rollout ...`: show and operate rollouts of a running gateway."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tollway.gateway.cli import terminal

_ACTS = """\
Every act records who did it (--who, by default your login name) and why, in the audit log and in
the rollout's history. `promote` and `abort` act at once, whatever the evidence says.
"""
_VERBS = {
    "start": "start a rollout at its first step",
    "pause": "hold a rollout at its weight; a breach still rolls it back",
    "resume": "go on after a pause, or after a step that lasts until it is resumed",
    "promote": "send everything to the candidate now",
    "abort": "send everything to the stable version now; also after a promotion, while it is warm",
}


def add(commands: Any) -> None:
    """Add the command and its subcommands."""
    summary = "roll out a new version step by step: see, start, pause, promote, abort"
    actions = terminal.add_group(commands, "rollout", summary)
    terminal.add_remote(terminal.add(actions, "list", _list, "list all rollouts", terminal.REMOTE))
    for name, run, text in (
        ("status", _status, "show a rollout: step, weight, evidence, and what it waits for"),
        ("history", _history, "show the moves of a rollout, by whom and why"),
    ):
        _named(terminal.add(actions, name, run, text, terminal.REMOTE))
    for verb, text in _VERBS.items():
        command = _named(terminal.add(actions, verb, _act, text, f"{_ACTS}\n{terminal.REMOTE}"))
        command.set_defaults(verb=verb)
        command.add_argument("--why", required=True, help="the reason, which is recorded")
        command.add_argument("--who", default=None, help="who acts (default: your login name)")


def _named(command: Any) -> Any:
    command.add_argument("name", help="the rollout's name")
    terminal.add_remote(command)
    return command


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    rollouts = terminal.remote(arguments, environ).get("rollouts")["rollouts"]
    if arguments.json:
        terminal.say_json(rollouts)
        return terminal.OK
    rows = [("ROLLOUT", "STRATEGY", "PHASE", "STEP", "WEIGHT")]
    for one in rollouts:
        step = "-" if one["step"] is None else f"{one['step'] + 1}/{len(one['steps'])}"
        rows.append((one["name"], one["strategy"], one["phase"], step, f"{one['weight']:.0%}"))
    terminal.say(*terminal.columns(rows))
    return terminal.OK


def _status(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _print(arguments, terminal.remote(arguments, environ).get("rollouts", arguments.name))


def _act(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    who = arguments.who or terminal.operator().who
    document = {"action": arguments.verb, "who": who, "why": arguments.why}
    client = terminal.remote(arguments, environ)
    return _print(arguments, client.post(document, "rollouts", arguments.name))


def _print(arguments: argparse.Namespace, one: Any) -> int:
    if arguments.json:
        terminal.say_json(one)
        return terminal.OK
    step = "" if one["step"] is None else f", step {one['step'] + 1} of {len(one['steps'])}"
    terminal.say(
        f"{one['name']}: {one['phase']}{step}; {one['candidate']} gets {one['weight']:.0%} of "
        f"{one['backend']}"
    )
    if one["why"]:
        terminal.say(f"  {one['by']}: {one['why']}")
    for criterion in one["criteria"]:
        measure = one["measures"].get(criterion["metric"])
        if measure is not None:
            terminal.say(f"  {sentence(criterion, measure)}")
    if one["waiting"]:
        terminal.say("  waits for:", *(f"    {why}" for why in one["waiting"]))
    return terminal.OK


def sentence(criterion: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    """Return what is known of one metric, in a sentence."""
    against = max(measure["log_evidence"], measure["over_limit"]) / criterion["alarm"]
    return (
        f"{measure['metric']}: {measure['candidate']:.4g} against {measure['stable']:.4g}, "
        f"difference {measure['difference']:+.3g} (between {measure['low']:+.3g} and "
        f"{measure['high']:+.3g}), {measure['candidate_count']} observations; evidence against it "
        f"{max(against, 0.0):.0%} of what stops it"
    )


def _history(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    moves = terminal.remote(arguments, environ).get("rollouts", arguments.name, "history")
    if arguments.json:
        terminal.say_json(moves["history"])
        return terminal.OK
    for move in moves["history"]:
        at = datetime.fromtimestamp(move["time"], UTC).isoformat(timespec="seconds")
        terminal.say(f"{at}  {move['kind']:<16} {move['weight']:>4.0%}  {move['who']}")
        terminal.say(f"    {move['why']}")
    return terminal.OK
