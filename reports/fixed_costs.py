"""Fixed costs: monthly lines, in proportion to a report's span, allocated to groups of requests.

A line belongs to a route, a team or a backend, or to everything. It is allocated to the requests
that it belongs to, in proportion to the answered ones, in whole nano-dollars that add up to the
line. What no request of the span can bear stays unallocated and is in the total only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from fractions import Fraction

from tollway.reports.facts import Fact
from tollway.reports.tables import Column, Kind, Table, Unknowable, Value
from tollway.reports.totals import Grouping, Key, Span, Totals

TEAM = "team"
TITLE = "Fixed costs"
CENTURY_S = 100 * 366 * 86_400.0
YEAR_9999_S = 253_300_000_000.0


@dataclass(frozen=True, slots=True)
class FixedCost:
    """A line; None: of all routes, teams or backends."""

    name: str
    monthly_nano: int
    route: str | None = None
    team: str | None = None
    backend: str | None = None

    @property
    def belongs_to(self) -> str:
        """What the line belongs to, in words."""
        parts = [
            f"{kind} {name}"
            for kind, name in (
                ("route", self.route),
                ("team", self.team),
                ("backend", self.backend),
            )
            if name is not None
        ]
        return ", ".join(parts) or "everything"


@dataclass(frozen=True, slots=True)
class Allocation:
    """What each line costs in the span, and what each group bears of it, by (line, group)."""

    span: Span
    costs: Mapping[str, int]
    parts: Mapping[tuple[str, Key], int]

    def nano(self, line: FixedCost, groups: set[Key] | None = None) -> int:
        """Return what groups bear of a line; of all groups with None."""
        return sum(
            nano
            for (name, key), nano in self.parts.items()
            if name == line.name and (groups is None or key in groups)
        )


def months(since_s: float, until_s: float, zone: tzinfo) -> Fraction:
    """Return the calendar months of a zone in a span; a part of a month counts by its seconds."""
    whole = Fraction(0)
    first = datetime.fromtimestamp(since_s, zone).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    while (start_s := first.timestamp()) < until_s:
        following = first.replace(
            year=first.year + first.month // 12, month=first.month % 12 + 1, fold=0
        )
        end_s = following.timestamp()
        inside_s = Fraction(min(until_s, end_s)) - Fraction(max(since_s, start_s))
        whole += max(Fraction(0), inside_s) / (Fraction(end_s) - Fraction(start_s))
        first = following
    return whole


def allocate(
    lines: Sequence[FixedCost], by: tuple[str, ...], groups: Mapping[Key, Totals], span: Span
) -> Allocation:
    """Allocate lines to groups; `by` has `route`, and `team` if a line belongs to a team.

    `span` is finite.
    """
    share = months(span.since_s, span.until_s, span.zone)
    costs = {line.name: round(line.monthly_nano * share) for line in lines}
    parts: dict[tuple[str, Key], int] = {}
    for line in lines:
        weights = {
            key: totals.answered
            for key, totals in groups.items()
            if _bears(line, dict(zip(by, key, strict=True)), totals)
        }
        for key, nano in _split(costs[line.name], weights).items():
            parts[line.name, key] = nano
    return Allocation(span, costs, parts)


def _bears(line: FixedCost, group: Mapping[str, str], totals: Totals) -> bool:
    return (
        line.route in {None, group["route"]}
        and (line.team is None or group[TEAM] == line.team)
        and (line.backend is None or line.backend in totals.offers)
    )


def _split(nano: int, weights: Mapping[Key, int]) -> dict[Key, int]:
    """Split an amount by weights into whole parts that add up to it; nothing without weight."""
    whole, seen, given = sum(weights.values()), 0, 0
    parts: dict[Key, int] = {}
    for key, weight in sorted(weights.items()):
        if not weight:
            continue
        seen += weight
        upto = nano * seen // whole
        parts[key] = upto - given
        given = upto
    return parts


def counted(
    lines: Sequence[FixedCost],
    by: tuple[str, ...],
    where: Mapping[str, str],
    facts: Iterable[Fact],
    span: Span,
) -> tuple[dict[Key, int], Table]:
    """Return what each group of `by` bears, and the table of the lines.

    `facts` are those of the span without the filter `where`, so that a filtered report bears only
    its own part of what is shared. Without a request that the filter keeps, the table is empty.
    """
    names = tuple(dict.fromkeys((*by, "route", *where, TEAM)))
    grouping, first_s, last_s = Grouping(names, span), math.inf, -math.inf
    for fact in facts:
        grouping.add(fact)
        first_s, last_s = min(first_s, fact.time_s), max(last_s, fact.time_s)
    groups = grouping.groups
    if not groups:
        return {}, Table(TITLE, _COLUMNS, ())
    span = finite(span, first_s, last_s)
    allocation = allocate(lines, names, groups, span)
    kept: set[Key] = set()
    borne: dict[Key, int] = {}
    for key in groups:
        values = dict(zip(names, key, strict=True))
        if all(values[name] == value for name, value in where.items()):
            kept.add(key)
    for (_, key), nano in allocation.parts.items():
        if key in kept:
            values = dict(zip(names, key, strict=True))
            own = tuple([values[name] for name in by])
            borne[own] = borne.get(own, 0) + nano
    return borne, table(lines if kept else (), allocation, kept)


def finite(span: Span, first_s: float, last_s: float) -> Span:
    """Return a span whose open ends are the first and the last request.

    Unknowable is raised for more than a century: nobody has a bill of that length.
    """
    since_s = span.since_s if math.isfinite(span.since_s) else first_s
    until_s = span.until_s if math.isfinite(span.until_s) else last_s
    if until_s - since_s > CENTURY_S or until_s > YEAR_9999_S:
        raise Unknowable("fixed costs are counted for at most a century; set --since and --until")
    return Span(since_s, max(since_s, until_s), span.zone)


_COLUMNS = (
    Column("name", "fixed cost"),
    Column("belongs_to", "belongs to"),
    Column("monthly", "a month", Kind.MONEY),
    Column("cost", "in this span", Kind.MONEY),
    Column("counted", "counted here", Kind.MONEY),
    Column("unallocated", "unallocated", Kind.MONEY),
)


def table(lines: Sequence[FixedCost], allocation: Allocation, groups: set[Key]) -> Table:
    """Return the lines; `groups` are those that the report's filter keeps."""
    rows: list[tuple[Value, ...]] = []
    for line in lines:
        cost = allocation.costs[line.name]
        counted = allocation.nano(line, groups)
        unallocated = cost - allocation.nano(line)
        rows.append((line.name, line.belongs_to, line.monthly_nano, cost, counted, unallocated))
    span = allocation.span
    ends = " to ".join(
        f"{datetime.fromtimestamp(at, span.zone):%F %T}" for at in (span.since_s, span.until_s)
    )
    note = (
        f"A month's cost in proportion to {ends}; each line is allocated to the requests that it "
        "belongs to, by the number of answered ones. Unallocated: no request of the span bears it."
    )
    return Table(TITLE, _COLUMNS, tuple(rows), note)
