"""Totals of each backend, read from the metrics that the workers have counted."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tollway.gateway.scaling.load_meter import Totals

_CALLS = "tollway_upstream_duration_seconds_count"
_SECONDS = "tollway_upstream_duration_seconds_sum"
_REFUSED = "tollway_backend_shed_total"
_WAITING = "tollway_backend_calls_waiting"
_FAILED = "tollway_attempt_errors_total"
_REQUESTS = "tollway_requests"
_CPU = "tollway_process_cpu_seconds"
_STARTING = "tollway_backend_start_waiting"
_WAITED = "tollway_backend_start_wait_seconds_total"
_FIELDS = {
    _CALLS: "calls",
    _SECONDS: "seconds",
    _REFUSED: "refused",
    _FAILED: "failed",
    _WAITING: "waiting",
    _STARTING: "cold",
}
_COUNTED = (_REFUSED, _FAILED, _WAITING, _STARTING, _WAITED)
_FAMILIES = {name.removesuffix("_total") for name in _COUNTED} | {_CALLS.removesuffix("_count")}


def totals(families: Iterable[Mapping[str, Any]], gateway: Iterable[str] = ()) -> dict[str, Totals]:
    """Return the totals of each backend over all routes, from the metrics of all workers.

    Under each name in `gateway` stand the totals of the gateway itself: its requests, and its
    processor time as their duration. With thousands of tenants this takes tens of milliseconds.
    """
    found: dict[str, Totals] = {}
    own = Totals()
    for family in families:
        if family["name"] == _REQUESTS:
            own.calls += sum(one[2] for one in family["samples"] if one[0].endswith("_total"))
        elif family["name"] == _CPU:
            own.seconds += sum(one[2] for one in family["samples"] if one[0].endswith("_total"))
        if family["name"] not in _FAMILIES:
            continue
        for name, labels, value in family["samples"]:
            if field_name := _FIELDS.get(name):
                one = found.setdefault(labels["backend"], Totals())
                setattr(one, field_name, getattr(one, field_name) + value)
            elif name == _WAITED:  # for a replica: a call's duration says nothing of its service
                found.setdefault(labels["backend"], Totals()).seconds -= value
    return {**found, **{name: replace(own) for name in gateway}}
