"""Collectors: gauges that are read from their owners at scrape time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.http.load_balancer import LoadBalancer
from tollway.gateway.budgets.model import NANO, BudgetStatus
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.observability.counters import histogram
from tollway.gateway.observability.histogram import Buckets
from tollway.gateway.observability.log_writer import Background
from tollway.gateway.routing.backend import Backend
from tollway.gateway.routing.circuit_breaker import STATES
from tollway.gateway.routing.replies.drains import Drains
from tollway.gateway.routing.route import Route
from tollway.gateway.storage.journal import Journal

_BUDGET: tuple[tuple[str, str, Callable[[BudgetStatus], int]], ...] = (
    ("limit", "What a budget allows in its window", lambda s: s.limit_nano),
    ("spent", "What has been spent in the window", lambda s: s.spent_nano),
    ("held", "What is leased or reserved, and not spent", lambda s: s.held_nano),
    ("free", "What may still be leased", lambda s: s.free_nano),
    ("overdraft", "What is spent and held above the limit", lambda s: s.overdraft_nano),
    ("carried", "What earlier windows overspent and this one makes good", lambda s: s.carried_nano),
    ("unaccounted", "What dead gateways may have spent", lambda s: s.unaccounted_nano),
)


def budgets(wallet: Reservations) -> Iterator[Metric]:
    """Yield each budget's limit, spent and held amounts, over all gateways."""
    told = [([s.budget.name, s.budget.window], s) for s in wallet.status()]
    names = ["budget", "window"]
    for name, text, read in _BUDGET:
        rows = ((labels, read(s) / NANO) for labels, s in told)
        yield _gauge(f"tollway_budget_{name}_usd", text, names, rows)
    yield _gauge(
        "tollway_budget_used_ratio",
        "What is spent or carried, as a share of the limit",
        names,
        ((labels, s.used_nano / s.limit_nano) for labels, s in told if s.limit_nano),
    )
    yield _gauge(
        "tollway_budget_window_start_timestamp_seconds",
        "When the window began; 0: it is for ever",
        names,
        ((labels, s.window_start_s) for labels, s in told),
    )
    yield _gauge(
        "tollway_budget_window_end_timestamp_seconds",
        "When the window ends; none where it is for ever",
        names,
        ((labels, s.resets_at_s) for labels, s in told if s.resets_at_s is not None),
    )
    yield _gauge(
        "tollway_ledger_up",
        "Whether the ledger answers; 0: leases are spent, then calls refused or made unasked",
        [],
        [([], float(not wallet.down))],
    )
    yield _gauge(
        "tollway_ledger_calls",
        "Times this process has asked the ledger",
        [],
        [([], wallet.ledger_calls)],
    )


def held_money(wallet: Reservations, waited: Buckets) -> Iterator[Metric]:
    """Yield how many requests waited for reserved budget, and how long."""
    line = wallet.held.line
    waits = CounterMetricFamily(
        "tollway_budget_waits",
        "Waits for money that other calls hold, by how they ended",
        labels=["result"],
    )
    for end, count in line.ends.items():
        waits.add_metric([end], count)
    yield waits
    yield histogram(
        "tollway_budget_wait_seconds",
        "Time that requests waited for money that other calls hold",
        [],
        {(): waited},
    )
    yield _gauge(
        "tollway_budget_waiting", "Requests that wait for money now", [], [([], line.count)]
    )


def drains(drains: Drains) -> Iterator[Metric]:
    """Yield how many abandoned streams are drained, and how drains ended."""
    yield _gauge(
        "tollway_drained_streams",
        "Streams that are read on after their clients left",
        [],
        [([], float(drains.count))],
    )
    ends = CounterMetricFamily(
        "tollway_streams_drained",
        "Streams that were to be read on after their clients left, by how that ended",
        labels=["end"],
    )
    for end, count in drains.ends.items():
        ends.add_metric([end], count)
    yield ends


