"""Flights: of requests with one key, one asks a backend and the others wait for its answer."""

import asyncio

from tollway.gateway.caching.entry import Entry

LEFT = "left"
"""The end of a flight whose client has disconnected: another request may lead."""
NOTHING = "nothing"
"""The end of a flight without an answer that could be kept: the others ask for themselves."""

End = Entry | str


class Flight:
    """A request under way, which others with its key wait for."""

    # The mutable state is the future of those that wait, None while nobody does, and how it ended,
    # None until then.
    __slots__ = ("_future", "ended", "waiting")

    def __init__(self) -> None:
        self._future: asyncio.Future[End] | None = None
        self.ended: End | None = None
        self.waiting = 0

    async def wait(self, within_s: float) -> End:
        """Return its end; NOTHING if that takes longer than `within_s`."""
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
        self.waiting += 1
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.shield(self._future)
        except TimeoutError:
            return NOTHING
        finally:
            self.waiting -= 1

    def end(self, end: End) -> None:
        """Tell those that wait."""
        self.ended = end
        if self._future is not None and not self._future.done():
            self._future.set_result(end)


class Flights:
    """The flights of one process, by key."""

    # The mutable state is the table. It is bounded by the requests in progress, which are limited.

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def waiting(self) -> int:
        """How many requests wait for others."""
        return sum(flight.waiting for flight in self._flights.values())

    def get(self, key: bytes) -> Flight | None:
        """Return the flight of a key; None if there is none."""
        return self._flights.get(key)

    def begin(self, key: bytes) -> Flight:
        """Begin a flight; whoever begins it must end it."""
        assert key not in self._flights
        flight = self._flights[key] = Flight()
        return flight

    def end(self, key: bytes, flight: Flight, end: End) -> None:
        """End a flight; later calls have no effect."""
        if self._flights.get(key) is flight:
            del self._flights[key]
            flight.end(end)
