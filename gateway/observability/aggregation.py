"""Aggregation of metrics: combines the metrics of several workers.

A family is a plain document, `{"name", "type", "text", "samples": [[name, labels, value], ...]}`.
Counters and histograms add up, including those of workers that have died. Gauges are current
values; the rules below say how to combine each one. Gauges that are not listed are equal in all
workers, or their maximum is used.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Family = dict[str, Any]
Combine = Callable[[float, float], float]

_ADDED = {
    "tollway_backend_calls",
    "tollway_backend_concurrency_limit",
    "tollway_backend_calls_waiting",
    "tollway_backend_start_waiting",
    "tollway_budget_waiting",
    "tollway_device_unallocated_usd",
    "tollway_drained_streams",
    "tollway_feature_memory_entities",
    "tollway_feature_pool_connections",
    "tollway_journal_dropped_rows",
    "tollway_journal_rows",
    "tollway_journal_waiting_bytes",
}
_LOWEST = {
    "tollway_backend_address_up",
    "tollway_backend_up",
    "tollway_budget_free_usd",
    "tollway_estimate_ceiling_coverage_ratio",
    "tollway_ledger_up",
    "tollway_rollout_store_up",
}


def add(reports: Sequence[Iterable[Family]]) -> list[Family]:
    """Return the families of all reports, each once, with combined samples."""
    families: dict[str, Family] = {}
    samples: dict[str, dict[tuple[Any, ...], list[Any]]] = {}
    for report in reports:
        for family in report:
            families.setdefault(family["name"], family)
            held = samples.setdefault(family["name"], {})
            combine = how(family)
            for name, labels, value in family["samples"]:
                sample = held.setdefault((name, *labels.items()), [name, labels, None])
                before = sample[2]
                sample[2] = value if before is None else combine(before, value)
    return [
        {**family, "samples": list(samples[name].values())} for name, family in families.items()
    ]


def how(family: Family) -> Combine:
    """Return the function that combines two workers' values of a family's sample."""
    if family["type"] in {"counter", "histogram"} or family["name"] in _ADDED:
        return lambda one, other: one + other
    return min if family["name"] in _LOWEST else max


def lasting(families: Iterable[Family]) -> list[Family]:
    """Return the metrics of a dead worker that still count: all but its gauges."""
    return [family for family in families if family["type"] in {"counter", "histogram"}]
