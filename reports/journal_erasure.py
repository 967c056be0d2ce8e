"""`tollway journal erase`: erase what journal, archives and captures have of a subject."""

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from tollway.gateway.cli import terminal
from tollway.gateway.features.online.entities import pseudonyms
from tollway.gateway.settings import Settings, load
from tollway.gateway.storage import audit_log, captures, in_place
from tollway.gateway.storage.audit_log import AuditLog
from tollway.gateway.storage.erasure import (
    Eraser,
    Subject,
    erase_captures,
    erase_segments,
    lines,
    refuse_labels,
)
from tollway.gateway.storage.journal import segments
from tollway.gateway.wiring.captures import build_seal

_ID = re.compile(r"[0-9a-z]{1,24}\.[0-9a-z]{1,12}\.[0-9a-z]{4}")
NO_POLARS = "archives need polars; install it in a clone of Tollway: pip install '.[simulate]'"
_NO_FEWER = "name the subject: --tag NAME=VALUE, --tenant NAME or --id ID"
MORE = """\
examples:
  tollway journal erase tollway.toml --tenant acme --tag user=42 --check     how much there is
  tollway journal erase tollway.toml --tenant acme --tag user=42 --why "ticket 7"
  tollway journal erase tollway.toml --tag user=42 --keep-tag team --archives /archive

A request is the subject's if it has every tag, tenant and id given. Rows are overwritten in place:
tags, answers, labels, contexts and features are gone; times, backends, propensities and costs stay,
so spend adds up as before. --keep-tag NAME keeps a tag of those rows, for spend by that tag. No
label is accepted any more for these requests. Captures become blank lines.

Runs while gateways write to the journal, on their machine; requests that end meanwhile may need
another run. A run that was stopped is finished by the next. The audit log has a pseudonym of the
subject, the counts and a digest. Not reached: what policies have learned (tollway policy relearn),
kept answers and stored responses, which expire, archives elsewhere, and the entity's features
(tollway features erase). Exit code 1 if anything is left.
"""


def add_options(command: Any) -> None:
    """Add the options of the command, besides the configuration file."""
    command.add_argument(
        "--tag", action="append", default=[], metavar="NAME=VALUE", help="requests with this tag"
    )
    command.add_argument("--tenant", metavar="NAME", help="requests of this tenant")
    command.add_argument("--id", action="append", default=[], metavar="ID", help="this decision")
    command.add_argument(
        "--keep-tag", action="append", default=[], metavar="NAME", help="a tag whose value stays"
    )
    command.add_argument(
        "--archives", type=Path, metavar="DIR", help="a folder of archives to erase from too"
    )
    command.add_argument("--check", action="store_true", help="only say how much there is")
    command.add_argument("--why", default="", help="the reason, which is recorded")


@dataclass(slots=True)
class _Places:
    """Where a subject's data may be."""

    journal: Path
    archives: list[Path]
    captures: Path
    plain: Any

    def lines(self) -> Iterator[bytes]:
        """Yield all lines of the journal and of archives."""
        for path in segments(self.journal):
            yield from lines(path)
        for path in self.archives:
            yield from _archived(path)


