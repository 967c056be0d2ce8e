"""Valid documents with one member replaced are read, or refused as declared; never a crash."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.fuzz.targets import TARGETS, Target

pytestmark = pytest.mark.integration

DOCUMENTS = sorted(Path(__file__).with_name("documents").glob("*/*.json"))

# What a member may turn out to be: one of each type, the ends of numbers, what is empty.
INSTEAD: list[Any] = [None, True, 5, -1, 2**64 - 1, 0.5, 1e308, -1e308, 5e-324]
INSTEAD += ["", "x", "1e999999", "-1", "nan", "\x00\r\n", [], [[]], [5], [None], ["x", 5]]
INSTEAD += [{}, {"": None}, {"a": [1]}, [{"a": 1}, 1], [[1.5, [2]]], [True, 1e308, -1e308]]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_any_value_in_place_of_a_member_breaks_nothing(path: Path) -> None:
    document, readers = orjson.loads(path.read_bytes()), readers_of(path)
    for place in places(document):
        changed = [without(document, place)]
        changed += [exchanged(document, place, new) for new in INSTEAD]
        for one in changed:
            for read in readers:
                read(b"\x10" * (read not in WHOLE) + orjson.dumps(one))


WHOLE = {TARGETS["price"], TARGETS["told"]}
"""Targets that read a document and nothing before it."""


def readers_of(path: Path) -> list[Target]:
    """Return the targets that read a document of its folder."""
    kind = path.parent.name
    if kind in TARGETS:
        return [TARGETS[kind]]
    return [TARGETS["requests"], TARGETS["replies"]]


def places(document: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each member of a document, and to each element of a list."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (key,)
        if isinstance(value, dict | list):
            for below in places(value):
                yield (key, *below)


def exchanged(document: Any, place: tuple[Any, ...], new: Any) -> Any:
    """Return a document with another value at a place."""
    if not place:
        return new
    made = document.copy()
    made[place[0]] = exchanged(made[place[0]], place[1:], new)
    return made


def without(document: Any, place: tuple[Any, ...]) -> Any:
    """Return a document without what is at a place."""
    made = document.copy()
    if len(place) == 1:
        del made[place[0]]
    else:
        made[place[0]] = without(made[place[0]], place[1:])
    return made
