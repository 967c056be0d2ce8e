"""Collectors: gauges that are read from their owners at scrape time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, cast

from tollway.backends.batching.batcher import Batcher, unwrapped
from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.concurrency.start_gate import StartState
from tollway.backends.http.load_balancer import LoadBalancer
from tollway.backends.money import to_usd
from tollway.gateway.budgets.model import BudgetStatus
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.observability.families import Metric, counter, gauge, histogram
from tollway.gateway.observability.histogram import Buckets
from tollway.gateway.observability.log_writer import Background
from tollway.gateway.routing.circuit_breaker import STATES
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.replies.drains import Drains
from tollway.gateway.storage.captures import Captures
from tollway.gateway.storage.disk_space import DiskSpace
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.retention import JournalRetention

_BUDGET: tuple[tuple[str, str, Callable[[BudgetStatus], int]], ...] = (
    ("limit", "Limit in the current window", lambda s: s.limit_nano),
    ("spent", "Amount spent in the current window", lambda s: s.spent_nano),
    ("held", "Amount leased or reserved, but not spent", lambda s: s.held_nano),
    ("free", "Amount that can still be leased", lambda s: s.free_nano),
    ("overdraft", "Amount spent and held above the limit", lambda s: s.overdraft_nano),
    (
        "carried",
        "Overspend of earlier windows that is deducted from this one",
        lambda s: s.carried_nano,
    ),
    ("unaccounted", "Amount that dead gateways may have spent", lambda s: s.unaccounted_nano),
)


def signals(routes: Mapping[str, RoutePlan]) -> Iterator[Metric]:
    """Yield how far each signal is trusted, and how far it agrees with true labels."""
    trusts, agreements = [], []
    for name, route in list(routes.items()):
        for signal, prior in route.signals.items():
            trusts.append(((name, signal), route.trust.trust(signal, prior, route.anchor_quality)))
            agreement = route.trust.agreement(signal)
            if agreement is not None:
                agreements.append(((name, signal), agreement))
    labels = ["route", "signal"]
    yield gauge(
        "tollway_signal_trust_ratio",
        "Mean score of right answers less that of wrong ones: 0 says nothing, 1 is a true label",
        labels,
        trusts,
    )
    yield gauge(
        "tollway_signal_agreement_ratio",
        "Recent agreement of a signal with true labels",
        labels,
        agreements,
    )


def build_info(version: str) -> Iterator[Metric]:
    """Yield the version of this gateway."""
    yield gauge(
        "tollway_build_info",
        "Version of this gateway; the value is always 1",
        ["version"],
        [((version,), 1)],
    )


def budgets(reservations: Reservations) -> Iterator[Metric]:
    """Yield each budget's limit, spent and held amounts, over all gateways."""
    statuses = [([s.budget.name, s.budget.window], s) for s in reservations.status()]
    names = ["budget", "window"]
    for name, text, read in _BUDGET:
        rows = ((labels, to_usd(read(s))) for labels, s in statuses)
        yield gauge(f"tollway_budget_{name}_usd", text, names, rows)
    yield gauge(
        "tollway_budget_used_ratio",
        "Amount spent or carried over, as a share of the limit",
        names,
        ((labels, s.used_nano / s.limit_nano) for labels, s in statuses if s.limit_nano),
    )
    yield gauge(
        "tollway_budget_window_start_timestamp_seconds",
        "Start of the window, in Unix time; 0 for lifetime budgets",
        names,
        ((labels, s.window_start_s) for labels, s in statuses),
    )
    yield gauge(
        "tollway_budget_window_end_timestamp_seconds",
        "End of the window, in Unix time; absent for lifetime budgets",
        names,
        ((labels, s.resets_at_s) for labels, s in statuses if s.resets_at_s is not None),
    )
    yield gauge(
        "tollway_ledger_up",
        "Whether the ledger is reachable; if not, on_ledger_failure applies once leases are spent",
        [],
        [([], float(not reservations.down))],
    )
    yield counter(
        "tollway_ledger_requests",
        "Requests sent to the ledger",
        [],
        [([], reservations.ledger_requests)],
    )


