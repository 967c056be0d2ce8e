"""`tollway journal ...`: list, archive and restore the segments of a journal, erase from them."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tollway.gateway.cli import terminal
from tollway.gateway.settings import load
from tollway.gateway.storage import in_place
from tollway.gateway.storage.journal import is_open, modified_s, segments
from tollway.reports import journal_erasure

_HOW = """\
These commands read the journal of a configuration, so run them on the gateway's machine, while it
runs or not.
"""
_LIST = f"""\
example:
  tollway journal list tollway.toml

TIME is that of the last row. A segment is open while a gateway writes to it.

{_HOW}"""
_ARCHIVE = f"""\
examples:
  tollway journal archive tollway.toml --out /archive --older 30d
  tollway journal restore tollway.toml /archive/journal-hmyqbbs3nka1.parquet

Writes one Parquet file for each closed segment that DIR does not have yet, reads it back, and
compares it byte for byte. `line` has the rows themselves; further columns are for queries. Nothing
is removed: journal.keep_days does that, and should be longer than the time between two archives.
Needs polars: pip install '.[simulate]'

{_HOW}"""
_RESTORE = f"""\
example:
  tollway journal restore tollway.toml /archive/journal-hmyqbbs3nka1.parquet

Ids lead to the rows again, as in `tollway explain`; labels for them are duplicates. The segment has
its former time, so a running gateway removes it again within a minute if it is beyond
journal.keep_days or journal.keep_gb.

{_HOW}"""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run `tollway journal` and return its exit code. Raises ConfigError and OSError."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments, environ))
    except ValueError as exc:
        return terminal.fail(terminal.FAILED, str(exc))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tollway journal",
        description="List the segments of the journal, archive or restore them, erase a subject.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _on_file(actions, "list", _list, "list the segments of the journal, oldest first", _LIST)
    text = "write closed segments as Parquet"
    archive = _on_file(actions, "archive", _archive, text, _ARCHIVE)
    archive.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to")
    archive.add_argument(
        "--older",
        metavar="AGE",
        type=terminal.age_s,
        default=0.0,
        help="only segments with older rows only: 12h, 30d, 8w",
    )
    text = "write the segments of archives back to the journal"
    restore = _on_file(actions, "restore", _restore, text, _RESTORE)
    restore.add_argument("archives", type=Path, nargs="+", help="the Parquet files")
    text = "erase what the journal, archives and captures have of a subject, with proof"
    journal_erasure.add_options(
        _on_file(actions, "erase", journal_erasure.erase, text, journal_erasure.MORE)
    )
    return parser


def _on_file(actions: Any, name: str, run: Any, text: str, more: str) -> Any:
    command = terminal.add(actions, name, run, text, more)
    command.add_argument("file", type=Path, help="the configuration file, such as tollway.toml")
    terminal.add_json(command)
    return command


def _folder(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Path:
    return load(arguments.file, environ).journal.dir


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    listed: list[dict[str, Any]] = [
        {
            "segment": path.stem,
            "time": path.stat().st_mtime,
            "open": is_open(path),
            "rows": _rows(path),
            "bytes": path.stat().st_size,
        }
        for path in segments(_folder(arguments, environ))
    ]
    if arguments.json:
        terminal.say_json(listed)
        return terminal.OK
    lines = [("SEGMENT", "TIME", "STATE", "ROWS", "BYTES")]
    for one in listed:
        state = "open" if one["open"] else "closed"
        shown = datetime.fromtimestamp(one["time"], UTC).isoformat(timespec="seconds")
        lines.append((one["segment"], shown, state, f"{one['rows']:,}", f"{one['bytes']:,}"))
    terminal.say(*terminal.columns(lines))
    return terminal.OK


def _rows(segment: Path) -> int:
    """Return the number of complete lines."""
    count = 0
    with segment.open("rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
    return count


def _archive(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if find_spec("polars") is None:
        return _no_polars()
    from tollway.reports import journal_archive  # noqa: PLC0415 - polars is an extra

    before_s, archived = time.time() - arguments.older, []
    folder = _folder(arguments, environ)
    for path in segments(folder):
        is_there = (arguments.out / f"{path.stem}.parquet").exists()
        if is_there or modified_s(path) > before_s or is_open(path):
            continue
        with in_place.exclusive(folder):  # else an erasure may miss what is being copied
            one = journal_archive.archive(path, arguments.out)
        archived.append({"archive": str(one.path), "rows": one.lines, "damaged": one.damaged})
        if one.damaged:
            sys.stderr.write(f"{path}: {one.damaged} of {one.lines} lines are cut or damaged\n")
        if not arguments.json:
            terminal.say(f"{one.path}: {one.lines:,} rows")
    if arguments.json:
        terminal.say_json(archived)
    elif not archived:
        terminal.say("nothing to archive")
    return terminal.OK


def _restore(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if find_spec("polars") is None:
        return _no_polars()
    from tollway.reports import journal_archive  # noqa: PLC0415 - polars is an extra

    folder = _folder(arguments, environ)
    with in_place.exclusive(folder):
        restored = [str(journal_archive.restore(path, folder)) for path in arguments.archives]
    if arguments.json:
        terminal.say_json(restored)
    else:
        terminal.say(*restored)
    return terminal.OK


def _no_polars() -> int:
    return terminal.fail(terminal.FAILED, journal_erasure.NO_POLARS)
