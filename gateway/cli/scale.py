"""The command `tollway scale`: the replicas that are recommended for a backend, and why."""

import argparse
from collections.abc import Mapping
from typing import Any

from tollway.gateway.cli import terminal


def add(commands: Any) -> None:
    """Add the command."""
    actions = terminal.add_group(commands, "scale", "show how many replicas a backend needs")
    summary = "explain the recommended number of replicas of a backend, or of all"
    explain = terminal.add(actions, "explain", _explain, summary, terminal.REMOTE)
    explain.add_argument(
        "backend", nargs="?", help="the backend's name in [[scaling]]; default: all of them"
    )
    terminal.add_remote(explain)


def _explain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    remote = terminal.remote(arguments, environ)
    if arguments.backend is None:
        document = remote.get("scaling")
        stories = [one["story"] for one in document["scaling"]]
    else:
        document = remote.get("scaling", arguments.backend)
        stories = [document["story"]]
    if arguments.json:
        terminal.say_json(document)
    elif not stories:
        terminal.say("No backend is scaled: the configuration has no [[scaling]].")
    else:
        for first, *more in stories:
            terminal.say(first, *(f"  {sentence}" for sentence in more))
    return terminal.OK
