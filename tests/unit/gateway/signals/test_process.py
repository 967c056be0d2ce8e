"""Programs that are asked line by line: long answers, too many of them, death, and waiting."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.until import until
from tollway.gateway.signals.local_hooks import CHECKER, PATTERN_HELLO
from tollway.gateway.signals.ports import HookFailed
from tollway.gateway.signals.process import LINE_BYTES_MAX, Program

TIMEOUT_S = 60.0  # never reached


def program(folder: Path, body: str, **more: Any) -> Program:
    """Return a program that does `body` with each `line`."""
    file = folder / "program.py"
    head = "import json, os, signal, sys\nfor line in sys.stdin:\n"
    file.write_text(head + "".join(f"    {one}\n" for one in body.splitlines()))
    return Program((sys.executable, "-I", str(file)), **{"timeout_s": TIMEOUT_S, **more})


@pytest.mark.parametrize(("line_bytes", "passes"), [(8 << 20, True), (LINE_BYTES_MAX, False)])
def test_the_longest_line_of_a_program_is_what_is_said(line_bytes: int, passes: bool) -> None:
    async def main() -> None:
        checker = Program(CHECKER, timeout_s=TIMEOUT_S, hello=PATTERN_HELLO, line_bytes=line_bytes)
        texts = ["文" * 300_000, "a secret"]
        try:
            asked = {"pattern": "secret", "texts": texts, "replacement": "x"}
            if passes:
                assert await checker.ask(asked) == {"found": True, "texts": [texts[0], "a x"]}
            else:
                with pytest.raises(HookFailed):
                    await checker.ask(asked)
        finally:
            await checker.aclose()

    asyncio.run(main())


def test_a_line_too_many_is_no_answer_to_the_next_question(tmp_path: Path) -> None:
    # The two lines are written at once, so that the second is there with the first.
    body = 'print(line.strip() + "\\n" + line.strip(), flush=True)'

    async def main() -> None:
        asked = program(tmp_path, body)
        try:
            replies = [await asked.ask({"n": n}) for n in range(3)]
            assert replies == [{"n": 0}, {"n": 1}, {"n": 2}]
        finally:
            await asked.aclose()

    asyncio.run(main())


def test_a_late_line_is_no_answer_to_the_next_question_and_ends_its_process(
    tmp_path: Path,
) -> None:
    # The answer to each line but the first comes after one more of the line before, as if that had
    # been late: it arrives while the next question waits.
    body = """
told = json.loads(line)
if told["n"]:
    print(json.dumps({"id": told["id"] - 1, "n": "late"}), flush=True)
print(json.dumps({"id": told["id"], "n": told["n"], "process": os.getpid()}), flush=True)"""

    async def main() -> None:
        asked = program(tmp_path, body.strip())
        try:
            first = await asked.ask({"n": 0})
            with pytest.raises(HookFailed, match="the `id` of its line"):
                await asked.ask({"n": 1})
            assert (await asked.ask({"n": 0}))["process"] != first["process"]
        finally:
            await asked.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("reply", ["7", "null", "{}", '{"id": "1"}', "[1]", "nonsense"])
def test_a_reply_without_the_id_of_its_line_is_a_failure(reply: str, tmp_path: Path) -> None:
    async def main() -> None:
        asked = program(tmp_path, f"print({reply!r}, flush=True)")
        try:
            with pytest.raises(HookFailed):
                await asked.ask({})
        finally:
            await asked.aclose()

    asyncio.run(main())


def test_a_process_that_has_died_while_idle_is_not_asked(tmp_path: Path) -> None:
    body = (
        'print(json.dumps({**json.loads(line), "process": os.getpid()}), flush=True)\nos._exit(0)'
    )

    async def main() -> None:
        asked = program(tmp_path, body)
        try:
            first = await asked.ask({})
            (idle,) = asked._idle
            await until(lambda: idle.returncode is not None)
            assert await asked.ask({}) != first
        finally:
            await asked.aclose()

    asyncio.run(main())


def test_waiting_for_a_free_process_ends(tmp_path: Path) -> None:
    async def main() -> None:
        asked = program(tmp_path, "signal.pause()", wait_s=0.001)
        first = asyncio.create_task(asked.ask({}))
        await until(lambda: asked._slots.used == 1)
        with pytest.raises(HookFailed, match="no free process"):
            await asked.ask({})
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not asked._slots.used
        await asked.aclose()

    asyncio.run(main())
