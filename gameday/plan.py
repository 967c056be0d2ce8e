"""A plan: which faults are injected, when, and for how long."""

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tollway.gameday.faults import Faults, duration, parse

KEYS = ("at", "for", "fault")


@dataclass(frozen=True, slots=True)
class Strike:
    """Faults injected at a time after the start, in seconds; without `for_s`, indefinitely."""

    at_s: float
    faults: Faults
    for_s: float | None = None


class BadPlan(ValueError):  # noqa: N818 - reads as what it is
    """An invalid plan; the message says where and why."""


def repeated(faults: Faults, for_s: float | None, every_s: float | None) -> Iterator[Strike]:
    """Yield strikes endlessly; the first at once, or after the first `every_s`."""
    if every_s is None:
        yield Strike(0.0, faults, for_s)
        return
    for number in itertools.count(1):
        yield Strike(number * every_s, faults, for_s)


def load(file: Path) -> list[Strike]:
    """Load a file's strikes in order; raise BadPlan if the file is invalid.

    [[strike]]
    at = "10s"
    for = "5s"              # without it, until the next strike
    fault = "latency=200ms,jitter=50ms"
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as exc:
        raise BadPlan(f"{file}: {exc}") from exc
    tables = document.get("strike")
    if set(document) != {"strike"} or not isinstance(tables, list) or not tables:
        raise BadPlan(f"{file}: a plan must contain [[strike]] tables and nothing else")
    strikes = [_strike(f"{file}: strike {n}", table) for n, table in enumerate(tables, 1)]
    strikes.sort(key=lambda strike: strike.at_s)
    for one, after in itertools.pairwise(strikes):
        if one.at_s + (one.for_s or 0.0) > after.at_s or one.at_s == after.at_s:
            raise BadPlan(
                f"{file}: the strike at {one.at_s:g}s overlaps the one at {after.at_s:g}s "
                f"({after.faults}); to combine faults, write them in one strike: "
                'fault = "latency=200ms,rate=20kB"'
            )
    return strikes


def _strike(where: str, table: object) -> Strike:
    if not isinstance(table, dict):
        raise BadPlan(f"{where}: write [[strike]]")
    for key, value in table.items():
        if key not in KEYS:
            raise BadPlan(f"{where}: unknown key {key!r}; the keys are: {', '.join(KEYS)}")
        if not isinstance(value, str):
            raise BadPlan(f'{where}: {key} must be text, such as {key} = "10s"')
    if "at" not in table or "fault" not in table:
        raise BadPlan(f"{where}: at and fault are required")
    try:
        for_s = duration(table["for"]) if "for" in table else None
        return Strike(duration(table["at"]), parse(table["fault"]), for_s)
    except ValueError as exc:
        raise BadPlan(f"{where}: {exc}") from None
