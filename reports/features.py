"""The report on features: which value moved the choice of a backend, and whether that is stable.

The importance of a value in a span of time is how much of the uncertainty about the arm it takes
away: the mutual information between its bins and the arm drawn, less what chance gives, as a share
of the entropy of the arms (Theil's U). 0: the choice does not depend on it; 1: it decides alone. It
says what went together, not what caused the choice, and requests of one entity are not independent.

A value is unstable where its importance in a span differs from its mean in the spans before by more
than FLIPPED, or where it moved requests to the other arm: `direction` is the difference of the mean
probability of the route's likeliest arm, between its upper and its lower half (or its most frequent
category and the rest). A change of its sign is a flip.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tollway.gateway.storage.feature_rows import rows_in
from tollway.reports.tables import Column, Kind, Table, Value
from tollway.reports.totals import Span, time_reader

BINS = 5
REQUESTS_MIN = 200  # in a span: the chance level of five bins and three arms is then about 0.02
FLIPPED = 0.15
CLEAR = 0.05  # a direction below it has no sign

COLUMNS = (
    Column("day", "day"),
    Column("route", "route"),
    Column("feature", "feature"),
    Column("requests", "requests", Kind.COUNT),
    Column("fresh_share", "fresh", Kind.SHARE),
    Column("importance", "importance", Kind.SHARE),
    Column("direction", "direction", Kind.NUMBER),
    Column("alarm", "alarm"),
)


@dataclass(slots=True)
class Seen:
    """What requests of one route in one span had of one value."""

    values: list[Any] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    pmfs: list[Mapping[str, float]] = field(default_factory=list)
    fresh: int = 0


def table(paths: Iterable[Path], span: Span, where: Mapping[str, str]) -> Table:
    """Return a row for each day, route and value, with an alarm where a value is unstable.

    `paths` are a journal's segments; `where` may name a route or a tenant.
    """
    day = time_reader("day", span.zone)
    seen: dict[tuple[str, str, str], Seen] = {}
    for row in rows_in(paths):
        matches = all(row.get(name) == value for name, value in where.items())
        if matches and span.since_s <= row["time"] < span.until_s:
            _add(seen, day(_At(row["time"])), row)
    rows = list(_rows({key: one for key, one in seen.items() if len(one.values) >= REQUESTS_MIN}))
    note = (
        "Importance: the share of the uncertainty about the backend that a value takes away. "
        f"Days with fewer than {REQUESTS_MIN} requests of a route are left out."
    )
    return Table("Features", COLUMNS, tuple(rows), note)


def _rows(seen: Mapping[tuple[str, str, str], Seen]) -> Iterator[tuple[Value, ...]]:
    arms = {route: likeliest(seen, route) for route in {route for _, route, _ in seen}}
    before: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for (day, route, name), one in sorted(seen.items()):
        count = len(one.values)
        found, leaning = (
            importance(one.values, one.arms),
            direction(one.values, one.pmfs, arms[route]),
        )
        past = before.setdefault((route, name), [])
        told = alarm(past, found, leaning)
        yield day, route, name, count, one.fresh / count, found, leaning, told
        past.append((found, leaning))


@dataclass(frozen=True, slots=True)
class _At:
    time_s: float


def _add(seen: dict[tuple[str, str, str], Seen], when: str, row: Mapping[str, Any]) -> None:
    for group, part in row["features"].items():
        for name, value in part.get("values", {}).items():
            one = seen.setdefault((when, row["route"], f"{group}.{name}"), Seen())
            one.values.append(value)
            one.arms.append(row["arm"])
            one.pmfs.append(dict(zip(row["arms"], row["pmf"], strict=True)))
            one.fresh += part["mark"] == "fresh"


def importance(values: Sequence[Any], arms: Sequence[str]) -> float:
    """Return how much of the uncertainty about the arm the values take away, in [0, 1]."""
    bins = binned(values)
    count = len(bins)
    both, of_bins, of_arms = Counter(zip(bins, arms, strict=True)), Counter(bins), Counter(arms)
    entropy = -sum(n / count * math.log(n / count) for n in of_arms.values())
    if entropy <= 0.0:
        return 0.0
    mutual = sum(
        n / count * math.log(n * count / (of_bins[b] * of_arms[a])) for (b, a), n in both.items()
    )
    chance = (len(of_bins) - 1) * (len(of_arms) - 1) / (2.0 * count)  # Miller and Madow 1955
    return min(1.0, max(0.0, (mutual - chance) / entropy))


def likeliest(seen: Mapping[tuple[str, str, str], Seen], route: str) -> str:
    """Return the arm that a route drew with the highest probability in all spans together."""
    totals: dict[str, float] = {}
    for (_, name, _), one in seen.items():
        for pmf in one.pmfs if name == route else ():
            for arm, share in pmf.items():
                totals[arm] = totals.get(arm, 0.0) + share
    return max(totals, key=lambda arm: (totals[arm], arm))


def direction(values: Sequence[Any], pmfs: Sequence[Mapping[str, float]], arm: str) -> float:
    """Return how much likelier an arm is in the upper half of the values than in the lower."""
    numbers = [value for value in values if isinstance(value, int | float)]
    if numbers:
        middle = sorted(numbers)[len(numbers) // 2]
        upper = [isinstance(value, int | float) and value >= middle for value in values]
    else:
        most = Counter(values).most_common(1)[0][0]
        upper = [value == most for value in values]
    high = [pmf.get(arm, 0.0) for pmf, is_upper in zip(pmfs, upper, strict=True) if is_upper]
    low = [pmf.get(arm, 0.0) for pmf, is_upper in zip(pmfs, upper, strict=True) if not is_upper]
    return sum(high) / len(high) - sum(low) / len(low) if high and low else 0.0


def alarm(past: Sequence[tuple[float, float]], now: float, leaning: float) -> str:
    """Return what changed against the spans before; empty if nothing did."""
    if not past:
        return ""
    usual = sum(found for found, _ in past) / len(past)
    signs = [one for _, one in past if abs(one) > CLEAR]
    if signs and abs(leaning) > CLEAR and math.copysign(1, leaning) != math.copysign(1, signs[-1]):
        return "flipped"
    if abs(now - usual) > FLIPPED:
        return "rose" if now > usual else "fell"
    return ""


def binned(values: Sequence[Any]) -> list[str]:
    """Return each value's bin: quantiles of numbers, the categories themselves, and "none"."""
    numbers = sorted(value for value in values if isinstance(value, int | float))
    if numbers:
        edges = [numbers[len(numbers) * n // BINS] for n in range(1, BINS)]
        return [
            str(sum(value >= edge for edge in edges)) if isinstance(value, int | float) else "none"
            for value in values
        ]
    kept = {name for name, _ in Counter(values).most_common(BINS)}
    return [str(value) if value in kept else "other" for value in values]
