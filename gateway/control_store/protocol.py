"""The port of a control store: small JSON documents that gateways share, with compare-and-set.

It holds what a gateway must agree on with others and keep over a restart, such as the state of a
rollout. It is asked off the request path, about once a second.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

DOCUMENT_BYTES_MAX = 1 << 20
"""Largest document: one process' evidence on a rollout takes 12 KB, its history 200 KB."""

INLINE_BYTES_MAX = 1 << 16
"""Largest text that is parsed on the event loop, in 0.2 ms; larger ones are in a thread."""

Document = Any
"""A value of JSON types."""


def text_of(document: Document) -> str:
    """Return a document as JSON text; ValueError if it is larger than DOCUMENT_BYTES_MAX."""
    text = orjson.dumps(document)
    if len(text) > DOCUMENT_BYTES_MAX:
        raise ValueError(f"a document of {len(text)} bytes, not at most {DOCUMENT_BYTES_MAX}")
    return text.decode()


async def parsed(texts: Mapping[str, str]) -> dict[str, Document]:
    """Return documents from their texts; large ones are parsed in a thread."""

    def parse() -> dict[str, Document]:
        return {key: orjson.loads(text) for key, text in texts.items()}

    if sum(map(len, texts.values())) <= INLINE_BYTES_MAX:
        return parse()
    return await asyncio.to_thread(parse)


class StoreUnavailable(Exception):  # noqa: N818 - says a state
    """The store did not answer; whether a write was done is unknown."""


class ControlStore(Protocol):
    """Stores documents by key; keys are paths such as `rollouts/digits/state`.

    What is before the last slash is a document's folder. A folder is read and deleted at once, in
    time that depends on its own size and not on the store's.
    """

    async def open(self) -> None:
        """Connect. All methods raise StoreUnavailable if the store does not answer."""

    async def close(self) -> None:
        """Disconnect."""

    async def get(self, key: str) -> tuple[Document, int] | None:
        """Return a document and its revision (1 or more); None if there is none."""

    async def put(self, key: str, document: Document, revision: int) -> bool:
        """Replace a document that has this revision (0: there is none); False if it has another."""

    async def write(self, key: str, document: Document) -> None:
        """Write a document, whatever its revision is."""

    async def list(self, folder: str) -> dict[str, Document]:
        """Return the documents of a folder by key; not those of folders in it."""

    async def delete(self, folder: str) -> None:
        """Delete the documents of a folder; not those of folders in it."""

    async def remove(self, key: str) -> None:
        """Delete one document, if it is there."""

    async def lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew a lease; False if another holder has it and it has not expired."""
