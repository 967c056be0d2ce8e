"""The command `tollway scale`: the replicas that are recommended for a backend, and why."""

import argparse
from collections.abc import Mapping
from typing import Any

from tollway.gateway.cli import terminal


def add(commands: Any) -> None:
    """Add the command."""
    actions = terminal.add_group(commands, "scale", "show how many replicas a backend needs")
    summary = "explain the recommended number of replicas of a backend"
    explain = terminal.add(actions, "explain", _explain, summary, terminal.REMOTE)
    explain.add_argument("backend", help="the backend's name in [[scaling]]")
    terminal.add_remote(explain)


def _explain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    document = terminal.remote(arguments, environ).get("scaling", arguments.backend)
    if arguments.json:
        terminal.say_json(document)
    else:
        first, *more = document["story"]
        terminal.say(first, *(f"  {sentence}" for sentence in more))
    return terminal.OK
