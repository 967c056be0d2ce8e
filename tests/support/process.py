"""`tollway serve` as a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.support.http_client import http_client
from tests.support.ports import free_port
from tests.support.until import until

__all__ = ["ROOT", "Process", "free_port"]

ROOT = Path(__file__).parents[2]


class Process:
    """A gateway; its output goes to the file `log` beside its configuration."""

    def __init__(
        self,
        config: Path,
        *options: str,
        program: tuple[str, ...] = ("-m", "tollway"),
        stderr: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`program` is what Python runs; `stderr` a descriptor, if that is not the log's.

        `variables` are added to the environment.
        """
        self._log = (config.parent / "log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, *program, "serve", str(config), *options],
            cwd=ROOT,
            stdout=self._log,
            stderr=self._log if stderr is None else stderr,
            env={**os.environ, **(variables or {})},
        )

    async def ready(self, url: str, http: httpx.AsyncClient | None = None) -> None:
        async with contextlib.AsyncExitStack() as stack:
            client = http or await stack.enter_async_context(http_client())

            async def is_ready() -> bool:
                assert self._process.poll() is None, "the gateway ended while starting"
                try:
                    return (await client.get(url + "/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(is_ready, within_s=60, every_s=0.05)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    @property
    def workers(self) -> list[int]:
        """The processes that it has started."""
        pid = self._process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self) -> None:
        """Kill it in any state; its workers detect that and end."""
        self._process.kill()
        self.wait()

    def tell(self, how: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(how)

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self.kill()

    def wait(self) -> int:
        """Return its exit code, once it has ended."""
        code = self._process.wait(timeout=60)
        self._log.close()
        return code

    def end(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        return self.wait()
