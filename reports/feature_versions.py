"""The report on versions of features: how requests fared that got each of them.

A candidate gets a share of the entities, always the same ones, so both versions are compared on
requests of the same time. Requests of one entity are not independent of one another: quality is
averaged by entity first, and the interval is that of the mean of entities (a ratio estimate of
clusters; Cochran 1977, 2.11 and 3A). Labels that audits have selected do not count.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tollway.gateway.storage import journal_reader
from tollway.gateway.storage.feature_rows import rows_in
from tollway.reports.facts import qualities
from tollway.reports.tables import Column, Kind, Table, Value
from tollway.reports.totals import Span

SURE = 1.96  # standard errors: 95 %
ENTITIES_MIN = 20  # with labels, of each version: fewer say nothing

COLUMNS = (
    Column("route", "route"),
    Column("feature", "feature"),
    Column("version", "version"),
    Column("requests", "requests", Kind.COUNT),
    Column("fresh_share", "fresh", Kind.SHARE),
    Column("cost", "cost", Kind.MONEY),
    Column("labelled_entities", "labelled entities", Kind.COUNT),
    Column("quality", "quality", Kind.NUMBER),
    Column("difference", "difference", Kind.NUMBER),
    Column("within", "+-", Kind.NUMBER),
    Column("verdict", "verdict"),
)


@dataclass(slots=True)
class Got:
    """The requests that got one version: their costs, and by entity their labels."""

    requests: int = 0
    fresh: int = 0
    cost_nano: int = 0
    labels: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def mean(self) -> tuple[float, float] | None:
        """Return the mean quality and its standard error; None with too few entities."""
        count = len(self.labels)
        if count < ENTITIES_MIN:
            return None
        sums = [(sum(one), len(one)) for one in self.labels.values()]
        total, size = map(sum, zip(*sums, strict=True))
        mean = total / size
        spread = sum((label - mean * of) ** 2 for label, of in sums) / (count - 1)
        return mean, math.sqrt(spread / count) / (size / count)


def table(paths: Iterable[Path], span: Span, where: Mapping[str, str]) -> Table:
    """Return a row for each route, group and version that requests got.

    `paths` are a journal's segments; `where` may name a route or a tenant. The difference is to the
    version that most requests of the route got.
    """
    paths = list(paths)
    labels, costs = qualities(paths), _costs(paths)
    seen: dict[tuple[str, str], dict[str, Got]] = {}
    for row in rows_in(paths):
        matches = all(row.get(name) == value for name, value in where.items())
        if not matches or not span.since_s <= row["time"] < span.until_s or row["stage"]:
            continue
        for group, part in row["features"].items():
            got = seen.setdefault((row["route"], group), {}).setdefault(part["version"], Got())
            got.requests += 1
            got.fresh += part["mark"] == "fresh"
            got.cost_nano += costs.get(row["id"], 0)
            if row["id"] in labels and part.get("entity"):
                got.labels[part["entity"]].append(labels[row["id"]])
    rows = [line for key in sorted(seen) for line in _rows(key, seen[key])]
    note = (
        "cost and quality are means of requests. +-: half of the 95% interval of the difference to "
        f"the version with the most requests; at least {ENTITIES_MIN} entities of each have labels."
    )
    return Table("Versions of features", COLUMNS, tuple(rows), note)


def _rows(key: tuple[str, str], versions: Mapping[str, Got]) -> Iterator[tuple[Value, ...]]:
    usual = max(versions, key=lambda one: (versions[one].requests, one))
    base = versions[usual].mean()
    for version, got in sorted(versions.items(), key=lambda one: (one[0] != usual, one[0])):
        mean = got.mean()
        difference = within = None
        verdict = ""
        if version != usual:
            verdict = "too few labels"
            if mean is not None and base is not None:
                difference = mean[0] - base[0]
                within = SURE * math.hypot(mean[1], base[1])
                verdict = "no difference seen"
                if abs(difference) > within:
                    verdict = "better" if difference > 0.0 else "worse"
        yield (
            *key,
            version,
            got.requests,
            got.fresh / got.requests,
            round(got.cost_nano / got.requests),
            len(got.labels),
            None if mean is None else mean[0],
            difference,
            within,
            verdict,
        )


def _costs(paths: Iterable[Path]) -> dict[str, int]:
    """Return the cost of each request, without audits."""
    costs: dict[str, int] = {}
    charged = journal_reader.of_kinds("attempt", "settlement")
    for path in paths:
        for row in journal_reader.sound(path, journal_reader.Damage(), charged):
            if not row.get("audit"):
                costs[row["id"]] = costs.get(row["id"], 0) + row["cost_nano"]
    return costs
