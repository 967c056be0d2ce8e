"""Tests wait within bounds: by `until`, and by no loop that could go on for ever."""

import ast
import asyncio
import re
from pathlib import Path

import pytest

from tests.support.until import until, until_now

TESTS = Path(__file__).parent
WAITS = re.compile(r"sleep\(|suppress\(|except ")  # what `waits` looks for


def test_until_returns_what_became_true() -> None:
    seen = iter([0, [], "", 7])

    async def later() -> object:
        return next(seen)

    assert asyncio.run(until(later)) == 7
    words = iter(["", "word"])
    assert until_now(lambda: next(words)) == "word"


def test_until_gives_up_on_what_stays_false_and_on_what_hangs() -> None:
    async def hangs() -> bool:
        await asyncio.sleep(3600)
        return True

    for ready in (lambda: 0, hangs):
        with pytest.raises(AssertionError, match=r"not true within 0.05 s: .*test_bounds.py"):
            asyncio.run(until(ready, within_s=0.05))
    with pytest.raises(AssertionError, match="is 0"):
        until_now(lambda: 0, within_s=0.05)


def waits(tree: ast.Module) -> list[int]:
    """Return the lines of `while` loops that could go on for ever, waiting for something.

    A loop waits if it sleeps, or if it does again what has failed. It ends if it stands in an
    `asyncio.timeout`, or looks at the time. Two kinds are left alone: those that others end by an
    event (load, until a test is over), and scripted servers, which end with their connection.
    """
    bounded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith) and "asyncio.timeout" in _heads(node)
        for inner in ast.walk(node)
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.While)
        and id(node) not in bounded
        and (_sleeps(node) or _repeats(node))
        and not _called(node) & {"monotonic", "is_set", "is_closing", "request"}
    ]


def _heads(node: ast.AsyncWith) -> str:
    return " ".join(ast.unparse(item.context_expr) for item in node.items)


def _called(loop: ast.While) -> set[str]:
    """Return the last names of what a loop calls."""
    calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
    return {ast.unparse(call.func).rpartition(".")[2] for call in calls}


def _sleeps(loop: ast.While) -> bool:
    # `sleep(0)` gives others a turn: it waits for nothing.
    calls = [ast.unparse(node) for node in ast.walk(loop) if isinstance(node, ast.Call)]
    return any("sleep(" in call and not call.endswith("sleep(0)") for call in calls)


def _repeats(loop: ast.While) -> bool:
    """Return whether a loop ignores errors: by `suppress`, or a handler that goes on."""
    handlers = [node for node in ast.walk(loop) if isinstance(node, ast.ExceptHandler)]
    goes_on = [isinstance(one.body[-1], ast.Continue | ast.Pass) for one in handlers]
    return "suppress" in _called(loop) or any(goes_on)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("while not x:\n  time.sleep(1)", [1]),
        ("async def f():\n  while not await x():\n    await asyncio.sleep(1)", [2]),
        ("while True:\n  if x():\n    break\n  sleep(0.1)", [1]),
        ("while True:\n  try:\n    connect()\n  except OSError:\n    continue\n  break", [1]),
        ("while True:\n  with suppress(OSError):\n    return connect()", [1]),
        ("while not over.is_set():\n  ask()\n  sleep(1)", []),
        ("while not x:\n  assert time.monotonic() < end_s\n  sleep(1)", []),
        ("while x:\n  x -= 1", []),
        ("async def f():\n  while True:\n    x += 1\n    await asyncio.sleep(0)", []),
        ("async def f():\n  while True:\n    await wire.request()\n    await sleep(1)", []),
        (
            "async def f():\n  async with asyncio.timeout(9):\n    while not x:\n"
            "      await asyncio.sleep(1)",
            [],
        ),
    ],
)
def test_a_loop_that_waits_without_a_bound_is_found(text: str, lines: list[int]) -> None:
    assert waits(ast.parse(text)) == lines


def test_all_tests_wait_within_bounds() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        if "while " in (text := path.read_text()) and WAITS.search(text)
        for line in waits(ast.parse(text))
    ]
    assert found == []
