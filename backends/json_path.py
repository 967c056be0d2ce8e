"""Paths into a JSON document, compiled once to a function: `label`, `outputs[0].data[0]`.

Keys are separated by dots; `[2]` and `[-1]` index a list, `[0:8]` and `[::2]` slice it, and `[*]`
applies the rest of the path to each element. A path that matches nothing gives None, because
documents differ.
"""

import re
from collections.abc import Callable
from typing import Any

Get = Callable[[Any], Any]

_TOKEN = re.compile(
    r"""\.?(?P<key>[A-Za-z_$][\w$-]*)
      | \[(?P<index>-?\d+)\]
      | \[(?P<slice>-?\d*:-?\d*(?::-?\d*)?)\]
      | \[(?P<each>\*)\]""",
    re.VERBOSE,
)
_EXAMPLE = "write it like data[0].name, or data[*].name for each element"
_NUMBERS = frozenset((float, int))  # and no bool

Step = str | int | slice | None
"""A key, an index, a slice, or None for each element."""


def compile_path(text: str) -> Get:
    """Return the function that follows a path; `[*]` gives a list with a value for each element.

    The ValueError names the position of the error.
    """
    return _follow(_parse(text), _each)


def compile_first(text: str) -> Get:
    """Return the function that follows a path to one value: `[*]` is the first element with one.

    The ValueError names the position of the error.
    """
    return _follow(_parse(text), _first)


def numbers(value: Any, flat: list[float] | None = None, most: int | None = None) -> list[float]:
    """Return every number in a value, nested lists flattened in order; add them to `flat`.

    Of a list only the first `most` elements are read, and no list once `flat` has as many numbers.
    """
    if flat is None:
        flat = []
    if type(value) is list:
        if most is not None and len(value) > most - len(flat):
            value = value[: max(0, most - len(flat))]
        if _NUMBERS.issuperset(map(type, value)):
            flat += value
        else:
            for element in value:
                numbers(element, flat, most)
    elif isinstance(value, (int, float)):
        flat.append(float(value))
    return flat


def texts(value: Any, flat: list[str] | None = None) -> list[str]:
    """Return every string in a value, nested lists flattened in order; add them to `flat`."""
    if flat is None:
        flat = []
    if isinstance(value, str):
        flat.append(value)
    elif isinstance(value, list):
        for element in value:
            if type(element) is str:
                flat.append(element)
            else:
                texts(element, flat)
    return flat


def _parse(text: str) -> tuple[Step, ...]:
    if not text:
        raise ValueError(f"a path may not be empty; {_EXAMPLE}")
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or text.startswith(".", at) != (at > 0 and match["key"] is not None):
            raise ValueError(f"cannot read the path {text!r} at {text[at:]!r}; {_EXAMPLE}")
        steps.append(_step(match))
        at = match.end()
    return tuple(steps)


def _step(match: re.Match[str]) -> Step:
    if match["key"] is not None:
        return match["key"]
    if match["index"] is not None:
        return int(match["index"])
    if match["slice"] is not None:
        step = slice(*(int(part) if part else None for part in match["slice"].split(":")))
        if step.step == 0:
            raise ValueError(f"a slice cannot step by 0: [{match['slice']}]")
        return step
    return None


def _follow(steps: tuple[Step, ...], elements: Callable[[Any, Get], Any]) -> Get:
    """Return the function that follows steps; `elements` follows the rest of them in a list."""
    if None in steps:
        at = steps.index(None)
        before, after = _follow(steps[:at], elements), _follow(steps[at + 1 :], elements)
        return lambda document: elements(before(document), after)

    def get(document: Any) -> Any:
        try:
            for step in steps:
                document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
        return document

    return get


def _each(value: Any, get: Get) -> list[Any] | None:
    return [get(element) for element in value] if isinstance(value, list) else None


def _first(elements: Any, get: Get) -> Any:
    if not isinstance(elements, list):
        return None
    return next((value for element in elements if (value := get(element)) is not None), None)
