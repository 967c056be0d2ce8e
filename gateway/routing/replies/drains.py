"""Reads on streams whose clients have left, for the usage at their end.

A provider that generates and bills a stream to its end, whether or not anybody reads it, reports
what it bills only there. So such a stream is read on for a while by the task that served it: it
keeps its place among the requests of the gateway, of its tenant and of its backend. How many are
read on at once is limited, in all and for each tenant; beyond that a stream is closed.
"""

import asyncio
from collections import Counter

from tollway.backends.types import BackendError
from tollway.gateway.routing.replies.stream_relay import StreamRelay


class Drains:
    """The streams that are read on in one worker."""

    # The mutable state is how many there are, by tenant, and how they ended.

    def __init__(self, most: int = 0, tenant_most: int = 0) -> None:
        """At most `most` at once, and `tenant_most` of one tenant."""
        self._most = most
        self._tenant_most = tenant_most
        self._by_tenant: Counter[str] = Counter()
        self.ends = dict.fromkeys(("whole", "cut", "late", "refused"), 0)
        """How many were read to their end, broke off, took too long, or were too many."""

    @property
    def count(self) -> int:
        """How many are being read on."""
        return self._by_tenant.total()

    async def drain(self, relay: StreamRelay, tenant: str) -> bool:
        """Read a stream on to its end, and drop what comes; return False where it must be closed.

        The stream is not closed here. Where it was not read whole, its usage is not known.
        """
        if relay.drain_s <= 0.0:
            return False
        if self.count >= self._most or self._by_tenant[tenant] >= self._tenant_most:
            self.ends["refused"] += 1
            return False
        relay.follower.mute()
        self._by_tenant[tenant] += 1
        end = "cut"
        try:
            async with asyncio.timeout(relay.drain_s):
                while await relay.read():
                    pass
            end = "whole"
        except TimeoutError:
            end = "late"
        except BackendError:
            pass  # what it broke off with is of no use to a client that has left
        finally:
            self.ends[end] += 1
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
        return True

    def revise(self, most: int, tenant_most: int) -> None:
        """Take other limits; what is being read on is read on."""
        self._most, self._tenant_most = most, tenant_most
