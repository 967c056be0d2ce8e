"""Stream buffers: limits the memory for unfinished events of streams in one worker.

An event goes to the client only when it is complete, so until then its bytes are buffered; an image
in one event is some megabytes. One event may have `event_bytes_max` bytes. All streams of a worker
together may buffer `bytes_max`, of which one tenant gets half (or one whole event, if that is
more), so that large events of other tenants still pass while one tenant uses its maximum. A stream
that needs more fails; no other stream is affected. The first FREE_BYTES of a stream are not
counted. Nearly every event is smaller, and such streams neither pay for the bookkeeping nor fail
because other streams are large.
"""

from collections import Counter

FREE_BYTES = 16 << 10
"""A text event has some hundred bytes; 2,048 concurrent streams buffer at most 32 MiB of these."""


class Buffers:
    """The buffer memory of one worker."""

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
        """Return the number of counted bytes that a tenant's streams hold."""
        return self._by_tenant[tenant]

    def open(self, tenant: str) -> "Buffer":
        """Return the buffer account of a new stream."""
        return Buffer(self, tenant)

    def move(self, tenant: str, more: int) -> None:
        """Count `more` bytes for a tenant (fewer if negative).

        Raises ValueError if a limit would be exceeded; nothing is counted then.
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
    """The part of the buffer memory that one stream holds."""

    # The mutable state is the number of bytes counted for it.
    __slots__ = ("_buffers", "_held", "_tenant")

    def __init__(self, buffers: Buffers, tenant: str) -> None:
        self._buffers = buffers
        self._tenant = tenant
        self._held = 0

    def hold(self, waiting: int) -> None:
        """Set the stream's buffered bytes to `waiting` (0.1 us); ValueError if too many."""
        if waiting <= FREE_BYTES:
            if self._held:
                self._count(0)
            return
        most = self._buffers.event_bytes_max
        if waiting > most:
            raise ValueError(f"an event of more than {most} bytes; see server.max_event_bytes")
        self._count(waiting)

    def close(self) -> None:
        """Release all counted bytes."""
        if self._held:
            self._count(0)

    def _count(self, held: int) -> None:
        self._buffers.move(self._tenant, held - self._held)
        self._held = held
