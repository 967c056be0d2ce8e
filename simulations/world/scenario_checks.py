"""Checks between the tables of a scenario."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from tollway.gateway import settings as config
from tollway.gateway.settings.errors import did_you_mean, key_of, of_validation, show
from tollway.policies.registry import build
from tollway.policies.types import Objective
from tollway.simulations.world.scenario import (
    REQUESTS_MAX,
    ByClass,
    Change,
    Scenario,
    settings_document,
)


def disagreements(scenario: Scenario) -> Iterator[tuple[str, str, str]]:
    """Yield (key, why, value) for each inconsistency between the tables."""
    classes, names = scenario.workload.classes, [b.name for b in scenario.backends]
    for at, backend in enumerate(scenario.backends):
        if names.index(backend.name) != at:
            yield (
                f"backends[{at}].name",
                "is the name of two backends; rename one",
                show(backend.name),
            )
        yield from _of_classes(backend.quality, classes, f"backends[{at}].quality")
        yield from _of_price(backend.price, f"backends[{at}].price")
        quantiles = backend.latency_quantiles_s
        if len(quantiles) == 1 or list(quantiles) != sorted(quantiles):
            why = "must be two or more latencies in rising order; write it like [0.01, 0.02, 0.05]"
            yield f"backends[{at}].latency_quantiles_s", why, ""
    if all(backend.from_h > 0 for backend in scenario.backends):
        yield "backends[0].from_h", "is above 0, as for all backends; set one of them to 0", ""
    for at, change in enumerate(scenario.changes):
        yield from _of_change(scenario, change, f"changes[{at}]")
    yield from _of_workload(scenario)
    if scenario.route.baseline is not None and scenario.route.baseline not in names:
        near = did_you_mean(scenario.route.baseline, names)
        yield "route.baseline", f"is not among the backends; {near}", show(scenario.route.baseline)
    objective = Objective()  # in the place of one that is invalid: options are checked all the same
    try:
        objective = config.Settings(**settings_document(scenario)).routes[0].to_objective()
    except ValidationError as exc:
        for location, value, why in of_validation(exc, config.Settings):
            yield key_of(location).replace("routes[0]", "route"), why, value
    try:
        build(scenario.route.policy, objective, options=scenario.route.policy_options, seed=0)
    except ValueError as exc:
        yield "route.policy_options", str(exc), ""


def _of_price(price: Mapping[str, Any] | None, key: str) -> Iterator[tuple[str, str, str]]:
    if price is not None and "hours" in price:
        why = "is not simulated; write [[changes]] that set the price at these hours"
        yield f"{key}.hours", why, show(price["hours"])


def _of_classes(
    quality: ByClass | None, classes: Mapping[str, float], key: str
) -> Iterator[tuple[str, str, str]]:
    if not isinstance(quality, dict):
        return
    for name in quality.keys() - classes.keys():
        near = did_you_mean(name, classes)
        yield f"{key}.{name}", f"is not among workload.classes; {near}", ""
    for name in sorted(classes.keys() - quality.keys()):
        yield f"{key}.{name}", "is missing; write a quality for each of workload.classes", ""


def _of_change(scenario: Scenario, change: Change, key: str) -> Iterator[tuple[str, str, str]]:
    backends, budgets = [b.name for b in scenario.backends], [b.name for b in scenario.budgets]
    yield from _of_price(change.price, f"{key}.price")
    of_backend = [change.price, change.quality, change.latency_times, change.up, change.errors]
    if change.backend is None and any(value is not None for value in of_backend):
        yield f"{key}.backend", "is missing; name the backend that changes", ""
    if change.backend is not None and change.backend not in backends:
        yield f"{key}.backend", did_you_mean(change.backend, backends), show(change.backend)
    if (change.budget is None) != (change.limit_usd is None):
        yield f"{key}.budget", "goes with limit_usd; give both or neither", ""
    elif change.budget is not None and change.budget not in budgets:
        yield f"{key}.budget", did_you_mean(change.budget, budgets), show(change.budget)
    if change.at_h >= scenario.hours:
        why = f"must be before the end; write less than {float(scenario.hours):g}"
        yield f"{key}.at_h", why, show(change.at_h)
    if any(not 0 <= at < scenario.gateways for at in change.cut or ()):
        why = f"names a gateway that does not exist; count from 0 to {scenario.gateways - 1}"
        yield f"{key}.cut", why, show(list(change.cut or ()))
    yield from _of_classes(change.quality, scenario.workload.classes, f"{key}.quality")


def _of_workload(scenario: Scenario) -> Iterator[tuple[str, str, str]]:
    workload = scenario.workload
    if (workload.arrivals == "journal") != (workload.journal is not None):
        yield "workload.journal", 'goes with arrivals = "journal"; give both or neither', ""
    expected = workload.requests_per_day * scenario.hours / 24
    if expected > REQUESTS_MAX:
        why = f"gives {expected:,.0f} requests in total; the maximum is {REQUESTS_MAX:,}"
        yield "workload.requests_per_day", why, show(workload.requests_per_day)
    tenants = {f"t{number + 1}" for number in range(workload.tenants)}
    tenants |= {burst.tenant for burst in workload.bursts if burst.tenant}
    if scenario.labels.liar is not None and scenario.labels.liar not in tenants:
        why = f"is neither one of the tenants t1 to t{workload.tenants} nor a burst's tenant"
        yield "labels.liar", why, show(scenario.labels.liar)
