"""What the drivers of the SDKs share: addresses, the questions, and how they report.

A driver runs in the environment of its SDK, without Tollway: it asks through the gateway at BASE
and prints one JSON object, each feature's name with "" or what went wrong.
"""

import base64
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator

BASE = os.environ["BASE"]  # of the gateway, without a path
KEY = os.environ["KEY"]
BROKE_KEY = os.environ["BROKE_KEY"]  # of a tenant whose budget is spent
UPSTREAM = os.environ["UPSTREAM"]

OPENAI_MODEL, CLAUDE, GEMINI = "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
# The upstream's words for each question; see compat-sdks.
HELLO, WEATHER, LOOK, WHERE = "hello", "the weather?", "look at this", "where are 21 degrees?"
FAIL, SLOWLY = "say no", "count slowly"
TEXT, SUNNY, CAT, NO = "héllo 北京", "It is sunny in Rome.", "a cat", "upstream says no"
ROME = {"city": "Rome", "degrees": 21}


def same(seen: object, want: object) -> None:
    if seen != want:
        raise AssertionError(f"{seen!r}, not {want!r}")


def within(part: str, text: object) -> None:
    if part not in str(text):
        raise AssertionError(f"{part!r} is not in {str(text)[:200]!r}")


def text_of(parts: Iterable[str | None]) -> str:
    return "".join(part for part in parts if part)


def raised(call: Callable[[], object]) -> Exception:
    """Return what a call raises; AssertionError if it raises nothing."""
    try:
        call()
    except Exception as wrong:
        return wrong
    raise AssertionError("nothing was raised")


def count(name: str) -> int:
    """Return a count of the upstream: requests `asked`, or connections `cut` while it sent."""
    with urllib.request.urlopen(f"{UPSTREAM}/counts") as reply:
        return int(json.load(reply)[name])


def aborted(leave: Callable[[], object]) -> None:
    """Check that the upstream is hung up on when the client leaves its stream."""
    before = count("cut")
    leave()
    until = time.monotonic() + 5
    while count("cut") == before:
        if time.monotonic() > until:
            raise AssertionError("the upstream goes on")
        time.sleep(0.05)


def leave(stream: Iterator[object], close: Callable[[], object] | None = None) -> None:
    """Read a little of a stream, then leave it."""
    next(stream)
    next(stream)
    (close or stream.close)()  # type: ignore[attr-defined]


def refused(call: Callable[[], object], part: str = "budget") -> Exception:
    """Check that a spent budget raises at once, says why, and asks the upstream nothing."""
    before = count("asked")
    wrong = raised(call)
    within(part, wrong)
    same(count("asked"), before)
    return wrong


def report(features: dict[str, Callable[[], object]]) -> None:
    """Try all features, and print what became of them."""
    found = {}
    for name, check in features.items():
        try:
            check()
            found[name] = ""
        except Exception as wrong:
            found[name] = f"{type(wrong).__name__}: {wrong}"[:300]
    print(json.dumps(found))
