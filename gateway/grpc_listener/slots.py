"""The calls that one worker serves at once: a limit, and each caller's share of it.

A slot is taken before the message of a call is read, by its key or address: whoever sends large
messages, or opens calls and sends none, leaves room for others.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tollway.backends.concurrency.shares import Shares
from tollway.gateway.grpc_listener.failures import UNAVAILABLE, Failed

_REFUSED = [(b"retry-after", b"1"), (b"x-tollway-reason", b"overloaded")]


class CallSlots:
    """The slots for calls and open streams."""

    # The mutable state is how many are taken, and by whom.

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._shares = Shares()

    @contextmanager
    def taken(self, caller: str) -> Iterator[None]:
        """Hold a slot for a caller; Failed if none is free, or if it has its share."""
        free = self._most - self._count
        if not free or not self._shares.take(caller, free):
            why = "this gateway has as many calls over gRPC as it serves at once; try again"
            raise Failed(UNAVAILABLE, why, _REFUSED)
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._shares.leave(caller)