def held_money(reservations: Reservations, waited: Buckets) -> Iterator[Metric]:
    """Yield how many requests waited for reserved budget, and how long."""
    line = reservations.held.line
    yield counter(
        "tollway_budget_waits",
        "Waits for budget reserved by other calls, by result",
        ["result"],
        (([end], count) for end, count in line.ends.items()),
    )
    yield histogram(
        "tollway_budget_wait_seconds",
        "Time that requests waited for budget reserved by other calls",
        [],
        {(): waited},
    )
    yield gauge(
        "tollway_budget_waiting",
        "Requests waiting for budget reserved by other calls",
        [],
        [([], line.count)],
    )


def captured(captures: Captures) -> Iterator[Metric]:
    """Yield how many prompts and replies were captured."""
    yield counter(
        "tollway_captures",
        "Prompts and replies to be captured, by result",
        ["result"],
        [(["written"], captures.written), (["dropped"], captures.dropped)],
    )


def drains(drains: Drains) -> Iterator[Metric]:
    """Yield how many abandoned streams are drained, and how drains ended."""
    yield gauge(
        "tollway_drained_streams",
        "Abandoned streams that are being drained",
        [],
        [([], float(drains.count))],
    )
    yield counter(
        "tollway_streams_drained",
        "Abandoned streams that were to be drained, by how the drain ended",
        ["end"],
        (([end], count) for end, count in drains.ends.items()),
    )


def journal(journal: Journal) -> Iterator[Metric]:
    """Yield how the journal keeps up."""
    for name, text, value in (
        ("rows", "Rows appended since the start", journal.rows_written),
        ("dropped_rows", "Rows lost because the disk refused writes", journal.rows_dropped),
        ("waiting_bytes", "Bytes waiting to be written", journal.waiting_bytes),
    ):
        yield gauge(f"tollway_journal_{name}", text, [], [([], value)])


def removed(retention: JournalRetention) -> Iterator[Metric]:
    """Yield how much of the journal was removed."""
    yield counter(
        "tollway_journal_segments_removed",
        "Segments of the journal removed by keep_days or keep_gb",
        [],
        [([], retention.removed)],
    )


def disks(space: DiskSpace) -> Iterator[Metric]:
    """Yield the free space where the gateway writes."""
    yield gauge(
        "tollway_disk_free_bytes",
        "Free bytes of the disk that holds a folder of the gateway",
        ["folder"],
        (([name], float(disk.free_bytes)) for name, disk in space.disks.items()),
    )
    yield gauge(
        "tollway_disk_low",
        "Whether little of a folder's disk is free, or the journal would fill it within a day",
        ["folder"],
        (([name], float(space.is_low(name))) for name in space.disks),
    )


def to_come(requests: Mapping[str, float]) -> Iterator[Metric]:
    """Yield the forecasts that budget pacing is based on."""
    yield gauge(
        "tollway_budget_requests_to_come",
        "Forecast number of requests until the end of the window, used to pace the budget",
        ["budget"],
        (([budget], count) for budget, count in requests.items()),
    )


def log_lines(lines: Background) -> Iterator[Metric]:
    """Yield the number of dropped log lines."""
    yield counter(
        "tollway_log_lines_dropped",
        "Log lines dropped because their reader was too slow",
        [],
        [([], lines.dropped)],
    )


def saved(times_s: Mapping[str, float]) -> Iterator[Metric]:
    """Yield the time at which the routes' learned state was last saved."""
    yield gauge(
        "tollway_snapshot_timestamp_seconds",
        "Time of the last save of a route's learned state, in Unix time",
        ["route"],
        (([name], time_s) for name, time_s in times_s.items()),
    )


def routes(routes: Mapping[str, RoutePlan]) -> Iterator[Metric]:
    """Yield the state of each route's policy and estimator."""
    yield gauge(
        "tollway_backend_up",
        "Whether a backend is in service: its circuit breaker is closed and its key is accepted",
        ["route", "backend"],
        (
            ([route.name, name], float(backend.up))
            for route in routes.values()
            for name, backend in route.backends.items()
        ),
    )
    yield gauge(
        "tollway_policy_version",
        "Number of labels that a route's policy has learned from",
        ["route"],
        (([route.name], route.policy.version) for route in routes.values()),
    )
    figures = [(route.name, route.policy.figures()) for route in routes.values()]
    for name, text in _FIGURES.items():
        yield gauge(
            f"tollway_{name}",
            text,
            ["route"],
            (([route], values[name]) for route, values in figures if name in values),
        )
    yield counter(
        "tollway_exploration_cost_usd",
        "Expected cost of exploration beyond that of the best arm",
        ["route"],
        (
            ([route], values["explored_usd"])
            for route, values in figures
            if "explored_usd" in values
        ),
    )
    yield gauge(
        "tollway_input_psi",
        "Population stability index of an input feature since the start; above 0.25 it has drifted",
        ["route", "feature"],
        (
            ([route.name, str(n)], psi)
            for route in routes.values()
            for n, psi in enumerate(route.inputs.psi)
        ),
    )
    yield from _retries(routes)
    yield from _accuracy(routes)


