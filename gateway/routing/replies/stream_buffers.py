"""The memory that unfinished events of streams may take in one worker, and one tenant's part of it.

An event goes to the client when it is whole, so until then its bytes are buffered: an image in one
event is some megabytes. One event may have `event_bytes_max`; all streams of a worker together may
buffer `bytes_max`, of which one tenant gets half (or one whole event, if that is more), so that the
others' large events still pass while one tenant uses all it can. A stream that needs more fails;
no other is touched. Up to FREE_BYTES of a stream are not counted: nearly every event is smaller,
and such streams neither pay for the bookkeeping nor fail because others are large.
"""

from collections import Counter

FREE_BYTES = 16 << 10
"""An event of text has some hundred bytes; 2,048 streams at once buffer 32 MiB of such at most."""


class Buffers:
    """The budget of one worker."""

    # The mutable state is how many counted bytes each tenant's streams hold, and their sum.
    def __init__(self, *, event_bytes_max: int, bytes_max: int) -> None:
        """`bytes_max` is at least `event_bytes_max`."""
        assert bytes_max >= event_bytes_max, "the largest event would never fit"
        self.event_bytes_max = event_bytes_max
        self.bytes_max = bytes_max
        self.tenant_bytes_max = max(event_bytes_max, bytes_max // 2)
        self.held = 0
        self._by_tenant: Counter[str] = Counter()

    def held_by(self, tenant: str) -> int:
        """Return how many counted bytes a tenant's streams hold."""
        return self._by_tenant[tenant]

    def open(self, tenant: str) -> "Buffer":
        """Return the account of a new stream."""
        return Buffer(self, tenant)

    def move(self, tenant: str, more: int) -> None:
        """Count `more` bytes for a tenant (less, if negative); ValueError where there is no room.

        Nothing is counted then.
        """
        if more > 0:
            if self._by_tenant[tenant] + more > self.tenant_bytes_max:
                raise ValueError(
                    f"unfinished events of tenant {tenant!r} would buffer more than its "
                    f"{self.tenant_bytes_max} bytes; see server.stream_buffer_bytes"
                )
            if self.held + more > self.bytes_max:
                raise ValueError(
                    f"unfinished events of all streams would buffer more than {self.bytes_max} "
                    "bytes; see server.stream_buffer_bytes"
                )
        self.held += more
        self._by_tenant[tenant] += more
        if not self._by_tenant[tenant]:
            del self._by_tenant[tenant]


class Buffer:
    """What one stream holds of the budget."""

    # The mutable state is how many bytes are counted for it.
    __slots__ = ("_buffers", "_held", "_tenant")

    def __init__(self, buffers: Buffers, tenant: str) -> None:
        self._buffers = buffers
        self._tenant = tenant
        self._held = 0

    def hold(self, waiting: int) -> None:
        """Count `waiting` bytes from now on (0.1 us); ValueError where they are too many."""
        if waiting <= FREE_BYTES:
            if self._held:
                self._count(0)
            return
        most = self._buffers.event_bytes_max
        if waiting > most:
            raise ValueError(f"an event of more than {most} bytes; see server.max_event_bytes")
        self._count(waiting)

    def close(self) -> None:
        """Count nothing any more."""
        if self._held:
            self._count(0)

    def _count(self, held: int) -> None:
        self._buffers.move(self._tenant, held - self._held)
        self._held = held
