"""The faults that are active now, and a way to wait for them to change."""

import asyncio
import contextlib
from collections import Counter

from tollway.gameday.faults import NOTHING, Faults


class ActiveFaults:
    """The active faults. Its mutable state: the faults, and how many replies are left to swallow.

    `counts`: connections, and those that the server `refused`; replies `swallowed`; connections
    `cut` and `reset` by a fault; bytes `corrupted`.
    """

    def __init__(self) -> None:
        self.faults = NOTHING
        self.counts: Counter[str] = Counter()
        self._swallow = 0
        self._changed = asyncio.Event()

    def set(self, faults: Faults) -> None:
        """Replace the active faults and wake every waiting task."""
        self.faults = faults
        self._swallow = faults.swallow
        self._changed.set()
        self._changed = asyncio.Event()

    def swallows(self) -> bool:
        """Whether a reply that begins now is swallowed."""
        if self._swallow == 0:
            return False
        self._swallow -= 1
        self.counts["swallowed"] += 1
        return True

    async def change(self, patience_s: float | None = None) -> None:
        """Return when the faults change, or after `patience_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._changed.wait()
