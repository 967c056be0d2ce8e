"""Starts programs as processes, and waits until they print where they listen."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

STARTS_WITHIN_S = 120.0  # the first start trains the model: seconds, but more on a busy machine
_LISTENING = "listening on "


@dataclass(frozen=True, slots=True)
class Running:
    """A program that listens."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def stop(self) -> None:
        """Stop it and wait; kill it if it does not end within ten seconds."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def heading(self) -> str:
        """Return the first line it wrote."""
        return self.log.read_text().partition("\n")[0]


async def start(name: str, arguments: list[str], log: Path) -> Running:
    """Run `python ARGUMENTS`, and return once it listens; its output goes to a file.

    It gets its own session: a Ctrl-C here does not end it, its owner stops it. Raises RuntimeError
    with its last output if it ends or does not listen in time.
    """
    process = _spawn([sys.executable, *arguments], log)
    try:
        async with asyncio.timeout(STARTS_WITHIN_S):
            while (url := _listening(log)) is None:
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {_tail(log)}")
                await asyncio.sleep(0.05)
    except BaseException as exc:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        if isinstance(exc, TimeoutError):
            raise RuntimeError(f"{name} did not start listening: {_tail(log)}") from exc
        raise
    return Running(name, url, process, log)


def _listening(log: Path) -> str | None:
    for line in log.read_text(errors="replace").splitlines(keepends=True):
        _, found, after = line.partition(_LISTENING)
        if found and line.endswith("\n"):
            return after.split()[0]
    return None


def _tail(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").splitlines()[-5:]) or "no output"


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
