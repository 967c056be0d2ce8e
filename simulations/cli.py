"""The command line of simulations: `tollway simulate COMMAND`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from tollway.gateway.cli import terminal
from tollway.simulations import journal_commands
from tollway.simulations.world import commands as world_commands

_EXAMPLES = """\
  tollway simulate run --list               the scenarios that come with Tollway
  tollway simulate run steady --html a.html see what a policy would do, before it does it
  tollway simulate replay .tollway/journal   what each backend alone would have given
  tollway simulate capacity .tollway/journal how many replicas its traffic needs
"""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command and return its exit code; SystemExit(2) if the command line is wrong."""
    parser = argparse.ArgumentParser(
        prog="tollway simulate",
        description="See what a policy would do before it does it.",
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
