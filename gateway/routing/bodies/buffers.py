"""Buffers: limits the memory that one worker takes for what it holds of requests and replies.

A request holds its body and the replies to it until it ends. A stream holds its unfinished event,
because an event goes to the client only when it is complete; an image in one event is some
megabytes, and one event may have `event_bytes_max` bytes. All of a worker together may hold
`bytes_max`, of which one tenant gets half (or what its largest request needs, if that is more), so
that large requests of other tenants still pass while one tenant uses its maximum. A request that
needs more is refused, and a stream fails; no other is affected. Up to FREE_BYTES are not counted.
Nearly all bodies and events are smaller, and these neither pay for the bookkeeping nor fail because
others are large.
"""

from collections import Counter

from tollway.backends.errors import BackendError
from tollway.backends.types import SMALL_BYTES

FREE_BYTES = SMALL_BYTES
"""A text event has some hundred bytes."""


class BufferFull(BackendError, ValueError):  # noqa: N818 - reads as what happened
    """There is no memory for a body, a reply or an event; a call may have run."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}; see server.buffer_bytes", ran=True)


class Buffers:
    """The buffer memory of one worker."""

    # The mutable state is how many counted bytes each tenant holds, and their sum.
    def __init__(self, *, event_bytes_max: int, bytes_max: int, request_bytes_max: int = 0) -> None:
        """`bytes_max` is raised to what the largest event, or request with its reply, needs."""
        largest = max(event_bytes_max, request_bytes_max)
        self.event_bytes_max = event_bytes_max
        self.bytes_max = max(bytes_max, largest)
        self.tenant_bytes_max = max(largest, self.bytes_max // 2)
        self.held = 0
        self._by_tenant: Counter[str] = Counter()

    def held_by(self, tenant: str) -> int:
        """Return the number of counted bytes that a tenant holds."""
        return self._by_tenant[tenant]

    def open(self, tenant: str) -> "Buffer":
        """Return the buffer account of a new stream."""
        return Buffer(self, tenant)

    def move(self, tenant: str, more: int) -> None:
        """Count `more` bytes for a tenant (fewer if negative).

        Raises BufferFull if a limit would be exceeded; nothing is counted then.
        """
        if more > 0:
            if self._by_tenant[tenant] + more > self.tenant_bytes_max:
                most = self.tenant_bytes_max
                raise BufferFull(f"tenant {tenant!r} would hold more than its {most} bytes")
            if self.held + more > self.bytes_max:
                raise BufferFull(f"all requests would hold more than {self.bytes_max} bytes")
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


class RequestMemory:
    """The part of the buffer memory that one request holds, with the replies to it."""

    # The mutable state is the number of bytes it holds.
    __slots__ = ("_buffers", "held", "tenant")

    def __init__(self, buffers: Buffers, tenant: str) -> None:
        self._buffers = buffers
        self.tenant = tenant
        self.held = 0

    def add(self, more: int) -> None:
        """Hold `more` bytes until the end of the request; BufferFull if too many."""
        self._buffers.move(self.tenant, more)
        self.held += more

    def close(self) -> None:
        """Release all bytes."""
        held, self.held = self.held, 0
        self._buffers.move(self.tenant, -held)
