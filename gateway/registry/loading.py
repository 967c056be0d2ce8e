"""Makes model servers load versions: by the repository API, or by a command.

Paths: `POST /v2/repository/models/NAME/load` and `/unload` (Triton's extension of the Open
Inference Protocol, which MLServer has too). A command is run without a shell, with a bare
environment, in a group of its own that is killed when its time is over.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from tollway.backends.errors import BackendError
from tollway.backends.http.factory import open_transport
from tollway.backends.types import Call
from tollway.gateway.security.addresses import is_link_local
from tollway.gateway.settings.registry.model import LoadConfig
from tollway.gateway.settings.registry.template import Place, Template

PAUSE_S = 0.2  # between two questions whether a version is ready
OUTPUT_BYTES_MAX = 2000  # of a command, in the event of its failure
_REPLY_BYTES_MAX = 64 << 10
_CALL_S = 60.0  # a load answers when the model is loaded
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


class LoadFailed(Exception):  # noqa: N818 - reads as what happened
    """A version could not be loaded, or was not ready in time."""


class Loader:
    """Loads and unloads versions of one model."""

    def __init__(self, load: LoadConfig, address: str) -> None:
        """`address` is the server's, for versions whose place has none."""
        self._load = load
        self._address = address

    async def load(self, at: Place) -> None:
        """Load a version and return when it can serve. Raises LoadFailed."""
        load = self._load
        try:
            async with asyncio.timeout(load.timeout_s):
                if load.oip:
                    await self._repository(at, "load")
                elif load.command:
                    await _run(_filled(load.command, at))
                if path := self._ready_path(at):
                    await self._until_ready(at, path)
        except TimeoutError:
            raise LoadFailed(f"it was not ready within {load.timeout_s:g} s") from None

    async def unload(self, at: Place) -> None:
        """Unload a version. Raises LoadFailed."""
        load = self._load
        try:
            async with asyncio.timeout(load.timeout_s):
                if load.oip:
                    await self._repository(at, "unload")
                elif load.unload_command:
                    await _run(_filled(load.unload_command, at))
        except TimeoutError:
            raise LoadFailed(f"it was not unloaded within {load.timeout_s:g} s") from None

    def _ready_path(self, at: Place) -> str:
        if self._load.ready_path is not None:
            return Template(self._load.ready_path).fill(at.fields)
        if self._load.oip and at.model is not None:
            return f"/v2/models/{quote(at.model, safe='')}/ready"
        return ""

    async def _repository(self, at: Place, verb: str) -> None:
        name = at.model or at.fields["model"]
        path = f"/v2/repository/models/{quote(name, safe='')}/{verb}"
        status, text = await self._ask(at, b"POST", path, b"{}")
        if status != 200:
            raise LoadFailed(f"{verb} of {name} was answered with {status}: {text[:300]}")

    async def _until_ready(self, at: Place, path: str) -> None:
        while True:
            with contextlib.suppress(LoadFailed):
                if 200 <= (await self._ask(at, b"GET", path))[0] < 300:
                    return
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, at: Place, method: bytes, path: str, body: bytes = b"") -> tuple[int, str]:
        url = at.url or self._address
        parts = urlsplit(url)
        transport = open_transport(
            f"{parts.scheme}://{parts.netloc}", connections=1, barred=is_link_local
        )
        headers = [(b"host", parts.netloc.encode())]
        if body:
            headers.append((b"content-type", b"application/json"))
        target = f"{parts.path.rstrip('/')}{path}".encode()
        try:
            deadline_s = asyncio.get_running_loop().time() + _CALL_S
            reply = await transport.send(Call(method, target, headers, body), deadline_s)
            content = await reply.read(_REPLY_BYTES_MAX)
            return reply.status, content.decode(errors="replace")
        except (BackendError, ValueError) as exc:
            raise LoadFailed(f"{url}: {exc or type(exc).__name__}") from exc
        finally:
            await transport.aclose()


def _filled(words: Sequence[str], at: Place) -> list[str]:
    return [Template(word).fill(at.fields) for word in words]


async def _run(words: Sequence[str]) -> None:
    """Run a command; raise LoadFailed with the end of its output if it fails."""
    environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdout=PIPE, stderr=STDOUT, stdin=DEVNULL, env=environ, start_new_session=True
        )
    except OSError as exc:
        raise LoadFailed(f"{words[0]} cannot be run: {exc.strerror}") from exc
    try:
        output = await _output(process)
        code = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code != 0:
        text = output.decode(errors="replace").strip()
        raise LoadFailed(f"{words[0]} ended with code {code}: {text}")


async def _output(process: Process) -> bytes:
    """Return the end of a command's output; all of it is read, so that it never blocks."""
    assert process.stdout is not None
    end = b""
    while chunk := await process.stdout.read(64 << 10):
        end = (end + chunk)[-OUTPUT_BYTES_MAX:]
    return end
