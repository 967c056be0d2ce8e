"""The documents of rollouts in the control store, which all gateways of a ledger share.

rollouts/NAME/state             the state, replaced by compare-and-set
rollouts/NAME/ran               pairs of versions that have been started once
rollouts/NAME/history           the last moves
rollouts/NAME/evidence/MEMBER   one process' evidence on the present run
rollouts/NAME/folded            the sum of what processes that are gone have left, replaced by
                                compare-and-set
"""

import contextlib
from collections.abc import Iterable
from typing import Any

from tollway.gateway.control_store.protocol import ControlStore, StoreUnavailable
from tollway.gateway.rollouts.model import RolloutState

HISTORY_MAX = 100  # moves of one rollout that are kept, with their figures: some 200 KB
RAN_MAX = 100  # pairs of versions that have been started once
LEASE_S = 5.0  # five ticks: the next process takes over soon after a crash
FOLDED = "folded"  # no member has this name
TRIES = 10  # to add to the history, which another process may do at the same moment


class RolloutDocuments:
    """Reads and writes the documents; every method may raise StoreUnavailable."""

    # The mutable state is whether the store has been opened.

    def __init__(self, store: ControlStore, member: str) -> None:
        """`member` names this process among all gateways."""
        self._store = store
        self.member = member
        self.is_open = False

    async def open(self) -> None:
        """Connect, if that has not been done."""
        if not self.is_open:
            await self._store.open()
            self.is_open = True

    async def close(self) -> None:
        """Disconnect."""
        if self.is_open:
            await self._store.close()
            self.is_open = False

    async def lease(self, name: str) -> bool:
        """Take or renew the right to make a rollout's moves; False if another process has it."""
        return await self._store.lease(f"rollouts/{name}", self.member, LEASE_S)

    async def state(self, name: str) -> tuple[RolloutState | None, int]:
        """Return a rollout's state and its revision: (None, 0) if it was never started."""
        found = await self._store.get(_key(name, "state"))
        return (None, 0) if found is None else (RolloutState.of(found[0]), found[1])

    async def put_state(self, state: RolloutState, revision: int) -> bool:
        """Replace the state that has this revision; False if it has another by now."""
        return await self._store.put(_key(state.name, "state"), state.document(), revision)

    async def has_run(self, name: str, identity: str) -> bool:
        """Whether a pair of versions has been started once."""
        found = await self._store.get(_key(name, "ran"))
        return found is not None and identity in found[0]

    async def begin_run(self, name: str, identity: str) -> None:
        """Write down that a pair of versions was started, and delete the evidence of other runs.

        Nothing depends on it at once: what is old is told by its run.
        """
        with contextlib.suppress(StoreUnavailable):
            found = await self._store.get(_key(name, "ran"))
            names = [] if found is None else [each for each in found[0] if each != identity]
            await self._store.write(_key(name, "ran"), [*names, identity][-RAN_MAX:])
            await self._store.delete(_key(name, "evidence"))

    async def write_evidence(self, name: str, document: dict[str, Any]) -> None:
        """Write this process' evidence."""
        await self._store.write(f"{_key(name, 'evidence')}/{self.member}", document)

    async def evidence(self, name: str) -> tuple[dict[str, dict[str, Any]], int]:
        """Return the evidence of all processes by member, and the revision of their sum.

        The sum is under FOLDED. It is read last: it has what was deleted since the others were.
        """
        found = await self._store.list(_key(name, "evidence"))
        documents = {key.rpartition("/")[2]: document for key, document in found.items()}
        folded = await self._store.get(_key(name, FOLDED))
        if folded is None:
            return documents, 0
        return {**documents, FOLDED: folded[0]}, folded[1]

    async def fold(
        self, name: str, document: dict[str, Any], parts: Iterable[str], revision: int
    ) -> bool:
        """Replace the sum that has this revision, and delete the evidence of its new parts.

        The sum names its parts, so between the two nothing counts twice. False, and nothing is
        deleted, if the sum has another revision by now: another process has folded meanwhile.
        """
        if not await self._store.put(_key(name, FOLDED), document, revision):
            return False
        for member in parts:
            await self._store.remove(f"{_key(name, 'evidence')}/{member}")
        return True

    async def history(self, name: str) -> list[dict[str, Any]]:
        """Return a rollout's moves, oldest first."""
        found = await self._store.get(_key(name, "history"))
        return [] if found is None else list(found[0])

    async def remember(self, name: str, entry: dict[str, Any]) -> None:
        """Add a move to the history."""
        key = _key(name, "history")
        for _ in range(TRIES):
            found = await self._store.get(key)
            entries, revision = ([], 0) if found is None else found
            if await self._store.put(key, [*entries, entry][-HISTORY_MAX:], revision):
                return


def _key(name: str, what: str) -> str:
    return f"rollouts/{name}/{what}"
