"""Helpers that the commands share: exit codes, common options and output."""

import argparse
import getpass
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tollway.gateway.cli.client import ControlClient
from tollway.gateway.security import admin_key
from tollway.gateway.security.addresses import is_loopback
from tollway.gateway.storage.audit_log import MACHINE, Actor

_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
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
(other users of this machine can see --key in the process list). If none is set and the gateway is
on this machine, the key that it made is read from the file that TOLLWAY_KEY_FILE names, by default
.tollway/state/admin.key.
"""


_KEY_FILE = f".tollway/state/{admin_key.NAME}"
"""Where a gateway with the default settings keeps the key, from the folder of its configuration."""


def add(commands: Any, name: str, run: Any, summary: str, more: str = "") -> Any:
    """Add a command that calls `run`; `more` is printed below its options in --help."""
    command = _add(commands, name, summary, f"{more}\n{EXIT_CODES}")
    command.set_defaults(run=run)
    return command


def add_group(commands: Any, name: str, summary: str, more: str | None = None) -> Any:
    """Add a command that has actions, and return them, to `add` to."""
    command = _add(commands, name, summary, more)
    return command.add_subparsers(title="actions", metavar="ACTION", required=True)


def _add(commands: Any, name: str, summary: str, more: str | None) -> Any:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_json(command: Any) -> None:
    """Add the --json option to a command."""
    command.add_argument("--json", action="store_true", help="print JSON")


def age_s(text: str) -> float:
    """Return an age in seconds, written as 30m, 12h, 7d or 4w; the type of an option."""
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 30m, 12h, 7d or 4w")
    return int(found[1]) * _UNITS_S[found[2]]


def add_remote(command: Any) -> None:
    """Add the options that select a running gateway."""
    add_json(command)
    command.add_argument("--url", help="the gateway's address (http://127.0.0.1:8080)")
    command.add_argument("--key", help="the admin key; prefer TOLLWAY_KEY")


def remote(arguments: argparse.Namespace, environ: Mapping[str, str]) -> ControlClient:
    """Return a client for the gateway that the options or the environment select."""
    url = arguments.url or environ.get("TOLLWAY_URL") or "http://127.0.0.1:8080"
    key = arguments.key or environ.get("TOLLWAY_KEY") or _made_key(url, environ)
    return ControlClient(url, key)


def _made_key(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the key that a gateway on this machine made for itself, if its file is readable.

    It is sent to no other machine.
    """
    try:
        if not is_loopback(urlsplit(url).hostname or ""):
            return None
        path = Path(environ.get("TOLLWAY_KEY_FILE") or _KEY_FILE)
        return admin_key.stored(path.parent, path.name)
    except (OSError, ValueError):
        return None  # the gateway's refusal states what it needs


def operator() -> Actor:
    """Return who runs the command: the login name, or the user id where it has no name."""
    try:
        return MACHINE.named(getpass.getuser())
    except (KeyError, OSError):  # a container may run as a user without a name
        return MACHINE.named(f"uid {os.getuid()}")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # The first three columns are text (left-aligned), the others amounts (right-aligned).
    padded = [
        [cell.ljust(width) if at < 3 else cell.rjust(width) for at, (cell, width) in enumerate(row)]
        for row in (zip(row, widths, strict=True) for row in rows)
    ]
    return ["  ".join(cells).rstrip() for cells in padded]


def printable(text: str) -> str:
    """Return a text that cannot move a terminal's cursor, whoever wrote it."""
    return "".join(one if one.isprintable() else " " for one in text)


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
