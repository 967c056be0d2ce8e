"""Reads whole journals offline, and counts the lines that cannot be read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import Row, starts, unseal


@dataclass(slots=True)
class Damage:
    """How many lines of a journal were read, and how many were cut or damaged."""

    lines: int = 0
    bad: int = 0


def files(sources: Iterable[Path]) -> list[Path]:
    """Return a journal's segments, given its folder, the folder above it, or single segments."""
    paths: list[Path] = []
    for source in sources:
        if source.is_file():
            paths.append(source)
            continue
        for folder in (source, source / "journal", source / ".tollway" / "journal"):
            if inside := segments(folder):
                paths += inside
                break
    return paths


def of_kinds(*kinds: str) -> Callable[[bytes], bool]:
    """Return whether a line is of a row of one of these kinds, as a function for `sound`."""
    wanted = starts(*kinds)
    return lambda line: line.startswith(wanted)


def sound(
    path: Path, damage: Damage, wanted: Callable[[bytes], bool] = lambda line: True
) -> Iterator[Row]:
    """Yield the valid rows of a segment's `wanted` lines, and count these lines and the others."""
    with path.open("rb") as file:
        for line in filter(wanted, file):
            damage.lines += 1
            row = unseal(line)
            if row is None:
                damage.bad += 1
            else:
                yield row
