"""Features used by rules: named places in a request, and simple sums over numbers there.

A feature is a function from the document to its value. It is None if the document has nothing
there, or nothing of the right type; then every comparison with it is false.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tollway.backends.json_path import Get, compile_path

Take = Callable[[Sequence[float]], float]


class Facts(dict[str, Any]):
    """The features of one document, each computed on first use."""

    # The mutable state is the values computed so far; they live for one call.
    def __init__(self, features: dict[str, Get], document: Any) -> None:
        super().__init__()
        self._features = features
        self._document = document

    def __missing__(self, name: str) -> Any:
        value = self[name] = self._features[name](self._document)
        return value


def feature(written: Any) -> Get:
    """Compile a feature: a path, or a table with `path` and `take`.

    `path` may be a list of paths; their values are concatenated. `take` is one of TAKES, or
    `count_above` with a number `above`. ValueError says what is wrong and what to write.
    """
    if not isinstance(written, dict):
        return _place(written)
    unknown = [key for key in written if key not in ("path", "take", "above")]
    if unknown or "path" not in written:
        raise ValueError(
            f'{unknown[0]!r} is unknown; write it like {{ path = "inputs[0].data", take = "sum" }}'
            if unknown
            else 'path is missing; write it like path = "inputs[0].data"'
        )
    place, take = _place(written["path"]), written.get("take")
    if ("above" in written) != (take == "count_above"):
        raise ValueError('above goes with take = "count_above"; write both or neither')
    if take is None:
        return place
    if take == "count_above":
        return partial(_taken, place, _count_above(written["above"]))
    if not isinstance(take, str) or take not in TAKES:
        known = ", ".join((*TAKES, "count_above"))
        raise ValueError(f"take = {take!r}: must be one of {known}")
    return partial(_taken, place, TAKES[take])


def _place(written: Any) -> Get:
    if isinstance(written, str):
        return compile_path(written)
    if not isinstance(written, list) or not written or not all(isinstance(p, str) for p in written):
        raise ValueError(f'{written!r} is no path; write it like "inputs[0].data"')
    gets = [compile_path(path) for path in written]

    def strung(document: Any) -> list[Any] | None:
        values: list[Any] = []
        for get in gets:
            value = get(document)
            if value is None:
                return None
            values += value if isinstance(value, list) else [value]
        return values

    return strung


def _taken(place: Get, take: Take, document: Any) -> float | None:
    """Return the result of `take` over the numbers at a place; None if there are none."""
    numbers = place(document)
    if not isinstance(numbers, list) or not numbers:
        return None
    try:
        return take(numbers)
    except TypeError:  # something in the list is not a number
        return None


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _std(numbers: Sequence[float]) -> float:
    """Return the standard deviation of the numbers as a population."""
    mean = sum(numbers) / len(numbers)
    return math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers))


def _count_above(limit: Any) -> Take:
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ValueError(f"above = {limit!r} is not a number; write it like above = 8")
    return lambda numbers: sum(x > limit for x in numbers)


TAKES: dict[str, Take] = {"sum": sum, "mean": _mean, "max": max, "min": min, "std": _std}
