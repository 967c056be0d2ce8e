"""Metrics of features from outside: hits by tier, marks, ages, sources and their pools."""

from collections.abc import Iterator, Mapping

from tollway.gateway.features.online.breaker import STATES
from tollway.gateway.features.online.counts import TIERS
from tollway.gateway.features.online.lookup import FeatureLookup
from tollway.gateway.features.online.model import MARKS
from tollway.gateway.observability.families import Metric, counter, gauge

QUANTILES = (0.5, 0.95, 0.99)


def features(lookups: Mapping[str, FeatureLookup]) -> Iterator[Metric]:
    """Yield the metrics of all groups; nothing without one."""
    if not lookups:
        return
    known = list(lookups.items())
    yield counter(
        "tollway_feature_answers",
        "Look-ups of entities by the tier that answered",
        ["feature", "tier"],
        (([name, tier], float(one.counts.answers[tier])) for name, one in known for tier in TIERS),
    )
    yield counter(
        "tollway_feature_values",
        "Requests by how the values of a group came about; all marks but fresh and stale are "
        "defaults",
        ["feature", "mark"],
        (([name, mark], float(one.counts.marks[mark])) for name, one in known for mark in MARKS),
    )
    yield counter(
        "tollway_feature_source_queries",
        "Queries to a source, each of a batch of entities",
        ["feature"],
        (([name], float(one.counts.queries)) for name, one in known),
    )
    yield counter(
        "tollway_feature_source_failures",
        "Queries that a source did not answer",
        ["feature"],
        (([name], float(one.counts.failures)) for name, one in known),
    )
    yield counter(
        "tollway_feature_early_renewals",
        "Values that were renewed before they expired",
        ["feature"],
        (([name], float(one.counts.early)) for name, one in known),
    )
    yield counter(
        "tollway_feature_crowded",
        "Look-ups that did not begin, because too many were under way",
        ["feature"],
        (([name], float(one.counts.crowded)) for name, one in known),
    )
    yield gauge(
        "tollway_feature_stale_age_seconds",
        "Age of the values that were last served after they had expired",
        ["feature"],
        (([name], one.counts.stale_age_s) for name, one in known),
    )
    yield from _now(known)


def _now(known: list[tuple[str, FeatureLookup]]) -> Iterator[Metric]:
    yield gauge(
        "tollway_feature_source_state",
        "State of a source's circuit breaker: 1 for the one that it is in",
        ["feature", "state"],
        (
            ([name, state], float(one.breaker.state(one.now_s()) == state))
            for name, one in known
            for state in STATES
        ),
    )
    yield gauge(
        "tollway_feature_memory_entities",
        "Entities in memory",
        ["feature"],
        (([name], float(len(one.memory))) for name, one in known),
    )
    yield gauge(
        "tollway_feature_latency_seconds",
        "Latency of a tier's latest 512 answers, by quantile",
        ["feature", "tier", "quantile"],
        (
            ([name, tier, str(share)], one.counts.quantile_s(tier, share))
            for name, one in known
            for tier in TIERS[1:]
            for share in QUANTILES
        ),
    )
    yield gauge(
        "tollway_feature_pool_connections",
        "Connections of a source's pool: open, idle, and look-ups waiting for one",
        ["feature", "state"],
        (
            ([name, state], value)
            for name, one in known
            for state, value in one.source.gauges().items()
        ),
    )
