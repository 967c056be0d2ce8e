"""The load of a backend, measured from its counters."""

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 60.0  # smooths the counts of single ticks, and still follows a morning's rise
GAP_S = 100.0  # a longer time between two readings says nothing about either of them


@dataclass(slots=True)
class Totals:
    """Counters of a backend: calls, their duration, refused and failed calls; calls waiting now.

    `cold`: calls that wait now because no replica has started yet.
    """

    calls: float = 0.0
    seconds: float = 0.0
    refused: float = 0.0
    failed: float = 0.0
    waiting: float = 0.0
    cold: float = 0.0


@dataclass(frozen=True, slots=True)
class Tick:
    """What was counted in the `passed_s` seconds before `time_s`."""

    time_s: float
    passed_s: float
    calls: float
    seconds: float
    refused: float
    failed: float


@dataclass(slots=True)
class LoadMeter:
    """Turns the totals of a backend into rates."""

    # The mutable state is the ticks of the last minute, the last totals, the last duration and
    # whether the latest calls failed.
    ticks: deque[Tick] = field(default_factory=deque)
    waiting: float = 0.0
    cold: float = 0.0
    service_s: float = 0.0
    is_failing: bool = False
    _last: Totals | None = None
    _last_s: float = 0.0

    @property
    def load(self) -> float:
        """The calls in progress on average over the last minute."""
        return self.rate_per_s * self.service_s

    def observe(self, now: Totals, now_s: float) -> Tick | None:
        """Take the totals at `now_s`; return what happened since the last ones, if that is known.

        After a gap, or if the clock was set back, the measurement begins again.
        """
        last, passed_s = self._last, now_s - self._last_s
        self._last, self._last_s = now, now_s
        self.waiting, self.cold = now.waiting, now.cold
        if last is None or not 0.0 < passed_s <= GAP_S:
            self.ticks.clear()
            return None
        tick = Tick(
            now_s,
            passed_s,
            max(0.0, now.calls - last.calls),
            max(0.0, now.seconds - last.seconds),
            max(0.0, now.refused - last.refused),
            max(0.0, now.failed - last.failed),
        )
        self.ticks.append(tick)
        while self.ticks[0].time_s <= now_s - WINDOW_S:
            self.ticks.popleft()
        calls = sum(one.calls for one in self.ticks)
        if calls:
            self.is_failing = sum(one.failed for one in self.ticks) > calls / 2
        if calls and not self.is_failing:  # failures are fast, and say nothing of the service
            self.service_s = sum(one.seconds for one in self.ticks) / calls
        return tick

    @property
    def is_known(self) -> bool:
        """Whether half a window was measured."""
        return sum(one.passed_s for one in self.ticks) >= WINDOW_S / 2

    @property
    def rate_per_s(self) -> float:
        """Calls per second in the window, with refused ones."""
        passed_s = sum(one.passed_s for one in self.ticks)
        return sum(one.calls + one.refused for one in self.ticks) / passed_s if passed_s else 0.0