def _retries(routes: Mapping[str, RoutePlan]) -> Iterator[Metric]:
    retries: list[tuple[list[str], int]] = []
    hedges: list[tuple[list[str], int]] = []
    for route in routes.values():
        fallbacks = route.state.retries
        retries.append(([route.name, "made"], fallbacks.made))
        retries.append(([route.name, "denied"], fallbacks.denied))
        retries.append(([route.name, "static_response"], fallbacks.static_responses))
        if route.hedge is not None:
            hedge = route.hedge.waits
            hedges.append(([route.name, "made"], hedge.made))
            hedges.append(([route.name, "won"], hedge.won))
            hedges.append(([route.name, "denied"], hedge.denied))
    yield counter(
        "tollway_retries",
        "Calls to other backends after failures, those denied, and static responses",
        ["route", "result"],
        retries,
    )
    yield counter(
        "tollway_hedges",
        "Hedged calls for slow requests: made, won (they answered first), and denied",
        ["route", "result"],
        hedges,
    )


def backends(backends: Mapping[str, Target], now_s: float) -> Iterator[Metric]:
    """Yield the health and the load of each backend, as seen by this gateway."""
    yield gauge(
        "tollway_backend_breaker",
        "State of a backend's circuit breaker: 1 for the current state, 0 for the others",
        ["backend", "state"],
        (
            ([name, state], float(state == backend.breaker.state(now_s)))
            for name, backend in backends.items()
            for state in STATES
        ),
    )
    yield gauge(
        "tollway_backend_address_up",
        "Whether an address of a backend with several addresses receives calls",
        ["backend", "address"],
        (
            ([name, end.host.decode()], float(end.serves(now_s)))
            for name, backend in backends.items()
            if isinstance(transport := unwrapped(backend.transport), LoadBalancer)
            for end in transport.endpoints
        ),
    )
    queues = [([name], backend.slots) for name, backend in backends.items() if backend.slots]
    for name, text, read in _SLOTS:
        yield gauge(
            f"tollway_backend_{name}",
            text,
            ["backend"],
            ((at, read(slots)) for at, slots in queues),
        )
    yield counter(
        "tollway_backend_rate_limit_avoided",
        "Requests not offered to a backend because it announced that its rate limit is used up",
        ["backend"],
        (([name], one.announced.avoided) for name, one in backends.items() if one.announced),
    )
    starts = [([name], backend.start) for name, backend in backends.items() if backend.start]
    if starts:
        yield from _starts(starts)
    yield counter(
        "tollway_backend_shed",
        "Calls refused because they would have waited too long for a slot",
        ["backend"],
        ((at, slots.refused) for at, slots in queues),
    )


def _starts(starts: Sequence[tuple[list[str], StartState]]) -> Iterator[Metric]:
    yield gauge(
        "tollway_backend_start_waiting",
        "Calls waiting for the first replica",
        ["backend"],
        ((at, one.waiting) for at, one in starts),
    )
    yield counter(
        "tollway_backend_start_wait_seconds",
        "Time for which calls have waited for the first replica",
        ["backend"],
        ((at, one.waited_s) for at, one in starts),
    )
    yield gauge(
        "tollway_backend_surcharge_usd",
        "By how much more a call is offered to policies, for replicas that it would add",
        ["backend"],
        ((at, one.surcharge_usd) for at, one in starts),
    )


class ModelStates(Protocol):
    """What is known of registered models."""

    @property
    def served(self) -> Mapping[tuple[str, str], str]:
        """The version by model and alias."""

    @property
    def faults(self) -> Mapping[str, str]:
        """Why a model cannot be followed, by model."""

    @property
    def moves(self) -> Mapping[tuple[str, str], int]:
        """How many moves were made, by model and kind."""


