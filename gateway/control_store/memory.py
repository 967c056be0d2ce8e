"""The control store in memory: for one process, simulations and tests."""

import json
from collections.abc import Callable

from tollway.gateway.control_store.protocol import Document


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
        return None if found is None else (json.loads(found[0]), found[1])

    async def put(self, key: str, document: Document, revision: int) -> bool:
        """Replace a document that has this revision."""
        present = self._documents.get(key, ("", 0))[1]
        if present != revision:
            return False
        self._documents[key] = (json.dumps(document), present + 1)
        return True

    async def write(self, key: str, document: Document) -> None:
        """Write a document."""
        present = self._documents.get(key, ("", 0))[1]
        self._documents[key] = (json.dumps(document), present + 1)

    async def list(self, prefix: str) -> dict[str, Document]:
        """Return documents by key."""
        return {
            key: json.loads(text)
            for key, (text, _) in sorted(self._documents.items())
            if key.startswith(prefix)
        }

    async def delete(self, prefix: str) -> None:
        """Delete documents."""
        for key in [key for key in self._documents if key.startswith(prefix)]:
            del self._documents[key]

    async def lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew a lease."""
        now_s = self._clock()
        owner, until_s = self._leases.get(name, (holder, 0.0))
        if owner != holder and now_s < until_s:
            return False
        self._leases[name] = (holder, now_s + ttl_s)
        return True
