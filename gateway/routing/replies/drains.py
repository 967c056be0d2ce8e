"""Drains: reads streams whose clients have disconnected, for the usage reported at their end.

Some providers generate and bill a stream to its end, whether or not anybody reads it, and report
the billed usage only at the end. The task that served such a stream therefore keeps reading it for
a while. The stream still counts as a request of the gateway, of its tenant and of its backend. The
number of drains at once is limited, in total and per tenant; beyond that a stream is closed.
"""

import asyncio
from collections import Counter

from tollway.backends.errors import BackendError
from tollway.gateway.routing.replies.stream_relay import StreamRelay


class Drains:
    """The streams being drained in one worker."""

    # The mutable state is the number of drains by tenant, and counts of how they ended.

    def __init__(self, most: int = 0, tenant_most: int = 0) -> None:
        """Allow `most` drains at once, and `tenant_most` for one tenant."""
        self._most = most
        self._tenant_most = tenant_most
        self._by_tenant: Counter[str] = Counter()
        self.ends = dict.fromkeys(("whole", "cut", "late", "refused"), 0)
        """Counts of streams that were read to their end, broke off, took too long, or were refused
because of the limit."""

    @property
    def count(self) -> int:
        """The number of streams being drained."""
        return self._by_tenant.total()

    async def drain(self, relay: StreamRelay, tenant: str) -> bool:
        """Read a stream to its end and discard the data; return False if it must be closed now.

        The stream is not closed here. If it was not read to its end, its usage is unknown.
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
            pass  # the error is of no use to a client that has disconnected
        finally:
            self.ends[end] += 1
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
        return True

    def revise(self, most: int, tenant_most: int) -> None:
        """Set new limits; drains in progress continue."""
        self._most, self._tenant_most = most, tenant_most
