"""The command line of simulations: `tollway simulate COMMAND`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from tollway.gateway.cli import terminal
from tollway.simulations import journal_commands
from tollway.simulations.rollouts import commands as rollout_commands
from tollway.simulations.world import commands as world_commands

_EXAMPLES = """\
examples:
  tollway simulate run --list                  list the included scenarios
  tollway simulate run steady --html a.html    simulate a scenario and write a page about it
  tollway simulate replay .tollway/journal     estimate quality and cost of each single backend
  tollway simulate capacity .tollway/journal   compute how many replicas the traffic needs
  tollway simulate fit .tollway/journal -o world.toml   make a scenario from a journal
  tollway simulate rollout worse better        play rollouts of worse and better versions
"""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command and return its exit code; SystemExit(2) if the command line is wrong."""
    parser = argparse.ArgumentParser(
        prog="tollway simulate",
        description="Estimate what a policy would do before you deploy it.",
        epilog=f"{_EXAMPLES}\n{terminal.EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add(parser.add_subparsers(title="commands", metavar="COMMAND", required=True))
    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments, environ))


def add(commands: Any) -> None:
    """Add the commands; each group has its own module."""
    world_commands.add(commands)
    journal_commands.add(commands)
    rollout_commands.add(commands)
