"""The report on replicas: the hours of each backend's replicas, their cost, and how much is idle.

The gateway that leads writes what ran once a minute, by the replicas that were set, or else
recommended. A minute counts for the day in which it ends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tollway.reports.facts import ReplicaTime
from tollway.reports.tables import Column, Kind, Table
from tollway.reports.totals import Key, Span, Totals, time_reader

COLUMNS = (
    Column("day", "day"),
    Column("backend", "backend"),
    Column("replica_hours", "replica-hours", Kind.NUMBER),
    Column("idle_share", "idle", Kind.SHARE),
    Column("cost", "cost of the replicas", Kind.MONEY),
    Column("idle_cost", "of that idle", Kind.MONEY),
    Column("calls", "calls", Kind.COUNT),
    Column("charged", "charged to calls", Kind.MONEY),
)


@dataclass(slots=True)
class Sums:
    """Sums over the rows of one backend in one day."""

    replica_s: float = 0.0
    busy_s: float = 0.0
    cost_nano: int = 0

    @property
    def idle_share(self) -> float | None:
        """The share of the replicas' time in which they did not work; None without any."""
        return 1.0 - min(1.0, self.busy_s / self.replica_s) if self.replica_s else None


def table(times: Iterable[ReplicaTime], charged: Mapping[Key, Totals], span: Span) -> Table:
    """Return the table; `charged` is what calls were charged, by day and backend."""
    day = time_reader("day", span.zone)
    sums: dict[Key, Sums] = {}
    for one in times:
        if span.since_s <= one.time_s < span.until_s:
            found = sums.setdefault((day(one), one.backend), Sums())
            found.replica_s += one.replica_s
            found.busy_s += one.busy_s
            found.cost_nano += one.cost_nano
    rows = []
    for key, found in sorted(sums.items()):
        calls = charged.get(key, Totals())
        idle = found.idle_share
        rows.append(
            (
                *key,
                found.replica_s / 3600,
                idle,
                found.cost_nano,
                round(found.cost_nano * (idle or 0.0)),
                calls.calls,
                calls.cost_nano,
            )
        )
    note = (
        "Cost: replica-hours at replica_usd_per_hour, 0 where none is set. Idle: the part of the "
        "time in which the places of the replicas were free."
    )
    return Table("Replicas", COLUMNS, tuple(rows), note)
