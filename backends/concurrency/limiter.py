"""The concurrency limiter: finds a backend's limit of concurrent calls from its latencies.

Theory of operation. A server with c places answers in R seconds while calls find a free one. With
n > c concurrent calls, they wait for each other: each takes n R / c, and throughput does not rise.
So the lowest latency seen estimates R, and a latency above it shows a queue. Over each window of
calls

    gradient = tolerance * least / median latency, at most 1, at least 1/2
    limit   <- limit * gradient + sqrt(limit), smoothed

which converges where the median is `tolerance` times the lowest latency: at about tolerance * c
calls. (Netflix' gradient limiter and Envoy's adaptive concurrency filter; the square root keeps
raising the limit, so that new capacity is found.) A refusal or a failure lowers the limit by a
tenth.

    window                        limit
    calls were below half of it   unchanged: without a queue there is no evidence
    else                          as above
    in use for USE_S, and again   half of c, for one window: the queue at the server drains, and the
    every PROBE_S                 lowest latency is measured again; sooner again if it fell

Without the probe, a queue that never drains would be taken for the server's own latency, and one
lucky measurement would hold for ever. c follows from Little's law: the highest recent rate of calls
per second, times `least`. After a probe the limit returns to its earlier value, or to the point of
convergence if that is lower. If the traffic stops during a probe, the probe ends as soon as calls
find no slot again. Pure: the time is an argument.

A queue at the server delays the calls of every tenant, and long work those of its own. So each
tenant has a lowest latency of its own, and the tenant in the middle decides (of two, the one that
is less late): one tenant cannot lower the limit by slow calls. Neither does it by refusals that it
alone gets, while others are answered.
"""

import math
from statistics import median

WINDOW_S = 0.1
WINDOW_CALLS = 10  # minimum calls in a window: a median of fewer says little
USE_S = 0.5  # a burst is over by then
RATE_KEPT = 0.99  # of the highest rate, per window: forgotten in a minute of full use
LEAST_S = 0.01  # a call's latency includes iterations of our own loop, some milliseconds under load
PROBE_MOST_S = 1.0  # the traffic may stop in the middle of a probe
PROBE_S = 20.0  # a probe costs a slow backend about two latencies of half its throughput
FINE_S = 10.0  # for so long a window's good calls speak against another tenant's refusals
TENANTS_MAX = 64  # with a lowest latency of their own; further ones share one
FELL = 0.8  # of the latency known before: below this share, that latency included a queue
SMOOTHING = 0.3
SHRINK = 0.5  # the largest reduction by one window
DROP = 0.9


