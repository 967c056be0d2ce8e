"""The load of a device: seconds of its time that are used in a second, learned from what is seen.

Theory of operation. Each observation says that something used `busy_s` seconds of the device in the
last `wall_s` seconds. Both are summed, and the sums decay: an observation counts half as much after
`half_life_s`. Their ratio is the load. At the start the sums hold an assumed load, with the weight
of a tenth of the half-life, so that the first quiet second does not count as an idle device. Pure:
no clock.
"""

PRIOR = 0.1  # of a half-life: a minute of ten; then what was seen counts for more


class Load:
    """A decaying mean of busy seconds in a second."""

    # The mutable state is the two sums.

    def __init__(self, assumed: float, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self._wall_s = PRIOR * half_life_s
        self._busy_s = assumed * self._wall_s

    @property
    def value(self) -> float:
        """Busy seconds in a second: above 1 if several calls are served at once."""
        return self._busy_s / self._wall_s

    def observe(self, busy_s: float, wall_s: float) -> None:
        """Record the use in the last `wall_s` seconds, if any have passed."""
        if wall_s <= 0.0:
            return
        keeps = 0.5 ** (wall_s / self.half_life_s)
        self._busy_s = self._busy_s * keeps + max(0.0, busy_s)
        self._wall_s = self._wall_s * keeps + wall_s

    def save(self) -> list[float]:
        """Return the state."""
        return [self._busy_s, self._wall_s]

    def load(self, state: list[float]) -> None:
        """Load a saved state; ValueError if it is none."""
        busy_s, wall_s = map(float, state)
        if not (0.0 <= busy_s < 1e12 and 0.0 < wall_s < 1e12):
            raise ValueError(f"not a load: {state}")
        self._busy_s, self._wall_s = busy_s, wall_s


class BusyShare:
    """The part of the seconds that calls are charged in which the device worked for them.

    A call is charged the time that it took, unless its reply tells better. A server whose counters
    are polled tells how long the device worked for all calls together. The ratio of both sums,
    which decay as a load's do, is never above 1: what goes beyond is the work of other clients.
    """

    # The mutable state is the two sums.

    def __init__(self, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self._charged_s = self._busy_s = 0.0

    @property
    def value(self) -> float:
        """Device seconds in a charged second, in (0, 1]; 1 until both were seen."""
        if not (self._charged_s > 0.0 and self._busy_s > 0.0):
            return 1.0
        return min(1.0, self._busy_s / self._charged_s)

    def observe(self, charged_s: float, busy_s: float, wall_s: float) -> None:
        """Record what calls were charged in the last `wall_s` seconds, and the device's work."""
        keeps = 0.5 ** (wall_s / self.half_life_s)
        self._charged_s = self._charged_s * keeps + charged_s
        self._busy_s = self._busy_s * keeps + busy_s

    def save(self) -> list[float]:
        """Return the state."""
        return [self._busy_s, self._charged_s]

    def load(self, state: list[float]) -> None:
        """Load a saved state; ValueError if it is none."""
        busy_s, charged_s = map(float, state)
        if not (0.0 <= busy_s < 1e12 and 0.0 <= charged_s < 1e12):
            raise ValueError(f"not sums of seconds: {state}")
        self._busy_s, self._charged_s = busy_s, charged_s
