"""`tollway audit`: show what operators did to a gateway, or verify the log of it."""

import argparse
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tollway.gateway.cli import terminal
from tollway.gateway.control_plane import acts
from tollway.gateway.storage import audit_log

_FILE = Path(".tollway/state") / audit_log.NAME
_MORE = f"""\
examples:
  tollway audit --since 7d                    who did what in the last week
  tollway audit --file .tollway/state/{audit_log.NAME} --json
  tollway audit --verify                      say where lines were changed or are missing

Without --file it asks the running gateway, which returns the newest {acts.MOST:,} acts. --verify
reads a file, by default {_FILE}. It prints the number and the
checksum of the last line; if the gateway's log has higher numbers, lines are missing at the end.

{terminal.REMOTE}"""


def add(commands: Any) -> None:
    """Add the command."""
    summary = "show what operators did, when, and the values before and after"
    command = terminal.add(commands, "audit", _audit, summary, _MORE)
    command.add_argument(
        "--since", metavar="AGE", type=terminal.age_s, help="only newer acts: 30m, 12h, 7d, 4w"
    )
    command.add_argument("--file", type=Path, help=f"read this {audit_log.NAME} instead")
    command.add_argument("--verify", action="store_true", help="check the chain of checksums")
    terminal.add_remote(command)


def _audit(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if arguments.verify:
        return _verify(arguments.file or _FILE, as_json=arguments.json)
    if arguments.file is not None:
        found = audit_log.acts(_lines(arguments.file))
    else:
        remote = terminal.remote(arguments, environ)
        found = remote.get("audit", limit=str(acts.MOST))["acts"]
        if len(found) == acts.MOST:
            terminal.fail(terminal.OK, f"older acts are in {audit_log.NAME}: give it with --file")
    if arguments.since is not None:
        found = [act for act in found if act["time"] >= time.time() - arguments.since]
    if arguments.json:
        terminal.say_json(found)
    elif found:
        terminal.say(*_told(found))
    else:
        terminal.say("no acts")
    return terminal.OK


def _lines(path: Path) -> list[bytes]:
    text = path.read_bytes()
    return text.removesuffix(b"\n").split(b"\n") if text else []


def _verify(path: Path, *, as_json: bool) -> int:
    lines = _lines(path)
    problems = list(audit_log.broken(lines))
    last = audit_log.parsed(lines[-1]) if lines else None
    end = {"n": last.fields["n"], "sum": last.checksum} if last else None
    if as_json:
        terminal.say_json({"ok": not problems, "problems": problems, "last": end})
        return terminal.FAILED if problems else terminal.OK
    if problems:
        return terminal.fail(terminal.FAILED, *(f"{path}: {problem}" for problem in problems))
    terminal.say(f"{path}: no break in {len(lines)} lines")
    if end is not None:
        terminal.say(f"last: {end['n']} {end['sum']}")
    return terminal.OK


def _told(found: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each act, and below it what changed and why."""
    for act, line in zip(found, terminal.columns([_row(act) for act in found]), strict=True):
        yield line
        for change in acts.changes(act):
            yield f"    {terminal.printable(change)}"
        if act["why"]:
            yield f"    why: {terminal.printable(act['why'])}"


def _row(act: dict[str, Any]) -> tuple[str, str, str]:
    when = datetime.fromtimestamp(act["time"], UTC).isoformat(timespec="seconds")
    by = "" if act["by"] == act["who"] else act["by"]
    whence = ", ".join(filter(None, (by, act["client"])))
    who = f"{act['who']} ({whence})" if whence else act["who"]
    return (
        when,
        terminal.printable(who),
        terminal.printable(f"{acts.title(act)} {act['about']}".rstrip()),
    )
