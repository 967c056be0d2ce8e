"""Records a stream as it passes to the client, so that it can be kept when it has ended well."""

from collections.abc import Callable

from tollway.gateway.routing.replies.stream_relay import StreamRelay


class RecordingMemory:
    """The memory that all recordings of one process may take."""

    # The mutable state is the bytes held.

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0

    def take(self, size: int) -> bool:
        """Hold more bytes; return whether there is room."""
        if self.held + size > self.bytes_max:
            return False
        self.held += size
        return True


class Recording:
    """The parts of one stream that have gone to the client."""

    # The mutable state is the parts, and whether it was given up.

    def __init__(self, memory: RecordingMemory, *, bytes_max: int) -> None:
        """Give up above `bytes_max`, or when there is no memory."""
        self._memory = memory
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []
        self._size = 0
        self._given_up = False

    def begin(self, relay: StreamRelay, ended: Callable[[bool], None]) -> None:
        """Record a relay; `ended` is called once it has settled, and is told if it ended well."""
        settle = relay.on_end

        def end(error: str, abandoned: str) -> None:
            try:
                settle(error, abandoned)
            finally:
                try:
                    ended(relay.whole and not error and not relay.follower.error)
                finally:
                    self._release()

        relay.tap = self.add
        relay.on_end = end

    def add(self, part: bytes) -> None:
        """Record a part."""
        if not part or self._given_up:
            return
        if self._size + len(part) > self._bytes_max or not self._memory.take(len(part)):
            self._release()
            self._given_up = True
            return
        self._size += len(part)
        self._parts.append(part)

    def _release(self) -> None:
        self._memory.held -= self._size
        self._size = 0
        self._parts = []

    def parts(self) -> list[bytes]:
        """Return the parts of the whole stream; none if it was given up."""
        return [] if self._given_up else self._parts
