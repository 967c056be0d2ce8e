"""Sources: the journals that a report reads, and the configuration of their routes."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tollway.backends.pricing import Price
from tollway.gateway.settings import Settings, load
from tollway.gateway.settings.errors import did_you_mean
from tollway.gateway.storage.journal_reader import files
from tollway.reports.facts import Charge, Damage, Fact, read
from tollway.reports.fixed_costs import FixedCost
from tollway.reports.returns import Terms
from tollway.reports.tables import Unknowable
from tollway.reports.totals import DIMENSIONS, OF_CHARGES, Span, reader

TAGS = ("cost_center", "environment", "team")
"""Tags whose spend is shown by default, if any request has them."""

VALUES_MAX = 1000  # values of a filtered dimension that are remembered, to suggest the nearest
DEFAULTS = (Path("tollway.toml"), Path(".tollway/journal"))


@dataclass(slots=True)
class Source:
    """The input of a report: journal segments, a time span, a filter.

    `terms` by route, and `models` (the provider's names for backends) and `prices` by backend and
    `fixed_costs` come from the configurations given, if any.
    """

    # The mutable state is the damage found while reading, the tags and filtered values seen, and
    # the warnings that a report begins with.

    paths: list[Path]
    span: Span
    where: dict[str, str]
    terms: dict[str, Terms]
    models: dict[str, str]
    prices: dict[str, Price]
    fixed_costs: tuple[FixedCost, ...] = ()
    damage: Damage = field(default_factory=Damage)
    warnings: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)

    def facts(self) -> Iterator[Fact]:
        """Yield the facts that match the span and the filter."""
        wanted = [
            (reader(name, self.span.zone), value, self.values.setdefault(name, set()))
            for name, value in self.where.items()
        ]
        of_charges = bool(OF_CHARGES & self.where.keys())
        for fact in read(self.paths, self.damage):
            self.tags.update(fact.tags)
            if of_charges and not isinstance(fact, Charge):
                continue  # a request may have called several backends
            kept = self.span.keeps(fact)
            for read_value, value, seen in wanted:
                own = read_value(fact)
                if len(seen) < VALUES_MAX:
                    seen.add(own)
                kept = kept and own == value
            if kept:
                yield fact

    def check_names(self, by: Iterable[str]) -> None:
        """Raise Unknowable if a dimension is no tag of any request; call it after `facts`."""
        if not self.damage.lines:
            return  # nothing was read: no name is right or wrong
        known = {*DIMENSIONS, *TAGS, *self.tags}
        asked = [*(("--by", one) for one in by), *(("--where", one) for one in self.where)]
        for option, name in asked:
            if name not in known:
                raise Unknowable(
                    f"{option} {name}: no request has a tag {name!r}; "
                    + did_you_mean(name, known, otherwise=f"use one of {', '.join(sorted(known))}")
                )

    def nothing(self) -> str:
        """Say what was searched in vain."""
        filters = ", ".join(f"{name} {value}" for name, value in self.where.items())
        since, until = self._ends()
        between = " ".join([f"from {since}" if since else "", f"until {until}" if until else ""])
        parts = ["No requests", f"of {filters}" if filters else "", between.strip()]
        said = " ".join(filter(None, parts))
        for name, value in self.where.items():
            seen = self.values.get(name, set()) - {value}
            if value not in self.values.get(name, set()) and seen:
                said += f"; {did_you_mean(value, seen, otherwise=_some(name, seen))}"
        return said

    def notes(self) -> list[str]:
        """Return notes about the data that was read."""
        notes = []
        if self.damage.bad:
            notes.append(f"{self.damage.bad} of {self.damage.lines} lines are cut or damaged")
        if self.damage.open:
            notes.append(
                f"{len(self.damage.open)} streams have no end in the journal: they are running, or "
                "their gateway was killed, in which case budgets hold their cost as unaccounted"
            )
        return notes

    def title(self) -> str:
        """Describe the time span and the filter."""
        since, until = self._ends()
        parts = [f"from {since}" if since else "", f"until {until}" if until else ""]
        parts += [f"{name} {value}" for name, value in self.where.items()]
        title = ", ".join([*filter(None, parts), f"time zone {self.span.zone}"])
        return title[0].upper() + title[1:]

    def _ends(self) -> tuple[str, str]:
        """Return the span's ends as text, empty where it has none."""
        since, until = (
            "" if abs(at) == float("inf") else f"{datetime.fromtimestamp(at, self.span.zone):%F %T}"
            for at in (self.span.since_s, self.span.until_s)
        )
        return since, until


def _some(name: str, seen: set[str]) -> str:
    return f"there is {name} {', '.join(sorted(seen)[:5])}"


def open_source(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Source:
    """Open the source that the arguments name; raise Unknowable if there is no journal."""
    given = arguments.source or [path for path in DEFAULTS if path.exists()][:1]
    journals: list[Path] = []
    terms: dict[str, Terms] = {}
    models: dict[str, str] = {}
    prices: dict[str, Price] = {}
    fixed: dict[str, FixedCost] = {}  # gateways of one configuration do not pay twice
    for path in given:
        if path.suffix == ".toml":
            settings = load(path, environ)
            journals.append(settings.journal.dir)
            terms |= terms_of(settings)
            models |= {b.model: b.name for b in settings.backends if b.model}
            prices |= {b.name: b.parsed_price() for b in settings.backends if b.device is None}
            fixed |= {
                one.name: FixedCost(one.name, one.monthly_nano, one.route, one.team, one.backend)
                for one in settings.fixed_costs
            }
        else:
            journals.append(path)
    paths = files(journals)
    if not paths:
        names = ", ".join(map(str, given)) or "here"
        raise Unknowable(f"no journal at {names}; name its folder or a configuration file")
    zone = _zone(arguments.timezone)
    span = Span(
        _moment(arguments.since, zone, float("-inf")),
        _moment(arguments.until, zone, float("inf")),
        zone,
    )
    where = dict(map(pair, arguments.where))
    return Source(paths, span, where, terms, models, prices, tuple(fixed.values()))


def terms_of(settings: Settings) -> dict[str, Terms]:
    """Return the terms of each route in a configuration."""
    declared = {
        backend.name: backend.declared_accuracy
        for backend in settings.backends
        if backend.declared_accuracy is not None
    }
    return {
        route.name: Terms(
            route.value_per_correct_usd,
            route.accuracy_floor,
            {name: declared[name] for name in route.backends if name in declared},
        )
        for route in settings.routes
    }


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise Unknowable(f"{name!r} is not a time zone; write it like Europe/Berlin") from None


def _moment(text: str | None, zone: tzinfo, default: float) -> float:
    if text is None:
        return default
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise Unknowable(f"{text!r} is not a date; write it like 2026-11-23") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)).timestamp()


def pair(text: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise Unknowable(f"{text!r} is not NAME=VALUE; write it like tenant=acme")
    return name, value
