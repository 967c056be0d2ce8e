"""Erasing a subject: what the journal and the captures have of a person, tenant or request.

Theory of operation. A subject is named by what its rows have: tags, a tenant, ids. Rows that come
later (feedback, signals) name only the id of their decision, so ids are collected first. Then each
row is overwritten in place with one as long: tags, the answer, the label, the context and features
from outside go; ids, times, backends, propensities, estimates, tokens and costs stay, so that spend
adds up to the same nano-dollar and policies can still be evaluated. A capture becomes a blank line.

Rows without the subject's tags go first, and those that name it last: a run that is killed leaves
every row that it has not reached findable, and running it again finishes. `in_place` keeps each
single row whole.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import orjson

from tollway.gateway.security.private_files import FILE_MODE
from tollway.gateway.storage import feature_rows, in_place
from tollway.gateway.storage.journal import MARK_BYTES, segments
from tollway.gateway.storage.journal_format import Row, unseal

_ID = re.compile(rb'"id":"([0-9a-z]+\.[0-9a-z]+\.[0-9a-z]+)"')


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose rows: those that have all the tags, are of the tenant (if any), and of the ids."""

    tags: dict[str, str] = field(default_factory=dict)
    tenant: str | None = None
    ids: frozenset[str] = frozenset()

    def owns(self, row: Row) -> bool:
        """Return whether a row is the subject's by what it has itself."""
        tags = row.get("tags")
        return (
            (self.tenant is None or row.get("tenant") == self.tenant)
            and (not self.ids or row.get("id") in self.ids)
            and all(isinstance(tags, dict) and tags.get(k) == v for k, v in self.tags.items())
        )

    def needles(self) -> list[bytes]:
        """Return what a line of the subject surely has, unless it is encrypted."""
        texts = [*self.tags.values()] + ([] if self.tenant is None else [self.tenant])
        return [orjson.dumps(text) for text in texts]


@dataclass(slots=True)
class Erased:
    """What was erased, or would be.

    `rows` were overwritten; `cost_nano` is what they cost, the same before and after. `digest`: a
    SHA-256 over the place of each row and its checksums before and after.
    """

    decisions: int = 0
    rows: int = 0
    cost_nano: int = 0
    digest: str = ""


class Eraser:
    """Finds and erases the rows of a subject, line by line, in whatever files they are."""

    # The mutable state is the ids found, the running digest and what is counted.

    def __init__(self, subject: Subject, keep_tags: Collection[str] = ()) -> None:
        """`keep_tags`: the names of tags that stay, unless the subject is named by them."""
        self._subject = subject
        self._keep = frozenset(keep_tags) - set(subject.tags)
        self._needles = subject.needles()
        # Rows of these ids are the subject's, whatever they have themselves.
        self._ids = set() if self._needles else {one.encode() for one in subject.ids}
        self._proof = sha256()
        self.done = Erased()

    def collect(self, line: bytes) -> None:
        """Remember the id of a line that is the subject's."""
        row = self._own(line)
        if row is not None and isinstance(row.get("id"), str):
            self._ids.add(row["id"].encode())

    def decisions(self) -> set[str]:
        """Return the ids of the subject's decisions."""
        return {one.decode() for one in self._ids}

    def erased(self, place: str, line: bytes, *, own: bool) -> bytes | None:
        """Return a line's erased form; None if it has nothing of the subject.

        `own`: only lines that name the subject, else only those that have its ids. ValueError if
        there is no room for it.
        """
        row = self._own(line)
        if row is None and not own:
            row = self._dependent(line)
        elif row is None or not own:
            return None
        if row is None or not strip(row, self._keep):
            return None
        new = in_place.as_long(row, len(line))
        written = unseal(new)
        assert written is not None
        assert written.get("cost_nano") == row.get("cost_nano")
        self.done.rows += 1
        self.done.cost_nano += written.get("cost_nano", 0)
        self._proof.update(f"{place}:".encode() + line[-12:-3] + new[-12:-3])
        self.done.digest = self._proof.hexdigest()
        return new

    def has_left(self, line: bytes) -> bool:
        """Return whether a line still has something of the subject."""
        row = self._own(line) or self._dependent(line)
        return row is not None and strip(row, self._keep)

    def captured(self, plain: bytes) -> bool:
        """Return whether a capture, as plain JSON, is the subject's."""
        try:
            record = orjson.loads(plain)
        except orjson.JSONDecodeError:
            return False
        if not isinstance(record, dict):
            return False
        return self._subject.owns(record) or str(record.get("id")).encode() in self._ids

    def _own(self, line: bytes) -> Row | None:
        if not all(needle in line for needle in self._needles):
            return None
        if not self._needles and not self._has_id(line):
            return None
        row = unseal(line)
        return row if row is not None and self._subject.owns(row) else None

    def _dependent(self, line: bytes) -> Row | None:
        if not self._has_id(line):
            return None
        row = unseal(line)
        return row if row is not None and str(row.get("id")).encode() in self._ids else None

    def _has_id(self, line: bytes) -> bool:
        return bool(self._ids) and any(found in self._ids for found in _ID.findall(line))

    def is_unreadable(self, line: bytes) -> bool:
        """Return whether a whole line names the subject and cannot be read."""
        named = all(needle in line for needle in self._needles) if self._needles else False
        return (named or self._has_id(line)) and line.endswith(b"\n") and unseal(line) is None


