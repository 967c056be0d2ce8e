"""Calls between the workers of one gateway, over Unix sockets.

Each connection carries one request and one reply: JSON documents, each preceded by its length.
Calls are rare (a scrape, feedback, an operator's query), so no connection is kept open. The folder
belongs to the supervisor and is closed to other users.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from tollway.gateway.security.private_files import FILE_MODE

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0  # a worker that is alive answers within milliseconds
DOCUMENT_BYTES_MAX = 64 << 20  # the metrics of ten thousand tenants take about ten

Answerer = Callable[[Any], Awaitable[Any]]


class WorkerSilent(Exception):  # noqa: N818 - reads as what happened
    """A worker did not answer."""


class WorkerRpc:
    """Answers other workers and calls them."""

    # The mutable state is the server that listens for them.

    def __init__(self, folder: Path, index: int) -> None:
        self._folder = folder
        self._index = index
        self._answers: Mapping[str, Answerer] = {}
        self._server: asyncio.Server | None = None

    async def open(self, answers: Mapping[str, Answerer]) -> None:
        """Listen; `answers` maps each request to its handler."""
        self._answers = answers
        path = self._path(self._index)
        path.unlink(missing_ok=True)  # left by a predecessor that died
        self._server = await asyncio.start_unix_server(self._serve, str(path))
        path.chmod(FILE_MODE)

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._path(self._index).unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.sock"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question, argument = orjson.loads(await _read(reader))
            _write(writer, await self._answers[question](argument))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller is gone
        except Exception:  # the caller sees a timeout; the reason is logged here
            log.exception("cannot answer the request of another worker")
        finally:
            writer.close()

    async def ask(self, index: int, question: str, argument: Any = None) -> Any:
        """Return a worker's reply; WorkerSilent if there is none."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(str(self._path(index)))
                with contextlib.closing(writer):
                    _write(writer, [question, argument])
                    return orjson.loads(await _read(reader))
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as exc:
            raise WorkerSilent(f"worker {index} does not answer") from exc


async def _read(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > DOCUMENT_BYTES_MAX:
        raise ValueError(f"a document of {length} bytes")
    return await reader.readexactly(length)


def _write(writer: asyncio.StreamWriter, document: Any) -> None:
    data = orjson.dumps(document)
    writer.write(len(data).to_bytes(4, "big") + data)