class AdaptiveLimit:
    """One backend's limit."""

    # The mutable state: the limit, the lowest latencies, the window, which tenants were answered in
    # the one before, and when the probe began or is due.

    by_first_event = False

    def __init__(self, most: int, *, tolerance: float = 3.0, least: int = 1) -> None:
        """Start at `most` concurrent calls, the highest limit; `least` is the lowest."""
        if tolerance < 1.0:
            raise ValueError(f"tolerance {tolerance} is below 1, so no call would be fast enough")
        self._limit = float(most)
        self._most = most
        self._least = least
        self._tolerance = tolerance
        self._base_s: float | None = None
        self._bases: dict[str, float] = {}
        self._window: dict[str, list[float]] = {}
        self._calls = 0
        self._fine: frozenset[str] = frozenset()
        self._fine_s = -math.inf
        self._since_s = -math.inf
        self._busiest = 0
        self._dropped: set[str] = set()
        self._probe_s: float | None = None
        self._next_probe_s = -math.inf
        self._rate = 0.0
        self._before = self._limit

    def adopt(self, old: "AdaptiveLimit") -> None:
        """Take over the state of a limiter with other settings; `old` is no longer used."""
        was_open = old._limit >= old._most
        self._limit = float(self._most) if was_open else min(float(self._most), old._limit)
        self._before = min(float(self._most), old._before)
        self._base_s, self._bases, self._rate = old._base_s, old._bases, old._rate
        self._window, self._calls, self._since_s = old._window, old._calls, old._since_s
        self._fine, self._fine_s = old._fine, old._fine_s
        self._busiest, self._dropped = old._busiest, old._dropped
        self._probe_s, self._next_probe_s = old._probe_s, old._next_probe_s

    @property
    def limit(self) -> int:
        """Maximum concurrent calls."""
        return int(self._limit)

    @property
    def usual(self) -> int:
        """The limit, ignoring a short probe."""
        return self.limit if self._probe_s is None else int(self._before)

    @property
    def base_s(self) -> float | None:
        """The latency of a call without queueing, as far as known; at least LEAST_S."""
        return self._base_s

    def observe(self, now_s: float, latency_s: float, busy: int, tenant: str = "") -> None:
        """Record a good call's latency; `busy` are the concurrent calls, including this one."""
        if self._probe_s is not None and now_s - latency_s < self._probe_s:
            return  # it began before the probe, in a queue
        if not self._window:
            self._since_s = now_s
        if tenant not in self._bases and len(self._bases) >= TENANTS_MAX:
            tenant = ""
        self._window.setdefault(tenant, []).append(latency_s)
        self._calls += 1
        self._busiest = max(self._busiest, busy)
        if self._calls >= WINDOW_CALLS and now_s - self._since_s >= WINDOW_S:
            self._close(now_s)

    def refused(self, now_s: float, tenant: str = "") -> None:
        """Record that the backend reported overload, or did not answer in time."""
        self._dropped.add(tenant)
        is_fine = now_s - self._fine_s < FINE_S and not self._fine <= self._dropped
        if not (self._window or is_fine):
            self._limit = max(self._least, self._limit * DROP)

    def grow(self) -> None:
        """Raise the limit by one per as many calls as it allows."""
        if self._probe_s is None:
            self._set(self._limit + 1.0 / self._limit)

    def begun(self, now_s: float, latency_s: float, busy: int, tenant: str = "") -> None:
        """Ignore the first event of a stream: its head has given the same information."""

    def _close(self, now_s: float) -> None:
        """Update the limit at the end of a window."""
        rate = self._calls / (now_s - self._since_s)
        self._rate = max(rate, RATE_KEPT * self._rate)
        middle_s, before_s = self._middle()
        if self._probe_s is not None:
            self._measure(again=True)
            self._probed(now_s, middle_s, before_s)
        else:
            self._measure(again=False)
            used = 2 * self._busiest >= self._limit
            dropped = len(self._dropped) > 1 or (
                bool(self._dropped) and self._window.keys() <= self._dropped
            )
            if used or dropped:
                self._move(middle_s, before_s, dropped=dropped)
            if used:
                self._probe(now_s)
            else:
                self._next_probe_s = max(self._next_probe_s, now_s + USE_S)
        self._fine, self._fine_s = frozenset(self._window), now_s
        self._window.clear()
        self._dropped.clear()
        self._busiest = self._calls = 0

    def _middle(self) -> tuple[float, float | None]:
        """Return the median latency of the tenant in the middle, and its lowest one before."""
        late = []
        for tenant, latencies in self._window.items():
            middle_s, before_s = median(latencies), self._bases.get(tenant)
            late.append((middle_s / (before_s or middle_s or 1.0), middle_s, before_s))
        late.sort(key=lambda one: one[0])
        _, middle_s, before_s = late[(len(late) - 1) // 2]
        return middle_s, before_s

    def _measure(self, *, again: bool) -> None:
        """Store the lowest latencies of the window's tenants, and their mean over its calls."""
        total_s = base_s = 0.0
        for tenant, latencies in self._window.items():
            middle_s = median(latencies)
            known_s = middle_s if again else min(middle_s, self._bases.get(tenant) or middle_s)
            base_s = self._bases[tenant] = max(LEAST_S, known_s)
            total_s += base_s * len(latencies)
        self._base_s = base_s if len(self._window) == 1 else total_s / self._calls

    def press(self, now_s: float) -> None:
        """Record that a call found no free slot: a probe with too few answered calls ends then."""
        if self._probe_s is not None and now_s - self._probe_s > self._patience_s:
            self._end_probe(now_s, self._before)

    @property
    def _patience_s(self) -> float:
        """Maximum duration of a probe: its queue drains, and a window of calls is answered."""
        return max(PROBE_MOST_S, (self._tolerance + 2 * WINDOW_CALLS) * (self._base_s or 0.0))

    def _end_probe(self, now_s: float, limit: float, pause_s: float = PROBE_S) -> None:
        self._probe_s = None
        self._next_probe_s = now_s + pause_s
        self._set(limit)

    def _probe(self, now_s: float) -> None:
        """Begin a probe, if one is due."""
        if self._next_probe_s == -math.inf:
            self._next_probe_s = now_s + USE_S
        if now_s >= self._next_probe_s:
            self._before, self._probe_s = self._limit, now_s
            self._set(0.5 * self._places)

    def _probed(self, now_s: float, middle_s: float, before_s: float | None) -> None:
        """End a probe that has measured the lowest latencies."""
        fell = before_s is not None and middle_s < FELL * before_s
        rest = self._tolerance * self._places + math.sqrt(self._before)
        self._end_probe(now_s, min(self._before, rest), USE_S if fell else PROBE_S)

    @property
    def _places(self) -> float:
        """How many calls the server can process concurrently, as far as observed."""
        return self._rate * (self._base_s or 0.0)

    def _move(self, middle_s: float, before_s: float | None, *, dropped: bool) -> None:
        base_s = max(LEAST_S, min(middle_s, before_s or middle_s))
        ratio = self._tolerance * base_s / middle_s if middle_s > 0.0 else 1.0
        wanted = self._limit * min(1.0, max(SHRINK, ratio)) + math.sqrt(self._limit)
        if dropped:
            wanted = self._limit * DROP
        self._set(self._limit + SMOOTHING * (wanted - self._limit))

    def _set(self, limit: float) -> None:
        self._limit = min(float(self._most), max(float(self._least), limit))