def strip(row: Row, keep_tags: Collection[str]) -> bool:
    """Take a person's data out of a row; return whether there was any."""
    before = orjson.dumps(row)
    if isinstance(row.get("tags"), dict):
        row["tags"] = {name: value for name, value in row["tags"].items() if name in keep_tags}
    for name in ("answer", "label", "unit"):
        row.pop(name, None)
    for name in ("dense", "reply"):
        if row.get(name):
            row[name] = [0.0 if isinstance(one, float) else 0 for one in row[name]]
    if row.get("sparse"):
        row["sparse"] = []
    if isinstance(row.get("features"), dict):
        feature_rows.strip(row, lambda group, part, one: True)
        for part in row["features"].values():
            part.pop("entity", None)  # some have a pseudonym and no values
    return orjson.dumps(row) != before


def lines(path: Path) -> Iterator[bytes]:
    """Yield a file's lines; none if retention has removed it meanwhile."""
    try:
        with path.open("rb", buffering=1 << 20) as file:
            yield from file
    except FileNotFoundError:
        return


def erase_segments(folder: Path, eraser: Eraser, *, own: bool) -> None:
    """Erase lines of a journal's segments; the caller holds the folder's lock. Raises OSError."""
    for path in segments(folder):
        in_place.overwrite(
            path,
            lambda place, line, name=path.stem: eraser.erased(f"{name}:{place}", line, own=own),  # type: ignore[misc]
        )


def refuse_labels(folder: Path, decisions: Collection[str]) -> None:
    """Mark decisions as labelled, so that no label with the subject's data is added later."""
    places: dict[str, list[int]] = {}
    for decision in decisions:
        tag, offset, _ = decision.split(".")
        places.setdefault(tag, []).append(int(offset, 36) // MARK_BYTES)
    for tag, offsets in places.items():
        if not (folder / f"journal-{tag}.jsonl").exists():
            continue  # in an archive only, and `restore` marks its decisions
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(folder / f"journal-{tag}.marks", flags, FILE_MODE)
        try:
            for at in offsets:
                os.pwrite(fd, b"\x01", at)
            os.fsync(fd)
        finally:
            os.close(fd)


def erase_captures(folder: Path, plain: Callable[[bytes], bytes], eraser: Eraser) -> int:
    """Blank the subject's captures and return how many; `plain` decrypts a line.

    Raises OSError, and what `plain` raises for a line that it cannot read.
    """
    count = 0

    def change(place: int, line: bytes) -> bytes | None:
        nonlocal count
        if not line.strip() or not eraser.captured(plain(line.rstrip(b"\n"))):
            return None
        count += 1
        return b" " * (len(line) - 1) + b"\n"

    if folder.is_dir():
        with in_place.exclusive(folder):
            for path in sorted(folder.glob("capture-*.jsonl")):
                in_place.overwrite(path, change)
    return count
