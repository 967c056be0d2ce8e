"""The command actuator: runs a program that sets the number of replicas.

The program is started without a shell. In its arguments `{backend}`, `{replicas}`, `{before}`,
`{reason}` and `{id}` are replaced by their values, and the same values are in its environment as
`TOLLWAY_BACKEND` and so on. Of the gateway's environment it gets a few harmless variables and those
that the operator names, never the gateway's secrets. Exit status 0 means that the change was made.
A program that takes too long is killed with all it started in its session.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence

from tollway.gateway.scaling.actuators.port import Change, Outcome, readable

OUTPUT_BYTES_MAX = 4096  # of what it prints, the end: that is where errors say what is wrong
_READ_BYTES = 64 << 10
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")


class CommandActuator:
    """Runs one command for each change, one at a time."""

    # It has no mutable state: a process lives as long as its `apply`.

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        passed: Sequence[str] = (),
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`passed`: names of further variables of `environ` that the program gets."""
        self._command = tuple(command)
        self._timeout_s = timeout_s
        self._environ = {
            name: environ[name] for name in (*_ENVIRONMENT, *passed) if name in environ
        }

    async def apply(self, change: Change) -> Outcome:
        """Run the command for a change."""
        values = {
            "backend": change.backend,
            "replicas": str(change.replicas),
            "before": "" if change.before is None else str(change.before),
            "reason": change.reason,
            "id": change.id,
        }
        told = {f"TOLLWAY_{name.upper()}": value for name, value in values.items()}
        words = [filled(word, values) for word in self._command]
        tail = bytearray()
        with _collected(tail) as written:
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=written,
                    stderr=asyncio.subprocess.STDOUT,
                    env={**self._environ, **told},
                    start_new_session=True,
                )
            except (OSError, ValueError) as exc:
                why = getattr(exc, "strerror", None) or str(exc)
                return Outcome(f"{self._command[0]} cannot be started: {why}")
            problem = await self._ended(process)
        return Outcome(problem, readable(tail.decode(errors="replace")))

    async def _ended(self, process: asyncio.subprocess.Process) -> str:
        """Wait for a program, and end it if it takes too long; return what went wrong, or ""."""
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await process.wait()
        except TimeoutError:
            return f"took longer than {self._timeout_s:g} s and was ended"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if status < 0:
            return f"was ended by signal {-status}"
        return f"exit status {status}" if status else ""

    async def aclose(self) -> None:
        """Do nothing."""


def filled(word: str, values: Mapping[str, str]) -> str:
    """Return an argument with its placeholders replaced; other braces stay as they are."""
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


@contextlib.contextmanager
def _collected(tail: bytearray) -> Iterator[int]:
    """Yield a pipe to write to; the last bytes that are written stand in `tail` at the end.

    Not asyncio's own pipe: a server that the program left running holds it open, and the program
    would seem not to end.
    """
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(reader, _READ_BYTES):
                tail.extend(data)
                del tail[:-OUTPUT_BYTES_MAX]
                if len(data) < _READ_BYTES:
                    return
            loop.remove_reader(reader)

    loop.add_reader(reader, read)
    try:
        yield writer
    finally:
        os.close(writer)
        loop.remove_reader(reader)
        read()
        os.close(reader)