def journal(journal: Journal) -> Iterator[Metric]:
    """Yield how the journal keeps up."""
    for name, text, value in (
        ("rows", "Rows appended since the start", journal.rows_written),
        ("dropped_rows", "Rows lost because the disk refused them", journal.rows_dropped),
        ("waiting_bytes", "Bytes not yet taken by the operating system", journal.waiting_bytes),
    ):
        yield _gauge(f"tollway_journal_{name}", text, [], [([], value)])


def to_come(requests: Mapping[str, float]) -> Iterator[Metric]:
    """Yield the forecasts that budget pacing is based on."""
    yield _gauge(
        "tollway_budget_requests_to_come",
        "Requests that a budget which paces is taken to have to pay for until its window ends",
        ["budget"],
        (([budget], count) for budget, count in requests.items()),
    )


def log_lines(lines: Background) -> Iterator[Metric]:
    """Yield the number of dropped log lines."""
    yield CounterMetricFamily(
        "tollway_log_lines_dropped",
        "Lines of the log that were dropped because nobody read them as fast as they came",
        value=lines.dropped,
    )


def saved(times_s: Mapping[str, float]) -> Iterator[Metric]:
    """Yield the time at which the routes' learned state was last saved."""
    yield _gauge(
        "tollway_snapshot_timestamp_seconds",
        "When what a route has learned was last saved",
        ["route"],
        (([name], time_s) for name, time_s in times_s.items()),
    )


def routes(routes: Mapping[str, Route]) -> Iterator[Metric]:
    """Yield the state of each route's policy and estimator."""
    yield _gauge(
        "tollway_backend_up",
        "Whether a backend is in service: its circuit breaker is closed and its key accepted",
        ["route", "backend"],
        (
            ([route.name, name], float(backend.up))
            for route in routes.values()
            for name, backend in route.backends.items()
        ),
    )
    yield _gauge(
        "tollway_policy_version",
        "How many labels a route's policy has learned from",
        ["route"],
        (([route.name], route.policy.version) for route in routes.values()),
    )
    figures = [(route.name, route.policy.figures()) for route in routes.values()]
    for name, text in _FIGURES.items():
        yield _gauge(
            f"tollway_{name}",
            text,
            ["route"],
            (([route], told[name]) for route, told in figures if name in told),
        )
    yield _gauge(
        "tollway_input_psi",
        "How far a feature is from what it was at the start: above 0.25 it has drifted",
        ["route", "feature"],
        (
            ([route.name, str(n)], psi)
            for route in routes.values()
            for n, psi in enumerate(route.inputs.psi)
        ),
    )
    yield from _retries(routes)
    yield from _accuracy(routes)


def _retries(routes: Mapping[str, Route]) -> Iterator[Metric]:
    retries = CounterMetricFamily(
        "tollway_retries",
        "Calls to other backends after failures, those denied, and replies of last resort",
        labels=["route", "result"],
    )
    for route in routes.values():
        fallbacks = route.fallbacks.retries
        retries.add_metric([route.name, "made"], fallbacks.made)
        retries.add_metric([route.name, "denied"], fallbacks.denied)
        retries.add_metric([route.name, "last_resort"], fallbacks.static_responses)
    yield retries
    hedges = CounterMetricFamily(
        "tollway_hedges",
        "Second calls of slow requests, those among them that answered first, and those denied",
        labels=["route", "result"],
    )
    for route in routes.values():
        if route.hedge is not None:
            hedge = route.hedge.waits
            hedges.add_metric([route.name, "made"], hedge.made)
            hedges.add_metric([route.name, "won"], hedge.won)
            hedges.add_metric([route.name, "denied"], hedge.denied)
    yield hedges


