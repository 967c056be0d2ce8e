"""The report on devices: what each has cost, what calls were charged of that, how busy it was.

What a device has cost is in rows of its own, one a minute; what calls were charged is the cost of
the calls to the backends that these rows name. Both are exact. A minute counts for the day in which
it ends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tollway.reports.facts import DeviceCost
from tollway.reports.tables import Column, Kind, Table
from tollway.reports.totals import Key, Span, Totals, time_reader

COLUMNS = (
    Column("day", "day"),
    Column("device", "device"),
    Column("backends", "backends"),
    Column("hours", "hours", Kind.NUMBER),
    Column("utilization", "utilisation", Kind.SHARE),
    Column("calls", "calls", Kind.COUNT),
    Column("bill", "cost of the device", Kind.MONEY),
    Column("charged", "charged to calls", Kind.MONEY),
    Column("unallocated", "not allocated", Kind.MONEY),
    Column("allocated_share", "allocated", Kind.SHARE),
)


@dataclass(slots=True)
class Sums:
    """Sums over the rows of one device in one day."""

    backends: frozenset[str] = frozenset()
    wall_s: float = 0.0
    offered_s: float = 0.0
    busy_s: float = 0.0
    bill_nano: int = 0

    def add(self, cost: DeviceCost) -> None:
        """Add a row."""
        passed_s = max(0.0, cost.time_s - cost.since_s)
        self.backends |= set(cost.backends)
        self.wall_s += passed_s
        self.offered_s += passed_s * cost.concurrency
        self.busy_s += cost.busy_s
        self.bill_nano += cost.bill_nano


def table(costs: Iterable[DeviceCost], charged: Mapping[Key, Totals], span: Span) -> Table:
    """Return the table; `charged` is what calls were charged, by day and backend."""
    day = time_reader("day", span.zone)
    sums: dict[Key, Sums] = {}
    for cost in costs:
        if span.since_s <= cost.time_s < span.until_s:
            sums.setdefault((day(cost), cost.device), Sums()).add(cost)
    rows = [(*key, *_figures(one, charged, key[0])) for key, one in sorted(sums.items())]
    note = (
        "Not allocated: idle time that the device's rule leaves to nobody, and what a load had "
        "changed before it was learned; negative if calls were charged more than the device cost."
    )
    return Table("Devices", COLUMNS, tuple(rows), note)


def _figures(
    one: Sums, charged: Mapping[Key, Totals], day: str
) -> tuple[str, float, float | None, int, int, int, int, float | None]:
    calls = [charged[day, name] for name in one.backends if (day, name) in charged]
    nano = sum(totals.cost_nano for totals in calls)
    return (
        ", ".join(sorted(one.backends)),
        one.wall_s / 3600,
        min(1.0, one.busy_s / one.offered_s) if one.offered_s else None,
        sum(totals.calls for totals in calls),
        one.bill_nano,
        nano,
        one.bill_nano - nano,
        nano / one.bill_nano if one.bill_nano else None,
    )