def models(keeper: ModelStates) -> Iterator[Metric]:
    """Yield which versions serve, whether the registry is followed, and the moves made."""
    yield gauge(
        "tollway_model_version_info",
        "Version that has an alias of a model; the value is always 1",
        ["model", "alias", "version"],
        (((*key, version), 1.0) for key, version in keeper.served.items()),
    )
    names = {name for name, _ in keeper.served} | keeper.faults.keys()
    yield gauge(
        "tollway_model_followed",
        "Whether the last look at the registry, and the move that it asked for, succeeded",
        ["model"],
        (([name], float(name not in keeper.faults)) for name in sorted(names)),
    )
    yield counter(
        "tollway_model_moves",
        "Moves of versions of a model, by kind",
        ["model", "move"],
        keeper.moves.items(),
    )


def batches(backends: Mapping[str, Target]) -> Iterator[Metric]:
    """Yield what the calls to each backend were joined into."""
    joined = {
        name: backend.transport
        for name, backend in backends.items()
        if isinstance(backend.transport, Batcher)
    }
    if not joined:
        return
    yield histogram(
        "tollway_batch_rows",
        "Rows of the batches sent to a backend, including calls for which no other one came",
        ["backend"],
        {(name,): cast("Buckets", one.stats.rows) for name, one in joined.items()},
    )
    yield histogram(
        "tollway_batch_wait_seconds",
        "Time that calls waited to be sent in a batch",
        ["backend"],
        {(name,): cast("Buckets", one.stats.waits) for name, one in joined.items()},
    )
    yield counter(
        "tollway_batch_calls",
        "Calls to a backend with batches, by what became of them",
        ["backend", "result"],
        (([name, end], n) for name, one in joined.items() for end, n in one.stats.ends.items()),
    )
    yield gauge(
        "tollway_batch_rows_limit",
        "Current maximum of rows in a batch, derived from latencies",
        ["backend"],
        (([name], one.size.rows) for name, one in joined.items()),
    )


_SLOTS: tuple[tuple[str, str, Callable[[ConcurrencyQueue], int]], ...] = (
    ("calls", "Calls in progress", lambda slots: slots.busy),
    (
        "concurrency_limit",
        "Current limit on concurrent calls, derived from latencies",
        lambda s: s.limit,
    ),
    ("calls_waiting", "Calls waiting for a concurrency slot", lambda slots: slots.waiting),
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
    yield gauge(
        "tollway_spend_anomaly",
        "Spend of an active anomaly, as a multiple of the baseline",
        ["kind", "name", "cause"],
        (([a.kind, a.name, a.cause], a.ratio) for a in anomalies.active),
    )
    yield gauge(
        "tollway_spend_usual_usd_per_hour",
        "Baseline spend at this time, in dollars per hour, once enough data exists",
        ["kind", "name"],
        ((list(about), usd) for about, usd in anomalies.usual(now_s).items()),
    )


_FIGURES = {
    "shadow_price": "Shadow price: the quality that one more dollar would buy",
    "accuracy_floor": "Accuracy that a route must hold",
    "accuracy_estimate": "Accuracy according to recent labels",
    "floor_guarded": "Whether the baseline receives a share of the requests to hold the floor",
    "floor_share": "Share of the requests that the learned policy routes",
    "floor_lower_bound": "Lower confidence bound of the learned policy's own accuracy",
    "guard_active": "Whether the learned policy acts, instead of the fixed arm that guards it",
    "guard_gain": "Estimated advantage of the learned policy over the fixed arm, in quality",
    "guard_gain_lower_bound": "Lower confidence bound of tollway_guard_gain",
    "embedding_share": "Share of the choices that the embedding makes, where it changes them",
    "embedding_gain": "Estimated gain of routing with the embedding, in quality less its price",
    "embedding_gain_lower_bound": "Lower confidence bound of tollway_embedding_gain",
    "allowance_usd": "Amount in dollars that the budgets allow per request",
}
"""Figures of policies; each policy reports those that it has."""


def _accuracy(routes: Mapping[str, RoutePlan]) -> Iterator[Metric]:
    accuracies = [
        ([route.name, backend], accuracy)
        for route in routes.values()
        for backend, accuracy in route.estimator.accuracy().items()
    ]
    yield gauge(
        "tollway_estimate_ceiling_coverage_ratio",
        "Share of calls that cost no more than their quoted ceiling",
        ["route", "backend"],
        ((labels, accuracy.coverage) for labels, accuracy in accuracies),
    )
    yield gauge(
        "tollway_estimate_error_ratio",
        "Mean relative error of the expected cost of a call",
        ["route", "backend"],
        ((labels, accuracy.relative_error) for labels, accuracy in accuracies),
    )