def backends(backends: Mapping[str, Backend], now_s: float) -> Iterator[Metric]:
    """Yield the health and the load of each backend, as seen by this gateway."""
    yield _gauge(
        "tollway_backend_breaker",
        "1 for the state that a backend's circuit breaker is in",
        ["backend", "state"],
        (
            ([name, state], float(state == backend.breaker.state(now_s)))
            for name, backend in backends.items()
            for state in STATES
        ),
    )
    yield _gauge(
        "tollway_backend_address_up",
        "Whether an address of a backend that has several gets calls",
        ["backend", "address"],
        (
            ([name, end.host.decode()], float(end.serves(now_s)))
            for name, backend in backends.items()
            if isinstance(backend.transport, LoadBalancer)
            for end in backend.transport.endpoints
        ),
    )
    told = [([name], backend.slots) for name, backend in backends.items() if backend.slots]
    for name, text, read in _SLOTS:
        yield _gauge(
            f"tollway_backend_{name}", text, ["backend"], ((at, read(slots)) for at, slots in told)
        )
    shed = CounterMetricFamily(
        "tollway_backend_shed", "Calls refused because they would have waited", labels=["backend"]
    )
    for at, slots in told:
        shed.add_metric(at, slots.refused)
    yield shed


_SLOTS: tuple[tuple[str, str, Callable[[ConcurrencyQueue], int]], ...] = (
    ("calls", "Calls under way", lambda slots: slots.busy),
    (
        "concurrency_limit",
        "Calls that may be made at once, as found from latencies",
        lambda s: s.limit,
    ),
    ("calls_waiting", "Calls that wait for their turn", lambda slots: slots.waiting),
)


class Anomaly(Protocol):
    """A spend anomaly, as shown by a gauge."""

    @property
    def kind(self) -> str:
        """The kind of the subject: a tenant, a route, ..."""

    @property
    def name(self) -> str:
        """The name of the subject."""

    @property
    def ratio(self) -> float:
        """The spend, as a multiple of the expected spend."""

    @property
    def cause(self) -> str:
        """The most likely cause."""


class Anomalies(Protocol):
    """A detector of spend anomalies."""

    @property
    def active(self) -> Sequence[Anomaly]:
        """The active anomalies."""

    def usual(self, now_s: float) -> Mapping[tuple[str, str], float]:
        """Return the expected dollars per hour by (kind, name)."""


def anomalies(anomalies: Anomalies, now_s: float) -> Iterator[Metric]:
    """Yield the active spend anomalies and the current baseline."""
    yield _gauge(
        "tollway_spend_anomaly",
        "Spend over the usual, for anomalies under way: how many times",
        ["kind", "name", "cause"],
        (([a.kind, a.name, a.cause], a.ratio) for a in anomalies.active),
    )
    yield _gauge(
        "tollway_spend_usual_usd_per_hour",
        "What is usually spent at this time, where enough is known",
        ["kind", "name"],
        ((list(about), usd) for about, usd in anomalies.usual(now_s).items()),
    )


_FIGURES = {
    "shadow_price": "How much quality one dollar must buy: the multiplier of budgets and floors",
    "explored_usd": "What exploration was expected to cost beyond the best arm, in all",
    "accuracy_floor": "The accuracy that a route holds",
    "accuracy_estimate": "The accuracy that recent labels say",
    "floor_guarded": "Whether the baseline has a share of the requests, for the floor's sake",
    "floor_share": "The share of requests that is the learned policy's",
    "floor_lower_bound": "What the learned policy's own accuracy is at least, with confidence",
    "guard_active": "Whether the learned policy acts, and not the fixed arm that guards it",
    "guard_gain": "What the learned policy is worth more than the fixed arm, in quality",
    "guard_gain_lower_bound": "What it is worth more at least, with confidence",
    "allowance_usd": "What the budgets allow per request",
}
"""Figures of policies; each policy reports those that it has."""


def _accuracy(routes: Mapping[str, Route]) -> Iterator[Metric]:
    told = [
        ([route.name, backend], accuracy)
        for route in routes.values()
        for backend, accuracy in route.estimator.accuracy().items()
    ]
    yield _gauge(
        "tollway_estimate_ceiling_coverage_ratio",
        "Share of calls that cost at most the ceiling quoted for them",
        ["route", "backend"],
        ((labels, accuracy.coverage) for labels, accuracy in told),
    )
    yield _gauge(
        "tollway_estimate_error_ratio",
        "Mean relative error of the cost expected of a call",
        ["route", "backend"],
        ((labels, accuracy.relative_error) for labels, accuracy in told),
    )


def _gauge(
    name: str, text: str, labels: list[str], rows: Iterable[tuple[list[str], float]]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family
