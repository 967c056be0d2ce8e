"""The port of a control store: small JSON documents that gateways share, with compare-and-set.

It holds what a gateway must agree on with others and keep over a restart, such as the state of a
rollout. It is asked off the request path, about once a second.
"""

from typing import Any, Protocol

DOCUMENT_BYTES_MAX = 1 << 20
"""Largest document: one process' evidence on a rollout takes some 20 KB."""

Document = Any
"""A value of JSON types."""


class StoreUnavailable(Exception):  # noqa: N818 - says a state
    """The store did not answer; whether a write was done is unknown."""


class ControlStore(Protocol):
    """Stores documents by key; keys are paths such as `rollouts/digits/state`."""

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

    async def list(self, prefix: str) -> dict[str, Document]:
        """Return the documents whose keys begin with `prefix`, by key."""

    async def delete(self, prefix: str) -> None:
        """Delete the documents whose keys begin with `prefix`."""

    async def lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew a lease; False if another holder has it and it has not expired."""
