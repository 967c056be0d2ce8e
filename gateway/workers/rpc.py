"""Peers: what the workers of one gateway ask each other, over Unix sockets.

One question a connection: a JSON document each way, its length before it. They are few (a scrape,
a feedback, an operator's look), so nothing is kept open. The folder is the supervisor's own, and
closed to other users.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger("tollway.peers")

TIMEOUT_S = 2.0  # a worker that is alive answers within milliseconds
DOCUMENT_BYTES_MAX = 64 << 20  # the metrics of ten thousand tenants take about ten

Answerer = Callable[[Any], Awaitable[Any]]


class WorkerSilent(Exception):  # noqa: N818 - reads as what happened
    """A worker that was asked did not answer."""


class WorkerRpc:
    """Answers other workers, and asks them."""

    # The mutable state is the server that listens for them.

    def __init__(self, folder: Path, index: int) -> None:
        self._folder = folder
        self._index = index
        self._answers: Mapping[str, Answerer] = {}
        self._server: asyncio.Server | None = None

    async def open(self, answers: Mapping[str, Answerer]) -> None:
        """Listen; `answers` by what may be asked."""
        self._answers = answers
        path = self._path(self._index)
        path.unlink(missing_ok=True)  # of the worker that had this seat and died
        self._server = await asyncio.start_unix_server(self._serve, str(path))

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._path(self._index).unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.sock"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question, told = orjson.loads(await _read(reader))
            _write(writer, await self._answers[question](told))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # who asked has gone
        except Exception:  # the asker sees silence; why is ours to know
            log.exception("another worker asked what could not be answered")
        finally:
            writer.close()

    async def ask(self, index: int, question: str, told: Any = None) -> Any:
        """Return what a worker answers; Silent where it does not."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(str(self._path(index)))
                with contextlib.closing(writer):
                    _write(writer, [question, told])
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