def erase(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command. Raises ConfigError, OSError and ValueError."""
    try:
        subject = _subject(arguments)
    except ValueError as exc:
        return terminal.fail(terminal.USAGE, str(exc))
    settings = load(arguments.file, environ)
    places = _places(arguments, settings)
    eraser = Eraser(subject, arguments.keep_tag)
    document: dict[str, Any] = {}
    if not arguments.check:
        document = _recorded(arguments, settings, places, eraser, _digest(subject, settings))
    left = _left(places, eraser)
    document |= left
    if arguments.json:
        terminal.say_json(document)
    else:
        terminal.say(*_told(document))
    return terminal.FAILED if any(left.values()) else terminal.OK


def _subject(arguments: argparse.Namespace) -> Subject:
    tags: dict[str, str] = {}
    for text in arguments.tag:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--tag {text}: write NAME=VALUE, such as user=42")
        if tags.setdefault(name, value) != value:
            raise ValueError(f"--tag {name}: no request has two values of a tag; erase each alone")
    for one in arguments.id:
        if not _ID.fullmatch(one):
            raise ValueError(f"--id {one}: not an id of a decision, as in x-tollway-decision")
    if not (tags or arguments.tenant or arguments.id):
        raise ValueError(_NO_FEWER)
    return Subject(tags, arguments.tenant or None, frozenset(arguments.id))


def _places(arguments: argparse.Namespace, settings: Settings) -> _Places:
    archives: list[Path] = []
    if arguments.archives is not None:
        if not arguments.archives.is_dir():
            raise ValueError(f"--archives {arguments.archives}: there is no such folder")
        if find_spec("polars") is None:
            raise ValueError(NO_POLARS)
        archives = sorted(arguments.archives.glob("journal-*.parquet"))
    seal = build_seal(settings.capture)
    return _Places(
        settings.journal.dir,
        archives,
        settings.capture.dir,
        lambda line: captures.opened(line, seal),
    )


def _digest(subject: Subject, settings: Settings) -> str:
    """Return a pseudonym of the subject, for the audit log: it must not name whom it forgot."""
    pepper = settings.pepper.get_secret_value() if settings.pepper else None
    named = [sorted(subject.tags.items()), subject.tenant, sorted(subject.ids)]
    return pseudonyms(pepper)("erased subject", orjson.dumps(named).decode())


def _recorded(
    arguments: argparse.Namespace,
    settings: Settings,
    places: _Places,
    eraser: Eraser,
    digest: str,
) -> dict[str, Any]:
    """Erase, with an entry of the audit log before and after; return what was erased."""
    log = AuditLog(settings.state.dir / audit_log.NAME)
    act, actor = "erase subject", terminal.operator()
    begun = log.write(act, actor, audit_log.BEGUN, about=digest, why=arguments.why)
    try:
        blanked = _erase(places, eraser)
    except BaseException as exc:
        why = f"{arguments.why}; {exc}" if arguments.why else str(exc)
        log.write(act, actor, audit_log.UNKNOWN, about=digest, why=why, begun=begun)
        raise
    done = {"subject": digest, **asdict(eraser.done), "captures": blanked}
    log.write(act, actor, audit_log.DONE, about=digest, why=arguments.why, after=done, begun=begun)
    return done


def _erase(places: _Places, eraser: Eraser) -> int:
    """Erase everywhere; return how many captures there were."""
    for line in places.lines():
        eraser.collect(line)
    blanked = erase_captures(places.captures, places.plain, eraser)  # while rows still name them
    with in_place.exclusive(places.journal):
        for line in places.lines():
            eraser.collect(line)
        decisions = eraser.decisions()
        eraser.done.decisions = len(decisions)
        refuse_labels(places.journal, decisions)
        for own in (False, True):
            for path in places.archives:
                _rewrite(path, eraser, own=own)
            erase_segments(places.journal, eraser, own=own)
    return blanked


def _left(places: _Places, eraser: Eraser) -> dict[str, int]:
    """Return how many rows and captures the subject still has, and which lines are unreadable."""
    for line in places.lines():  # those of a check, and those written meanwhile
        eraser.collect(line)
    rows = unreadable = 0
    for line in places.lines():
        rows += eraser.has_left(line)
        unreadable += eraser.is_unreadable(line)
    kept = 0
    if places.captures.is_dir():
        for path in places.captures.glob("capture-*.jsonl"):
            for line in lines(path):
                kept += bool(line.strip()) and eraser.captured(places.plain(line.rstrip(b"\n")))
    return {"rows_left": rows, "captures_left": kept, "unreadable": unreadable}


def _rewrite(path: Path, eraser: Eraser, *, own: bool) -> None:
    from tollway.reports import journal_archive  # noqa: PLC0415 - polars is an extra

    number = 0

    def change(line: bytes) -> bytes | None:
        nonlocal number
        number += 1
        return eraser.erased(f"{path.name}:{number}", line, own=own)

    journal_archive.rewrite(path, change)


def _archived(path: Path) -> Iterator[bytes]:
    from tollway.reports import journal_archive  # noqa: PLC0415 - polars is an extra

    for batch in journal_archive.lines(path):
        yield from batch


def _told(document: Mapping[str, Any]) -> Iterator[str]:
    if "rows" in document:
        cost = document["cost_nano"]
        yield (
            f"erased {document['rows']:,} rows of {document['decisions']:,} requests and "
            f"{document['captures']:,} captures; these rows cost {cost:,} nano-dollars, as before"
        )
        yield f"digest {document['digest'] or 'none: no row was changed'}"
    yield f"left: {document['rows_left']:,} rows, {document['captures_left']:,} captures"
    if document["unreadable"]:
        yield (
            f"{document['unreadable']:,} lines that name the subject are damaged or of a newer "
            "version: they were not changed"
        )
