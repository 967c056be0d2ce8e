"""The control store in memory: for one process, simulations and tests."""

from collections.abc import Callable

import orjson

from tollway.gateway.control_store.protocol import Document, text_of


class MemoryControlStore:
    """Stores documents in a dict, as JSON text, so that nobody shares their parts."""

    # The mutable state is the documents with their revisions, and the leases.

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds, by which leases expire."""
        self._clock = clock
        self._documents: dict[str, tuple[str, int]] = {}
        self._leases: dict[str, tuple[str, float]] = {}

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def get(self, key: str) -> tuple[Document, int] | None:
        """Return a document and its revision."""
        found = self._documents.get(key)
        return None if found is None else (orjson.loads(found[0]), found[1])

    async def put(self, key: str, document: Document, revision: int) -> bool:
        """Replace a document that has this revision."""
        present = self._documents.get(key, ("", 0))[1]
        if present != revision:
            return False
        self._documents[key] = (text_of(document), present + 1)
        return True

    async def write(self, key: str, document: Document) -> None:
        """Write a document."""
        present = self._documents.get(key, ("", 0))[1]
        self._documents[key] = (text_of(document), present + 1)

    async def list(self, folder: str) -> dict[str, Document]:
        """Return a folder's documents by key."""
        return {
            key: orjson.loads(self._documents[key][0])
            for key in sorted(self._documents)
            if key.rpartition("/")[0] == folder
        }

    async def delete(self, folder: str) -> None:
        """Delete a folder's documents."""
        for key in [key for key in self._documents if key.rpartition("/")[0] == folder]:
            del self._documents[key]

    async def remove(self, key: str) -> None:
        """Delete a document."""
        self._documents.pop(key, None)

    async def lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew a lease."""
        now_s = self._clock()
        owner, until_s = self._leases.get(name, (holder, 0.0))
        if owner != holder and now_s < until_s:
            return False
        self._leases[name] = (holder, now_s + ttl_s)
        return True
