"""The features from outside in the journal: who was seen most, and how values are taken out again.

A decision's row keeps, by group, the values that its request got, their version, age and mark, and
the entity's pseudonym. Erasing overwrites such a row in place with one that is as long: an id is an
address, so no row may move. What the policy saw of the request goes with the values, because it was
made from them; the decision, its costs and its labels stay.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tollway.gateway.storage import in_place
from tollway.gateway.storage.journal import modified_s, segments
from tollway.gateway.storage.journal_format import Row, unseal

SEEN_BYTES = 64 << 20  # of the newest rows, which are read for the entities seen most: 0.5 s
_MARK = b'"features":{'
ERASED = "erased"
"""The mark of values that were taken out of a row."""

Wanted = Callable[[str, dict[str, Any], Row], bool]
"""Returns whether to erase a group's part of a row: (group, part, row)."""


def most_seen(folder: Path, most: int) -> dict[str, list[str]]:
    """Return the entities of each group that the newest rows have most often, `most` at most."""
    counts: dict[str, Counter[str]] = {}
    left = SEEN_BYTES
    for path in reversed(segments(folder)):
        for row in _tail(path, left):
            for group, part in row["features"].items():
                if part.get("entity"):
                    counts.setdefault(group, Counter())[part["entity"]] += 1
        left -= path.stat().st_size
        if left <= 0:
            break
    return {
        group: [entity for entity, _ in seen.most_common(most)] for group, seen in counts.items()
    }


def rows_with_features(folder: Path) -> Iterator[Row]:
    """Yield the decision rows that have features from outside, oldest segment first."""
    return rows_in(segments(folder))


def rows_in(paths: Iterable[Path]) -> Iterator[Row]:
    """Yield the decision rows that have features from outside, segment by segment."""
    for path in paths:
        yield from _tail(path, sys.maxsize)


def _tail(path: Path, bytes_max: int) -> Iterator[Row]:
    """Yield the rows with features of a segment's last bytes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - bytes_max))
            if size > bytes_max:
                file.readline()  # the rest of a line
            for line in file:
                if _MARK in line and (row := unseal(line)) is not None and "features" in row:
                    yield row
    except FileNotFoundError:  # removed by retention meanwhile
        return


@dataclass(slots=True)
class Erasure:
    """What was taken out of a journal.

    `digest` is a SHA-256 over the place of each row and its checksums before and after.
    """

    segments: int = 0
    rows_read: int = 0
    rows_erased: int = 0
    digest: str = ""
    places: list[str] = field(default_factory=list)


def erase(folder: Path, wanted: Wanted) -> Erasure:
    """Take the wanted values out of a journal's rows, also while gateways write to it.

    It takes two seconds a gigabyte; call it in a thread. Raises OSError.
    """
    done, proof = Erasure(), sha256()
    with in_place.exclusive(folder):
        for path in segments(folder):
            done.segments += 1
            _erase_in(path, wanted, done, proof)
    done.digest = proof.hexdigest()
    return done


def remaining(folder: Path, wanted: Wanted) -> int:
    """Return how many rows still have wanted values: 0 after `erase`."""
    return sum(
        any(part.get("values") and wanted(group, part, row) for group, part in _parts(row))
        for row in rows_with_features(folder)
    )


def _erase_in(path: Path, wanted: Wanted, done: Erasure, proof: Any) -> None:
    def change(place: int, line: bytes) -> bytes | None:
        if _MARK not in line or (row := unseal(line)) is None or "features" not in row:
            return None
        done.rows_read += 1
        if not strip(row, wanted):
            return None
        new = in_place.as_long(row, len(line))
        done.rows_erased += 1
        done.places.append(f"{path.name}:{place}")
        proof.update(f"{path.name}:{place}:".encode() + line[-12:-3] + new[-12:-3])
        return new

    in_place.overwrite(path, change)


def _parts(row: Row) -> list[tuple[str, dict[str, Any]]]:
    return list(row["features"].items())


def strip(row: Row, wanted: Wanted) -> bool:
    """Take wanted values out of a row; return whether there were any."""
    gone = [part for group, part in _parts(row) if part.get("values") and wanted(group, part, row)]
    for part in gone:
        for name in ("values", "entity", "age_s"):
            part.pop(name, None)
        part["mark"] = ERASED
    if gone:
        row["dense"] = [0.0] * len(row["dense"])
        row["sparse"] = []
    return bool(gone)


class ValueRetention:
    """Takes values out of rows once they are older than their group allows."""

    # The mutable state is the groups' limits, and which segments have no older values any more.

    def __init__(self, folder: Path, *, wall: Callable[[], float]) -> None:
        self.limits_s: dict[str, float] = {}
        self._folder = folder
        self._wall = wall
        self._done: dict[Path, float] = {}

    def revise(self, limits_s: Mapping[str, float]) -> None:
        """Take other limits, in seconds by group."""
        if limits_s != self.limits_s:
            self.limits_s = dict(limits_s)
            self._done.clear()

    async def run(self, limits_s: Mapping[str, float]) -> None:
        """Erase what is too old, in a thread; `limits_s` are in seconds by group."""
        self.revise(limits_s)
        if self.limits_s:
            await asyncio.to_thread(self.erase)

    def erase(self) -> Erasure:
        """Erase what is too old and return how much that was. Raises OSError."""
        done, proof, now_s = Erasure(), sha256(), self._wall()
        wanted, longest_s = older(self.limits_s, now_s), max(self.limits_s.values())
        for path in segments(self._folder):
            written_s = modified_s(path)
            if self._done.get(path) == written_s:
                continue
            with in_place.exclusive(self._folder):
                _erase_in(path, wanted, done, proof)
            if written_s < now_s - longest_s:  # each of its rows was old enough
                self._done[path] = modified_s(path)
        self._done = {path: at for path, at in self._done.items() if path.exists()}
        return done


def pseudonymous(digests: dict[str, str]) -> Wanted:
    """Return what is wanted of an entity, by its pseudonym in each group."""
    return lambda group, part, row: part.get("entity") == digests.get(group, "")


def older(limits: dict[str, float], now_s: float) -> Wanted:
    """Return what is wanted of groups whose values are kept for some seconds only."""
    return lambda group, part, row: group in limits and row["time"] < now_s - limits[group]
