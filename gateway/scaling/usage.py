"""The use of replicas: what runs, how much of it works, and what both cost.

It is written to the journal once a minute by the process that leads, so that reports can say how
many replica-hours each backend took, and which share of them was idle.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HOUR_S = 3600.0
RECORD_S = 60.0
GAP_S = 60.0  # a longer time between two readings says nothing of the time between


@dataclass(frozen=True, slots=True)
class UsedReplicas:
    """Replicas that run, those that work (load over places), and the price of one for an hour."""

    running: int
    busy: float
    nano_per_hour: int | None


@dataclass(slots=True)
class Sums:
    """Seconds of replicas of one backend since `since_s`."""

    since_s: float
    replica_s: float = 0.0
    busy_s: float = 0.0
    cost_nano: float = 0.0
    last_s: float = 0.0
    used: UsedReplicas | None = None


@dataclass(slots=True)
class ReplicaUsage:
    """Adds up the use of replicas, and records it."""

    # The mutable state is the sums since the last row, and the totals since the start.
    record: Callable[[dict[str, Any]], None]
    open: dict[str, Sums] = field(default_factory=dict)
    replica_s: dict[str, float] = field(default_factory=dict)
    busy_s: dict[str, float] = field(default_factory=dict)
    cost_usd: dict[str, float] = field(default_factory=dict)

    def add(self, backend: str, used: UsedReplicas, now_s: float) -> None:
        """Take what runs at `now_s` (seconds since 1970); it ran since the last call."""
        one = self.open.get(backend)
        if one is None:
            self.open[backend] = Sums(now_s, last_s=now_s, used=used)
            return
        passed_s = now_s - one.last_s
        if not 0.0 <= passed_s <= GAP_S:
            self._write(backend, one)
            self.open[backend] = Sums(now_s, last_s=now_s, used=used)
            return
        before = one.used or used
        cost_nano = before.running * passed_s / HOUR_S * (before.nano_per_hour or 0)
        one.replica_s += before.running * passed_s
        one.busy_s += before.busy * passed_s
        one.cost_nano += cost_nano
        one.last_s, one.used = now_s, used
        self._count(backend, before, passed_s, cost_nano)
        if now_s - one.since_s >= RECORD_S:
            self._write(backend, one)
            self.open[backend] = Sums(now_s, last_s=now_s, used=used)

    def _count(self, backend: str, used: UsedReplicas, passed_s: float, nano: float) -> None:
        for sums, more in (
            (self.replica_s, used.running * passed_s),
            (self.busy_s, used.busy * passed_s),
            (self.cost_usd, nano / 1e9),
        ):
            sums[backend] = sums.get(backend, 0.0) + more

    def _write(self, backend: str, one: Sums) -> None:
        if one.last_s <= one.since_s:
            return
        self.record(
            {
                "kind": "replicas",
                "time": round(one.last_s, 6),
                "backend": backend,
                "since": round(one.since_s, 6),
                "replica_s": round(one.replica_s, 3),
                "busy_s": round(one.busy_s, 3),
                "cost_nano": round(one.cost_nano),
            }
        )

    def forget(self) -> None:
        """Stop adding up: another process leads."""
        for backend, one in self.open.items():
            self._write(backend, one)
        self.open.clear()

    def flush(self, now_s: float) -> None:
        """Record what was added up until `now_s`."""
        for backend, one in list(self.open.items()):
            if one.used is not None:
                self.add(backend, one.used, now_s)
        self.forget()
