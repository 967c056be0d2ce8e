"""Tests wait within bounds: by `until`, and by no loop that could sleep for ever."""

import ast
import asyncio
from pathlib import Path

import pytest

from tests.support.until import until, until_now

TESTS = Path(__file__).parent


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


def waits(tree: ast.AST) -> list[int]:
    """Return the lines of `while` loops that do nothing but sleep."""
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.While)]
    return [loop.lineno for loop in loops if all(_sleeps(one) for one in loop.body)]


def _sleeps(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Expr):
        return False
    called = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
    return isinstance(called, ast.Call) and ast.unparse(called.func).split(".")[-1] == "sleep"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("while not x:\n  time.sleep(1)", [1]),
        ("async def f():\n  while not await x():\n    await asyncio.sleep(1)", [2]),
        ("while not x:\n  sleep(1)", [1]),
        ("while not over:\n  serve()\n  sleep(1)", []),
        ("while x:\n  x -= 1", []),
    ],
)
def test_a_loop_that_only_sleeps_is_found(text: str, lines: list[int]) -> None:
    assert waits(ast.parse(text)) == lines


def test_all_tests_wait_by_until() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        if "sleep(" in (text := path.read_text())
        for line in waits(ast.parse(text))
    ]
    assert found == []
