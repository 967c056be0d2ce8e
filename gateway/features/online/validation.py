"""Compares what a source has with what is declared, and with what requests got.

Of each value: the share of entities that lack it, the shares of the wrong type and out of the
declared range, and the drift of what the source has now against what the journal has, as the
population stability index (see `drift`; for categories over the categories themselves).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tollway.gateway.features.drift import DRIFTED, stability
from tollway.gateway.features.online.model import CATEGORY, NUMBER, Feature, FeatureGroup
from tollway.record import record

ENOUGH = 100  # values on both sides: with fewer, chance alone gives a drift of 0.25
CATEGORIES_MAX = 20  # with a bin of their own; the rest share one
_LEAST = 1e-4  # of a share: an empty bin would make the index infinite


@record
class Finding:
    """What was found of one value; shares are in [0, 1], `psi` is None without enough values."""

    feature: str
    entities: int
    missing: float
    mistyped: float
    outside: float
    psi: float | None

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words."""
        found = []
        if self.entities and self.missing == 1.0:
            found.append("no entity has it")
        if self.mistyped:
            found.append(f"{self.mistyped:.1%} are of another type")
        if self.outside:
            found.append(f"{self.outside:.1%} are outside the range")
        if self.psi is not None and self.psi > DRIFTED:
            found.append(f"has drifted from what requests got (PSI {self.psi:.2f})")
        return found


def examine(
    group: FeatureGroup,
    rows: Sequence[Mapping[str, Any]],
    served: Sequence[Mapping[str, Any]],
) -> list[Finding]:
    """Return a finding for each value.

    `rows` are what the source gave, one for each entity that it has; `served` the values of
    requests that got them fresh.
    """
    return [_of(one, rows, served) for one in group.features]


def _of(
    feature: Feature, rows: Sequence[Mapping[str, Any]], served: Sequence[Mapping[str, Any]]
) -> Finding:
    given = [row.get(feature.name) for row in rows]
    present = [value for value in given if value is not None]
    parsed = [feature.parsed(value) for value in present]
    known = [value for value in parsed if value is not None]
    low = -math.inf if feature.low is None else feature.low
    high = math.inf if feature.high is None else feature.high
    outside = 0
    if feature.kind == NUMBER:
        outside = sum(not low <= value <= high for value in known)
    count = len(present) or 1
    return Finding(
        feature.name,
        len(given),
        1.0 - len(present) / (len(given) or 1),
        (len(parsed) - len(known)) / count,
        outside / count,
        drift(feature, known, _values(feature, served)),
    )


def _values(feature: Feature, served: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [value for one in served if (value := one.get(feature.name)) is not None]


def drift(feature: Feature, now: Sequence[Any], before: Sequence[Any]) -> float | None:
    """Return the population stability index of values; None for texts, or without enough values."""
    if min(len(now), len(before)) < ENOUGH:
        return None
    if feature.kind == NUMBER:
        reference, recent = (np.asarray(one, float).reshape(-1, 1) for one in (before, now))
        return stability(reference, recent)[0]
    return _categorical(now, before) if feature.kind == CATEGORY else None


def _categorical(now: Sequence[str], before: Sequence[str]) -> float:
    known = [name for name, _ in Counter(before).most_common(CATEGORIES_MAX)]
    shares = [_shares(Counter(one), known) for one in (before, now)]
    terms = [(p - q) * math.log(p / q) for p, q in zip(*shares, strict=True)]
    return math.fsum(terms)


def _shares(counts: Counter[str], known: Sequence[str]) -> list[float]:
    total = counts.total()
    listed = [counts[name] / total for name in known]
    return [max(share, _LEAST) for share in (*listed, 1.0 - sum(listed))]
