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


def compile_path(text: str) -> Get:
    """Return the function that follows a path; the ValueError names the position of the error."""
    steps: list[Any] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or text.startswith(".", at) != (at > 0 and match["key"] is not None):
            break
        steps.append(_step(match))
        at = match.end()
    if at < len(text) or not steps:
        raise ValueError(
            f"cannot read the path {text!r} at {text[at:]!r}; write it like outputs[0].data[0]"
        )
    return _follow(tuple(steps))


def _step(match: re.Match[str]) -> Any:
    """Return a key, an index or a slice; None for each element."""
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


def _follow(steps: tuple[Any, ...]) -> Get:
    if None in steps:
        at = steps.index(None)
        before, after = _follow(steps[:at]), _follow(steps[at + 1 :])
        return lambda document: _each(before(document), after)

    def get(document: Any) -> Any:
        try:
            for step in steps:
                document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
        return document

    return get


def _each(found: Any, get: Get) -> list[Any] | None:
    return [get(element) for element in found] if isinstance(found, list) else None
