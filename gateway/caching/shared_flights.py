"""Flights that gateways share: of all processes with one second tier, one asks for an answer.

Theory of operation. Within a process, requests with one key wait for the first (`flights`). Across
processes, the first ones of each agree by a record in the second tier:

    TOKEN     a process asks; the record lives LIFE_S, and is renewed until the flight has ended
    done      the answer is in the second tier
    nothing   there is no answer that could be kept: all ask for themselves

A process that finds `done` and no answer frees the record: the answer has expired. One that finds
another's token looks again until the answer is there, the record is gone, or
its time is over. A holder that is killed renews nothing, so that after LIFE_S another takes its
place; one that merely hangs loses its record in the same way, and costs a second call, never a
wrong answer. `done` and `nothing` live for OVER_S, for those that were about to ask.

If the second tier does not answer, each process asks for itself.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from tollway.gateway.caching.entry import Entry
from tollway.gateway.caching.flights import NOTHING
from tollway.gateway.caching.remote import CacheUnavailable, RemoteCache

LIFE_S = 2.0  # what the others wait for a holder that was killed; far above a pause of its loop
RENEWED = 4  # times in a life
OVER_S = 10.0  # a process with many requests may be so late to look
LOOKS_S, LOOKS_S_MAX = 0.005, 0.1  # between looks: doubled from the first to the second
LEAD = "lead"
"""This process asks, and ends the flight."""

_DONE, _NOTHING = b"done", b"nothing"


class RemoteFlights(Protocol):
    """The records of flights in a store that several gateways share."""

    async def claim(self, key: bytes, token: bytes, life_s: float) -> bytes | None:
        """Write a record if there is none, and return None; else what there is.

        Raises CacheUnavailable, as the others do.
        """

    async def renew(self, key: bytes, token: bytes, life_s: float) -> bool:
        """Let a record live on if it is `token`; return whether it is. A life of 0 ends it."""

    async def end(self, key: bytes, token: bytes, result: bytes, life_s: float) -> None:
        """Replace a record of ours by a result."""


class SharedFlights:
    """The flights that this process leads or waits for."""

    # The mutable state is the tokens of the flights that it leads, and what renews them.

    def __init__(
        self,
        store: RemoteFlights,
        remote: RemoteCache,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`remote` holds the answers; `clock` is that of the deadlines."""
        self._store = store
        self._remote = remote
        self.clock = clock
        self._sleep = sleep
        self._led: dict[bytes, tuple[bytes, asyncio.Task[None]]] = {}
        self.led = self.waited = 0

    async def join(self, key: bytes, until_s: float, suits: Callable[[Entry], bool]) -> Entry | str:
        """Return the answer that another process has got and that `suits`, LEAD, or NOTHING.

        LEAD: this process is to ask, and calls `end` in any case. NOTHING: it is to ask, and
        nobody waits for it.
        """
        token, pause_s = secrets.token_bytes(12), LOOKS_S
        counted = gone = False
        try:
            while True:
                found = None if self._remote.rests else await self._claimed(key, token)
                if found is None:
                    return await self._first(key, suits, waited=counted)
                if not counted:
                    self.waited, counted = self.waited + 1, True
                if found == _NOTHING:
                    return NOTHING
                entry = await self._remote.get(key)
                if entry is not None and suits(entry):
                    return entry
                left_s = until_s - self.clock()
                if left_s <= 0.0 or (found == _DONE and gone):
                    return NOTHING
                if found == _DONE:  # the answer has expired since
                    gone = True
                    await self._store.renew(key, _DONE, 0.0)
                    continue
                await self._sleep(min(pause_s, left_s))
                pause_s = min(2.0 * pause_s, LOOKS_S_MAX)
        except CacheUnavailable:
            return NOTHING

    async def _first(
        self, key: bytes, suits: Callable[[Entry], bool], *, waited: bool
    ) -> Entry | str:
        """Return LEAD if this process has a flight, unless it looked so late that it has ended."""
        if key not in self._led:
            return NOTHING
        if not waited:
            return LEAD
        try:
            entry = await self._remote.get(key)
        except asyncio.CancelledError:  # nobody is left to end it: the record ends with its life
            self._led.pop(key)[1].cancel()
            raise
        if entry is None or not suits(entry):
            return LEAD
        await self.end(key, is_kept=True)
        return entry

    async def _claimed(self, key: bytes, token: bytes) -> bytes | None:
        """Claim a flight; return None if this process has it, else what there is."""
        found = await self._store.claim(key, token, LIFE_S)
        if found is None:
            self.led += 1
            self._led[key] = token, asyncio.create_task(self._renewing(key, token))
        return found

    async def _renewing(self, key: bytes, token: bytes) -> None:
        while True:
            await self._sleep(LIFE_S / RENEWED)
            with contextlib.suppress(CacheUnavailable):  # the next one may be in time
                if not await self._store.renew(key, token, LIFE_S):
                    return

    async def end(self, key: bytes, *, is_kept: bool, left: bool = False) -> None:
        """End a flight that this process leads: whether its answer is in the second tier.

        `left`: its client has disconnected, so another process takes its place.
        """
        led = self._led.pop(key, None)
        if led is None:
            return  # it was closed
        token, renewing = led
        renewing.cancel()
        with contextlib.suppress(CacheUnavailable):
            if left:
                await self._store.renew(key, token, 0.0)
            else:
                await self._store.end(key, token, _DONE if is_kept else _NOTHING, OVER_S)

    async def close(self) -> None:
        """Renew nothing any more; others wait no longer than a life."""
        for _, renewing in self._led.values():
            renewing.cancel()
        await asyncio.gather(*[one for _, one in self._led.values()], return_exceptions=True)
        self._led.clear()
