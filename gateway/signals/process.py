"""Programs that score answers: child processes that read a line of JSON and write one.

    stdin    {"id": 7, "answer": "...", "request": {...}, "backend": "...", ...}
    stdout   {"id": 7, "score": 0.8}   from 0 to 1; null for no opinion

A program answers one line at a time and is used again. Its reply has the line's `id`: a line that
it writes late, or one too many, is never taken for the answer to another. One that takes too long,
dies, writes too long a line, a second one or another `id` is killed with all it started, and
another is started for the next answer. It has an environment of its own, without the gateway's
secrets.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tollway.gateway.signals.ports import HookFailed, encoded
from tollway.gateway.signals.slots import FairSlots

LINE_BYTES_MAX = 64 << 10  # of what a program writes: a score and perhaps why
START_S = 30.0  # Python and its imports on a busy machine
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")


class Program:
    """Child processes of one command, as many as may run at once."""

    # The mutable state is the places in use, the idle processes, the number of lines written, and
    # whether it is closed.

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        start_s: float = START_S,
        most: int = 1,
        hello: Mapping[str, Any] | None = None,
        line_bytes: int = LINE_BYTES_MAX,
        wait_s: float | None = None,
    ) -> None:
        """`most`: processes at once. `start_s`: the time that a process may take to start.

        `line_bytes`: the longest line that it may write. `wait_s`: the time to wait for a free
        process; None for any.

        `hello`: a document that a new process is asked first, so that the time of its start is not
        part of the first answer's; without one, the first answer may take both times.
        """
        self._hello = hello
        self._command = tuple(command)
        self._timeout_s = timeout_s
        self._start_s = start_s
        self._line_bytes = line_bytes
        self._wait_s = wait_s
        self._slots = FairSlots(most)
        self._lines = 0
        self._idle: list[asyncio.subprocess.Process] = []
        self._closed = False

    async def ask(self, document: Mapping[str, Any], tenant: str = "") -> dict[str, Any]:
        """Return the object that the program writes for one. Raises HookFailed.

        `tenant`: on behalf of which it is asked; tenants share the processes.
        """
        text = encoded(document)
        try:
            async with asyncio.timeout(self._wait_s):
                await self._slots.acquire(tenant)
        except TimeoutError as exc:
            why = f"{self._command[0]} had no free process for {self._wait_s:g} s"
            raise HookFailed(why) from exc
        try:
            return await self._answered(text)
        finally:
            self._slots.release(tenant)

    async def _answered(self, text: bytes) -> dict[str, Any]:
        limit_s = self._timeout_s
        process = await self._waiting()
        if process is None:
            process = await self._start()
            limit_s += self._start_s
        done = False
        try:
            if limit_s > self._timeout_s and self._hello is not None:
                async with asyncio.timeout(self._start_s):
                    await self._exchange(process, encoded(self._hello))
                limit_s = self._timeout_s
            async with asyncio.timeout(limit_s):
                answer = await self._exchange(process, text)
            done = True
        except TimeoutError as exc:
            raise HookFailed(f"{self._command[0]} took longer than {limit_s:g} s") from exc
        except (OSError, ValueError, EOFError) as exc:
            raise HookFailed(f"{self._command[0]}: {exc or 'ended'}") from exc
        finally:
            if done and not self._closed:
                self._idle.append(process)
            else:
                await _kill(process)
        return answer

    async def _exchange(self, process: asyncio.subprocess.Process, text: bytes) -> dict[str, Any]:
        """Write an object and return the reply to it. Raises OSError, ValueError, EOFError."""
        self._lines += 1
        number = self._lines
        comma = b"," if len(text) > 2 else b""
        line = b'{"id":%d%b%b\n' % (number, comma, text[1:])
        reply = orjson.loads(await _exchange(process, line))
        if not isinstance(reply, dict) or reply.pop("id", None) != number:
            said = str(reply)[:80]
            raise ValueError(f"replied {said!r}, which is not an object with the `id` of its line")
        return reply

    async def _waiting(self) -> asyncio.subprocess.Process | None:
        """Return an idle process that can be asked, else None; end those that cannot."""
        while self._idle:
            process = self._idle.pop()
            if not (_has_ended(process) or _has_written(process)):
                return process
            await _kill(process)
        return None

    async def _start(self) -> asyncio.subprocess.Process:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
                limit=self._line_bytes,
            )
        except OSError as exc:
            raise HookFailed(f"{self._command[0]} cannot be started: {exc.strerror}") from exc

    async def aclose(self) -> None:
        """End the idle processes; one that is in use ends after its answer."""
        self._closed = True
        idle, self._idle = self._idle, []
        for process in idle:
            await _kill(process)


async def _exchange(process: asyncio.subprocess.Process, line: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    await process.stdin.drain()
    reply = await process.stdout.readline()  # ValueError above the limit
    if not reply.endswith(b"\n"):
        raise EOFError("ended without an answer")
    return reply


def _has_ended(process: asyncio.subprocess.Process) -> bool:
    assert process.stdout is not None
    return process.returncode is not None or process.stdout.at_eof()


def _has_written(process: asyncio.subprocess.Process) -> bool:
    """Whether a process has written more than its answer: its next lines would not be answers."""
    # No public attribute tells what waits in a StreamReader without waiting for it.
    return bool(process.stdout._buffer)  # type: ignore[union-attr]


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End a process and what it started, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()
