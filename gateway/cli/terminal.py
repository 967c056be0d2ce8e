"""Helpers that the commands share: exit codes, common options and output."""

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
  1  failed; the reason is on stderr
  2  the command line or the configuration is wrong; every problem is listed on stderr
  3  no gateway answered at the address given
"""

REMOTE = """\
Set the gateway's address with --url or TOLLWAY_URL, and its admin key with TOLLWAY_KEY or --key
(other users of this machine can see --key in the process list).
"""


def add(commands: Any, name: str, run: Any, summary: str, more: str = "") -> Any:
    """Add a command that calls `run`; `more` is printed below its options in --help."""
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
    """Add the --json option to a command."""
    command.add_argument("--json", action="store_true", help="print JSON")


def add_remote(command: Any) -> None:
    """Add the options that select a running gateway."""
    add_json(command)
    command.add_argument("--url", help="the gateway's address (http://127.0.0.1:8080)")
    command.add_argument("--key", help="the admin key; prefer TOLLWAY_KEY")


def remote(arguments: argparse.Namespace, environ: Mapping[str, str]) -> ControlClient:
    """Return a client for the gateway that the options or the environment select."""
    url = arguments.url or environ.get("TOLLWAY_URL") or "http://127.0.0.1:8080"
    return ControlClient(url, arguments.key or environ.get("TOLLWAY_KEY"))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # The first three columns are text (left-aligned), the others amounts (right-aligned).
    padded = [
        [cell.ljust(width) if at < 3 else cell.rjust(width) for at, (cell, width) in enumerate(row)]
        for row in (zip(row, widths, strict=True) for row in rows)
    ]
    return ["  ".join(cells).rstrip() for cells in padded]


def say(*lines: str) -> None:
    """Print lines."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def say_json(document: Any) -> None:
    """Print a document as indented JSON."""
    say(json.dumps(document, indent=2, ensure_ascii=False))


def fail(code: int, *lines: str) -> int:
    """Print error lines to stderr and return the exit code."""
    sys.stderr.writelines(f"{line}\n" for line in lines)
    return code
