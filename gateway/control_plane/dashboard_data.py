"""The overview: the data of the dashboard, as one document.

Every figure has the same source as in the API, the metrics and the reports: budgets come from the
reservations, counts from the counters' history. A range, a route and a tenant filter the figures.
Budgets, events and operators' acts are not filtered.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tollway.backends.money import to_usd
from tollway.gateway.anomalies.detector import AnomalyDetector
from tollway.gateway.budgets.burn_rate import SpendRates, burn_rate, lasts_s, mean_nano_per_s
from tollway.gateway.budgets.model import BudgetStatus
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.control_plane import acts, explain, savings
from tollway.gateway.observability.time_series import Bucket, TimeSeries, total
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.storage.audit_log import AuditLog
from tollway.gateway.workers.group import WorkerGroup

RANGES = {"1h": 3600.0, "6h": 21_600.0, "1d": 86_400.0, "7d": 604_800.0, "30d": 2_592_000.0}
Z = 1.96  # of a 95 % interval
KNOWN_LABELS = 100  # labels needed to estimate the quality of a backend without a declared accuracy
TOP = 10
EVENTS = 20
FORECAST_S = 3600.0  # the period over which a budget's spending rate is measured
FORECAST_LEAST_S = 30.0  # with less, the mean since the window's start is used


@dataclass(frozen=True, slots=True)
class DashboardQuery:
    """The query: a range in seconds from RANGES, and one route and tenant, or all."""

    range_s: float = RANGES["1h"]
    route: str = ""
    tenant: str = ""

    def keeps(self, labels: Mapping[str, str]) -> bool:
        """Return whether a counter's labels match the query."""
        return (not self.route or labels.get("route") == self.route) and (
            not self.tenant or labels.get("tenant", self.tenant) == self.tenant
        )


class DashboardData:
    """Builds the document from its sources."""

    # The mutable state is the budgets' spend over the last hour, in the rates.

    def __init__(
        self,
        *,
        group: WorkerGroup,
        reservations: Reservations,
        history: TimeSeries,
        anomalies: AnomalyDetector,
        routes: Mapping[str, RoutePlan],
        recent: Callable[[], list[str]],
        story: Callable[[str], dict[str, Any] | None],
        audit: AuditLog,
        rollouts: Callable[[], Awaitable[list[dict[str, Any]]]],
        wall: Callable[[], float],
    ) -> None:
        """`recent`: the newest decisions' ids, newest last; `story` explains one.

        `rollouts` describes the rollouts.
        """
        self._group = group
        self._reservations = reservations
        self._history = history
        self._anomalies = anomalies
        self._routes = routes
        self._recent = recent
        self._story = story
        self._audit = audit
        self._rollouts = rollouts
        self._wall = wall
        self._rates = SpendRates(FORECAST_S, FORECAST_LEAST_S)

    async def document(self, query: DashboardQuery) -> dict[str, Any]:
        """Return the current document."""
        if self._group.alone:
            await self._group.settle()
        now_s = self._wall()
        report = await self._group.all()
        self._history.sample(report.families, now_s)
        step_s, buckets = self._history.buckets(query.range_s, now_s)
        spend = _spend(buckets, query)
        tags = sorted(report.tags.items(), key=lambda item: -item[1])[:TOP]
        routes = [route for route in self._routes.values() if query.route in {"", route.name}]
        decisions = [self._story(decision) for decision in self._recent()[::-1][:TOP]]
        return {
            "now": now_s,
            "range_s": query.range_s,
            "routes_known": list(self._routes),
            "tenants_known": sorted({key[2] for key in report.spend}),
            "since_start_nano": sum(report.spend.values()),
            "spend": spend,
            "series": _series(buckets, query, step_s, now_s),
            "budgets": [self._budget(status, now_s) for status in self._reservations.status()],
            "routes": [_route(route, buckets, query) for route in routes],
            "devices": _devices(report.families),
            "replicas": _replicas(report.families),
            "rollouts": await self._rollouts(),
            "tenants": _top(buckets, query),
            "tags": [{"tag": tag, "usd": to_usd(nano)} for tag, nano in tags],
            "anomalies": [
                {**asdict(anomaly), "ratio": anomaly.ratio, "cause": anomaly.factors.cause}
                | {"text": str(anomaly)}
                for anomaly in self._anomalies.active
            ],
            "events": report.events[:EVENTS],
            "acts": await asyncio.to_thread(self._acts),
            "decisions": [summary for summary in decisions if summary],
        }

    def _acts(self) -> list[dict[str, Any]]:
        """Return the newest acts of operators; none if the log cannot be read."""
        try:
            return [acts.event(act) for act in self._audit.newest(EVENTS)]
        except OSError:
            return []

    def _budget(self, status: BudgetStatus, now_s: float) -> dict[str, Any]:
        """Return a budget with a forecast at the rate of the last hour."""
        rate = self._rates.nano_per_s(status, now_s)
        if rate is None:
            rate = mean_nano_per_s(status, now_s)
        document = {
            **explain.budget(status),
            "usd_per_h": to_usd(rate * 3600),
            "burn": burn_rate(status, rate),
            "forecast_usd": None,
            "runs_out_in_s": None,
        }
        lasting_s, left_s = lasts_s(status, rate), math.inf
        if status.resets_at_s is not None:
            left_s = max(0.0, status.resets_at_s - now_s)
            document["forecast_usd"] = to_usd(status.used_nano + rate * left_s)
        if lasting_s < left_s:
            document["runs_out_in_s"] = lasting_s
        return document


