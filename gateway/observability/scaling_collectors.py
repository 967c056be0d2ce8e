"""Metrics of scaling: what is recommended, what was set, and what replicas cost."""

import time
from collections.abc import Iterator

from tollway.gateway.observability.families import Metric, counter, gauge
from tollway.gateway.scaling.scaler import Scaler


def scaling(owner: Scaler) -> Iterator[Metric]:
    """Yield the metrics of the backends that have a plan; most are absent until load is known."""
    if not owner.advisor.backends:
        return
    known = {name: one for name, one in owner.advisor.backends.items() if one.current is not None}
    now = {name: one.current for name, one in known.items() if one.current is not None}
    yield gauge(
        "tollway_backend_replicas_recommended",
        "Replicas that a backend needs, within its bounds",
        ["backend"],
        (([name], one.replicas) for name, one in now.items()),
    )
    yield gauge(
        "tollway_backend_replicas_wanted",
        "Replicas that a backend needs, without its bounds",
        ["backend"],
        (([name], one.steady) for name, one in now.items()),
    )
    yield gauge(
        "tollway_backend_replicas_bound",
        "Fewest and most replicas that may be recommended now",
        ["backend", "bound"],
        (
            ([name, bound], count)
            for name, one in now.items()
            for bound, count in (("min", one.bounds.least), ("max", one.bounds.most))
        ),
    )
    yield gauge(
        "tollway_backend_replicas_coming",
        "Replicas at the next fall of the recommendation within an hour if the load stays as it is",
        ["backend"],
        (
            ([name], now[name].replicas if one.coming is None else one.coming.replicas)
            for name, one in known.items()
        ),
    )
    yield gauge(
        "tollway_backend_forecast_error_ratio",
        "Mean error of the forecast of calls in the last hours, as a share of the higher one",
        ["backend"],
        (
            ([name], one.forecast_error)
            for name, one in known.items()
            if one.forecast_error is not None
        ),
    )
    yield from _set(owner)
    yield from _used(owner)
    yield counter(
        "tollway_process_cpu_seconds",
        "Processor time of the gateway's processes, by which its own replicas are recommended",
        [],
        [([], time.process_time())],
    )


def _set(owner: Scaler) -> Iterator[Metric]:
    yield gauge(
        "tollway_backend_replicas_set",
        "Replicas that were set last by an action",
        ["backend"],
        (
            ([name], one.applied.replicas)
            for name, one in owner.acting.items()
            if one.applied.replicas is not None
        ),
    )
    results = ("made", "failed", "held", "dry_run")
    yield counter(
        "tollway_scaling_changes",
        "Changes of replicas by result",
        ["backend", "result"],
        (
            ([name, result], float(owner.counts[name, result]))
            for name in owner.acting
            for result in results
        ),
    )


def _used(owner: Scaler) -> Iterator[Metric]:
    usage = owner.usage
    yield counter(
        "tollway_backend_replica_seconds",
        "Time of replicas, set or else recommended, counted by the gateway that leads",
        ["backend"],
        (([name], total) for name, total in usage.replica_s.items()),
    )
    yield counter(
        "tollway_backend_replica_busy_seconds",
        "Part of the time of replicas in which they worked on calls",
        ["backend"],
        (([name], total) for name, total in usage.busy_s.items()),
    )
    yield counter(
        "tollway_backend_replica_cost_usd",
        "Cost of the time of replicas in dollars",
        ["backend"],
        (
            ([name], total)
            for name, total in usage.cost_usd.items()
            if name in owner.advisor.backends
            and owner.advisor.backends[name].plan.replica_nano_per_hour is not None
        ),
    )
