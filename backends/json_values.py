"""Paths into a JSON document: `inputs[0].data`, `messages[*].content`, compiled once.

Grammar: keys separated by dots, each followed by any number of `[index]`, `[-1]` or `[*]` (all
elements). A path that matches nothing yields nothing: documents differ, and a missing feature is
handled by the encoder, not an error.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

_TOKEN = re.compile(r"\.?([A-Za-z_$][\w$-]*)|\[(-?\d+|\*)\]")

_NUMBERS = frozenset((float, int))  # and no bool

Step = str | int | None
"""A key, an index, or None for every element."""

Path = Callable[[Any], Iterator[Any]]


def parse(text: str) -> tuple[Step, ...]:
    """Return a path's steps; the ValueError names the position of the error."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(
                f"cannot read the path {text!r} at {text[at:]!r}; write it like inputs[0].data"
            )
        key, index = match.groups()
        steps.append(key if key is not None else None if index == "*" else int(index))
        at = match.end()
    if not steps:
        raise ValueError("a path may not be empty; write it like inputs[0].data")
    return tuple(steps)


def walk(document: Any, steps: tuple[Step, ...]) -> Iterator[Any]:
    """Yield every value at the path."""
    for at, step in enumerate(steps):
        if step is None:
            if isinstance(document, list):
                for element in document:
                    yield from walk(element, steps[at + 1 :])
            return
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return
    yield document


def first(document: Any, steps: tuple[Step, ...]) -> Any:
    """Return the first value at the path, or None."""
    for at, step in enumerate(steps):
        if step is None:
            return next(walk(document, steps[at:]), None)
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def numbers(document: Any, steps: tuple[Step, ...]) -> list[float]:
    """Return every number at the path, nested lists flattened in order."""
    found: list[float] = []
    if None in steps:
        for value in walk(document, steps):
            _gather(value, found)
    else:  # nearly always, and there is one value at most
        _gather(first(document, steps), found)
    return found


def _gather(value: Any, found: list[float]) -> None:
    if isinstance(value, list):
        if _NUMBERS.issuperset(map(type, value)):
            found.extend(value)
            return
        for element in value:
            _gather(element, found)
    elif isinstance(value, (int, float)):
        found.append(float(value))


def texts(document: Any, steps: tuple[Step, ...]) -> list[str]:
    """Return every string at the path, including those in nested lists."""
    found: list[str] = []
    for value in walk(document, steps):
        found.extend(
            v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)
        )
    return found