_OF_DEVICES = {
    "tollway_device_usd_per_hour": "usd_per_hour",
    "tollway_device_price_known": "price_known",
    "tollway_device_utilization_ratio": "utilization",
    "tollway_device_bill_usd": "bill_usd",
    "tollway_device_unallocated_usd": "unallocated_usd",
    "tollway_device_idle_ratio": "idle_share",
    "tollway_device_second_usd": "second_usd",
    "tollway_device_charged_usd": "charged_usd",
}
"""The metrics of devices, of all workers, and their names in the document."""


def _devices(families: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each device's figures since the start, and those of its backends."""
    found: dict[str, dict[str, Any]] = {}
    for name, labels, value in _named(families, _OF_DEVICES):
        one = found.setdefault(labels["device"], {"name": labels["device"], "backends": {}})
        if "backend" in labels:
            one["backends"].setdefault(labels["backend"], {})[name] = value
        else:
            one[name] = value
    return [found[name] for name in sorted(found)]


_OF_REPLICAS = {
    "tollway_backend_replicas_recommended": "recommended",
    "tollway_backend_replicas_wanted": "wanted",
    "tollway_backend_replicas_coming": "coming",
    "tollway_backend_replicas_set": "set",
    "tollway_backend_replica_seconds": "replica_s",
    "tollway_backend_replica_busy_seconds": "busy_s",
    "tollway_backend_replica_cost_usd": "cost_usd",
    "tollway_backend_forecast_error_ratio": "forecast_error",
}
"""The metrics of replicas and their names in the document."""


def _replicas(families: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what is recommended, set and used of each backend that is scaled."""
    found: dict[str, dict[str, Any]] = {}
    for name, labels, value in _named(families, _OF_REPLICAS):
        found.setdefault(labels["backend"], {"name": labels["backend"]})[name] = value
    for one in found.values():
        if one.get("replica_s"):
            one["idle_share"] = 1.0 - min(1.0, one.get("busy_s", 0.0) / one["replica_s"])
    return [found[name] for name in sorted(found) if "recommended" in found[name]]


def _named(
    families: Iterable[Mapping[str, Any]], names: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Yield (name in the document, labels, value) of each sample of the metrics in `names`."""
    for family in families:
        if family["name"] in names:
            for _, labels, value in family["samples"]:
                yield names[family["name"]], labels, value


def _spend(buckets: list[Bucket], query: DashboardQuery) -> dict[str, Any]:
    usd = total(buckets, "tollway_cost_usd_total", query.keeps).get("", 0.0)
    outcomes = total(buckets, "tollway_requests_total", query.keeps, "outcome")
    answered = outcomes.get("ok", 0.0) + outcomes.get("fallback", 0.0)
    refused = outcomes.get("over_budget", 0.0)
    changed = total(buckets, "tollway_choices_changed_total", query.keeps, "by")
    return {
        "usd": usd,
        "requests": sum(outcomes.values()),
        "answered": answered,
        "over_budget": refused,
        "changed_by_pace": changed.get("pace", 0.0),
        "changed_by_budget": changed.get("budget", 0.0),
        "failed": outcomes.get("failed", 0.0),
        "per_request_usd": usd / answered if answered else None,
    }


def _series(
    buckets: list[Bucket], query: DashboardQuery, step_s: float, now_s: float
) -> dict[str, Any]:
    """Return spend by backend and requests by outcome over time; gaps are zero."""
    count = max(1, min(720, math.ceil(query.range_s / step_s)))
    start_s = (math.floor(now_s / step_s) - count + 1) * step_s
    spend: dict[str, list[float]] = {}
    requests: dict[str, list[float]] = {}
    for bucket in buckets:
        at = round((bucket.start_s - start_s) / step_s)
        if 0 <= at < count:
            for name, sums, label in (
                ("tollway_cost_usd_total", spend, "backend"),
                ("tollway_requests_total", requests, "outcome"),
            ):
                for group, value in total([bucket], name, query.keeps, label).items():
                    sums.setdefault(group, [0.0] * count)[at] += value
    return {"start": start_s, "step_s": step_s, "spend_usd": spend, "requests": requests}


def _route(route: RoutePlan, buckets: list[Bucket], query: DashboardQuery) -> dict[str, Any]:
    """Return a route's spend, accuracy, latency and shares."""

    def keeps(labels: Mapping[str, str]) -> bool:
        return labels.get("route") == route.name and query.keeps(labels)

    usd = total(buckets, "tollway_cost_usd_total", keeps).get("", 0.0)
    outcomes = total(buckets, "tollway_requests_total", keeps, "outcome")
    answered = outcomes.get("ok", 0.0) + outcomes.get("fallback", 0.0)
    labels = total(buckets, "tollway_answers_total", keeps).get("", 0.0)
    worth = total(buckets, "tollway_answer_quality_total", keeps).get("", 0.0)
    accuracy = worth / labels if labels else None
    measured = None if accuracy is None else (accuracy, wilson(accuracy, labels))
    figures = route.policy.figures()
    fixed = _fixed(route, buckets, keeps)
    return {
        "name": route.name,
        "objective": route.objective.kind,
        "floor": route.objective.floor,
        "usd": usd,
        "answered": answered,
        "per_request_usd": usd / answered if answered else None,
        "accuracy": accuracy,
        "accuracy_interval": measured[1] if measured else None,
        "labels": labels,
        "usd_per_correct": usd / (accuracy * answered) if accuracy and answered else None,
        "cache_saved_usd": total(buckets, "tollway_cache_saved_usd_total", keeps).get("", 0.0),
        "shares": total(buckets, "tollway_attempts_total", keeps, "backend"),
        "spend_usd": total(buckets, "tollway_cost_usd_total", keeps, "backend"),
        "up": {name: backend.up for name, backend in route.backends.items()},
        "fixed": fixed,
        "savings": _savings(route, fixed, usd, answered, measured),
        "upstream_s": _quantiles(buckets, "tollway_upstream_duration_seconds", keeps),
        "gateway_s": _quantiles(buckets, "tollway_gateway_duration_seconds", keeps),
        "figures": figures,
    }


def _fixed(
    route: RoutePlan, buckets: list[Bucket], keeps: Callable[[Mapping[str, str]], bool]
) -> dict[str, dict[str, float | None]]:
    """Return what each backend would have cost for all requests, and its quality.

    The quality is the declared one, or else the policy's estimate over all requests. It is not the
    mean of the backend's labels, because the policy selected the requests that it received.
    """
    offers = total(buckets, "tollway_offers_total", keeps, "backend")
    offered = total(buckets, "tollway_counterfactual_cost_usd_total", keeps, "backend")
    thought = total(buckets, "tollway_counterfactual_quality_total", keeps, "backend")
    fixed: dict[str, dict[str, float | None]] = {}
    for name, backend in route.backends.items():
        count = offers.get(name, 0.0)
        accuracy = backend.declared_quality
        if accuracy is None and count and route.policy.version >= KNOWN_LABELS:
            accuracy = thought.get(name, 0.0) / count
        fixed[name] = {
            "per_request_usd": offered.get(name, 0.0) / count if count else None,
            "accuracy": accuracy,
        }
    return fixed


def _savings(
    route: RoutePlan,
    fixed: Mapping[str, Mapping[str, float | None]],
    usd: float,
    answered: float,
    measured: tuple[float, tuple[float, float]] | None,
) -> dict[str, Any]:
    """Return the savings against the reference, and against the best fixed backend.

    The best fixed backend is the cheapest that is as accurate as the route was, or meets its floor;
    without labels it cannot be determined. `better_fixed` is a backend that would have done better
    at the route's cost, if one is known. A filter by tenant yields none: counterfactual costs are
    not counted by tenant. `measured`: the route's accuracy and its interval.
    """
    accuracy, interval = measured or (None, None)
    each = {
        name: values["per_request_usd"]
        for name, values in fixed.items()
        if values["per_request_usd"] is not None
    }
    good = {name: fixed[name]["accuracy"] for name in each if fixed[name]["accuracy"] is not None}
    if not good or not answered:
        return {}
    declared = {name: backend.declared_quality for name, backend in route.backends.items()}

    def saved(name: str) -> dict[str, Any]:
        would = each[name] * answered
        difference = savings.points(accuracy, interval, declared[name])
        return {
            "backend": name,
            "declared": declared[name] is not None,
            "would_have_cost_usd": would,
            "saved_usd": would - usd,
            "saved_share": 1 - usd / would if would else None,
            "points": None if difference is None else difference.mean,
            "points_interval": None if difference is None else [difference.low, difference.high],
        }

    document: dict[str, Any] = {}
    reference = savings.reference(declared) or max(good, key=lambda name: good[name] or 0.0)
    if reference in each:
        document["most_accurate"] = saved(reference)
    bar = route.objective.floor if route.objective.floor is not None else accuracy
    enough = [name for name, value in good.items() if bar is not None and (value or 0.0) >= bar]
    if enough:
        document["best_fixed"] = saved(min(enough, key=lambda name: each[name]))
    backends = [
        savings.FixedBackend(name, cost_usd * answered, declared[name])
        for name, cost_usd in each.items()
    ]
    better = savings.better_fixed(backends, usd, accuracy, interval)
    if better:
        document["better_fixed"] = saved(better[0].name) | {
            "text": savings.warning(route.name, *better)
        }
    return document


def _top(buckets: list[Bucket], query: DashboardQuery) -> list[dict[str, Any]]:
    usd = total(buckets, "tollway_cost_usd_total", query.keeps, "tenant")
    requests = total(buckets, "tollway_requests_total", query.keeps, "tenant")
    ranked = sorted(usd.items(), key=lambda item: -item[1])[:TOP]
    return [
        {"tenant": name, "usd": spent, "requests": requests.get(name, 0.0)}
        for name, spent in ranked
    ]


def _quantiles(
    buckets: list[Bucket], name: str, keeps: Callable[[Mapping[str, str]], bool]
) -> dict[str, float | None]:
    """Return the median and the 95th and 99th percentiles of a histogram, within its buckets."""
    counts = total(buckets, f"{name}_bucket", keeps, "le")
    bounds = sorted((float(le), count) for le, count in counts.items())
    return {f"p{q}": _quantile(bounds, q / 100) for q in (50, 95, 99)}


def _quantile(bounds: list[tuple[float, float]], q: float) -> float | None:
    if not bounds or not bounds[-1][1]:
        return None
    rank, before_s, before = q * bounds[-1][1], 0.0, 0.0
    for bound_s, count in bounds:
        if count >= rank:
            if math.isinf(bound_s):
                return before_s
            inside = count - before
            return before_s + (bound_s - before_s) * ((rank - before) / inside if inside else 1.0)
        before_s, before = bound_s, count
    return before_s


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share observed in `count` trials (Wilson 1927)."""
    scale = 1 + Z**2 / count
    middle = (share + Z**2 / (2 * count)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
