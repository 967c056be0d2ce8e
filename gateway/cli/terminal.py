"""What the commands share: exit codes, options, and how they speak."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tollway.gateway.cli.client import ControlClient

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3

EXIT_CODES = """\
exit codes:
  0  done
  1  failed; what failed is said on stderr
  2  the command line or the configuration is wrong; every problem is listed on stderr
  3  no gateway answered at the address given
"""

REMOTE = """\
The gateway's address is --url or TOLLWAY_URL; its admin key TOLLWAY_KEY or --key (which others on
this machine can see in the list of processes).
"""


def add(commands: Any, name: str, run: Any, summary: str, more: str = "") -> Any:
    """Add a command that `run` carries out; `more` stands below its options in --help."""
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"{more}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def add_json(command: Any) -> None:
    """Let a command print JSON."""
    command.add_argument("--json", action="store_true", help="print JSON")


def add_remote(command: Any) -> None:
    """Let a command be told which gateway to ask."""
    add_json(command)
    command.add_argument("--url", help="the gateway's address (http://127.0.0.1:8080)")
    command.add_argument("--key", help="the admin key; better set as TOLLWAY_KEY")


def remote(arguments: argparse.Namespace, environ: Mapping[str, str]) -> ControlClient:
    """Return the gateway that was named, by option or by environment."""
    url = arguments.url or environ.get("TOLLWAY_URL") or "http://127.0.0.1:8080"
    return ControlClient(url, arguments.key or environ.get("TOLLWAY_KEY"))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with their cells below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # The first three columns are words, the others amounts: these end at the same place.
    padded = [
        [cell.ljust(width) if at < 3 else cell.rjust(width) for at, (cell, width) in enumerate(row)]
        for row in (zip(row, widths, strict=True) for row in rows)
    ]
    return ["  ".join(cells).rstrip() for cells in padded]


def say(*lines: str) -> None:
    """Print lines."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def say_json(document: Any) -> None:
    """Print a document, for people and programs alike."""
    say(json.dumps(document, indent=2, ensure_ascii=False))


def fail(code: int, *lines: str) -> int:
    """Say what failed on stderr, and return the exit code."""
    sys.stderr.writelines(f"{line}\n" for line in lines)
    return code
