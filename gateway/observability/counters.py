"""Counters on the request path: plain integers in slotted tallies.

There is one tally per (route, backend, tenant). All three come from the configuration, so the
number of series is bounded. Money is counted in nano-dollars. `counter_families` names the counts
for Prometheus.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tollway.backends.types import Details
from tollway.gateway.observability.histogram import Buckets
from tollway.gateway.routing.metering import ESTIMATED, GIVEN_UP, REPORTED, USAGE
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.sinks import budget_effect
from tollway.policies.types import Choice

LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TOLD = (USAGE, REPORTED)  # the cost comes from usage or a price reported by the backend
TAGS_MAX = 1000  # key and value pairs whose spend is counted
TAGS_SHARE = 8
REASONS = ("best", "explore", "baseline", "floor_unmet")  # initialized to zero, for alerts
OVERHEAD_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1)


@dataclass(slots=True)
class Tally:
    """The counts of one (route, backend, tenant)."""

    attempts: int = 0
    errors: int = 0
    internal_errors: int = 0
    fallbacks: int = 0
    audits: int = 0
    audit_nano: int = 0
    cost_nano: Counter[str] = field(default_factory=Counter)
    quoted_nano: int = 0
    device_s: float = 0.0
    input_tokens: float = 0.0
    cached_input_tokens: float = 0.0
    output_tokens: float = 0.0
    units: dict[str, float] = field(default_factory=lambda: defaultdict(float))


@dataclass(slots=True)
class Mean:
    """A count and a sum."""

    count: int = 0
    sum: float = 0.0

    def add(self, value: float) -> None:
        """Add a value."""
        self.count += 1
        self.sum += value


@dataclass(slots=True)
class Offers:
    """The number of requests a backend was offered for, and the sums of its expected figures."""

    count: int = 0
    cost_usd: float = 0.0
    quality: float = 0.0


class Metrics:
    """Counts requests, attempts, feedback and reloads."""

    # The mutable state is the tallies and counts, which only `counter_families` reads.

    def __init__(self) -> None:
        self.tallies: dict[tuple[str, str, str], Tally] = defaultdict(Tally)
        self.outcomes: Counter[tuple[str, str, str]] = Counter()
        self.draws: Counter[tuple[str, str]] = Counter()
        self.choices_changed: Counter[tuple[str, str]] = Counter()
        self.feedback_results: Counter[tuple[str, str]] = Counter()
        self.answers: dict[tuple[str, ...], Mean] = {}
        self.rows_skipped = 0
        self.signals: dict[tuple[str, ...], Mean] = {}
        self.signals_failed: Counter[tuple[str, str]] = Counter()
        self.signals_dropped: Counter[str] = Counter()
        self.guarded: Counter[tuple[str, str, str]] = Counter()
        self.labels_set_aside: dict[tuple[str, str], float] = defaultdict(float)
        self.labels: dict[tuple[str, ...], Mean] = {}
        self.offers: dict[tuple[str, ...], Offers] = {}
        self.no_answers: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self._tags_of: Counter[str] = Counter()
        self.zero_usage: Counter[str] = Counter()
        self.unpriced_usage: Counter[tuple[str, str]] = Counter()
        self.reloads = {"ok": 0, "refused": 0}
        self.overhead: dict[tuple[str, ...], Buckets] = {}
        self.upstream: dict[tuple[str, ...], Buckets] = {}

    def declare(self, route: str, backends: Iterable[str], tenants: Iterable[str]) -> None:
        """Initialize the series of a route to zero, so that a first increase is visible.

        Existing series are kept.
        """
        self.overhead.setdefault((route,), Buckets(OVERHEAD_S))
        self.answers.setdefault((route,), Mean())
        for reason in REASONS:
            self.draws.setdefault((route, reason), 0)
        for by in budget_effect.CHANGES:
            self.choices_changed.setdefault((route, by), 0)
        for backend in backends:
            self.labels.setdefault((route, backend), Mean())
            self.zero_usage.setdefault(backend, 0)
            self.offers.setdefault((route, backend), Offers())
            self.upstream.setdefault((route, backend), Buckets(LATENCY_S))
            self.no_answers.setdefault(backend, 0)
            for tenant in tenants:
                zero = Tally(cost_nano=Counter({USAGE: 0, ESTIMATED: 0}))
                self.tallies.setdefault((route, backend, tenant), zero)

    def declare_signal(self, route: str, name: str) -> None:
        """Initialize the series of a signal to zero."""
        self.signals.setdefault((route, name), Mean())
        self.signals_failed.setdefault((route, name), 0)
        self.signals_dropped.setdefault(route, 0)

    def reloaded(self, well: bool) -> None:
        """Count a reload of the configuration."""
        self.reloads["ok" if well else "refused"] += 1

    def attempt(
        self, route: str, tenant: str, attempt: Attempt, exemplar: dict[str, str] | None = None
    ) -> None:
        """Count one attempt (1 us); `exemplar` links its latency to a trace."""
        tally, outcome = self.tallies[route, attempt.backend, tenant], attempt.outcome
        tally.attempts += 1
        if outcome.error and outcome.error not in GIVEN_UP:
            tally.errors += 1
        if outcome.bug:
            tally.internal_errors += 1
        if outcome.no_answer:
            self.no_answers[attempt.backend] += 1
        if attempt.fallback:
            tally.fallbacks += 1
        if attempt.audit:
            tally.audits += 1
            tally.audit_nano += outcome.cost_nano
        tally.cost_nano[outcome.provenance] += outcome.cost_nano
        if outcome.provenance in TOLD:
            tally.quoted_nano += attempt.quote.expected_nano
        if outcome.usage is not None:
            tally.device_s += outcome.usage.device_s
            tally.input_tokens += outcome.usage.input_tokens
            tally.cached_input_tokens += outcome.usage.cached_input_tokens
            tally.output_tokens += outcome.usage.output_tokens
            if outcome.usage.more is not None:
                self._count_details(tally, attempt.backend, outcome.usage.more)
        self.upstream[route, attempt.backend].observe(attempt.latency_s, exemplar)

    def _count_details(self, tally: Tally, backend: str, more: Details) -> None:
        """Count the rare cases: other units, guessed prices, zero usage."""
        for unit, count in more.units:
            tally.units[unit] += count
        for unit in more.guessed:
            self.unpriced_usage[backend, unit] += 1
        if more.is_zero:
            self.zero_usage[backend] += 1

    def answered(self, state: RequestState, now_s: float) -> None:
        """Count one request (1 us)."""
        inference = state.inference
        route = inference.route.name
        self.outcomes[route, inference.tenant, state.outcome] += 1
        for by in budget_effect.by(state) if state.refusals or inference.route.paced_by else ():
            self.choices_changed[route, by] += 1
        if state.draws:
            self._offered(route, state.draws[0].choice)
        for draw in state.draws:
            self.draws[route, draw.choice.reason] += 1
        upstream_s = state.upstream_s
        exemplar = None if inference.trace is None else inference.trace.exemplar
        self.overhead[route,].observe(now_s - inference.received_s - upstream_s, exemplar)

    def repeated(self, state: RequestState, now_s: float) -> None:
        """Count a request that repeats a draw of a kept answer, as `answered` does."""
        inference, choice = state.inference, state.draws[0].choice
        route = inference.route.name
        self.outcomes[route, inference.tenant, state.outcome] += 1
        self._offered(route, choice)
        self.draws[route, choice.reason] += 1
        self.overhead[route,].observe(now_s - inference.received_s, None)

    def _offered(self, route: str, choice: Choice) -> None:
        """Count what the request would have cost at each arm (0.2 us per arm)."""
        for arm, cost_usd, quality in zip(
            choice.arms, choice.cost_hat_usd, choice.quality_hat, strict=True
        ):
            offers = self.offers[route, arm]
            offers.count += 1
            offers.cost_usd += cost_usd
            offers.quality += quality

    def tagged(self, tenant: str, tags: Mapping[str, str], cost_nano: int) -> None:
        """Count spend by tag. Clients choose tags freely: those beyond TAGS_MAX count as others.

        A tenant may bring eight times as many as are free, so that some are left for the others.
        """
        for key, value in tags.items():
            tag = f"{key}={value}"
            if tag not in self.tags:
                if self._tags_of[tenant] < TAGS_SHARE * (TAGS_MAX - len(self.tags)):
                    self._tags_of[tenant] += 1
                else:
                    tag = "(other)"
            self.tags[tag] += cost_nano

    def label(self, route: str, backend: str, quality: float, *, answered: bool) -> None:
        """Count the quality of a reply; `answered`: it is the reply that the client received."""
        self.labels.setdefault((route, backend), Mean()).add(quality)
        if answered:
            self.answers.setdefault((route,), Mean()).add(quality)

    def refused(self, route: str, tenant: str, reason: str) -> None:
        """Count a request that was refused before it was routed (key, size, form)."""
        self.outcomes[route, tenant, reason] += 1

    def shed(self) -> None:
        """Count a request that was refused unread because too many were in flight."""
        self.refused("", "", "overloaded")

    def feedback(self, route: str, outcome: str) -> None:
        """Count one feedback."""
        self.feedback_results[route, outcome] += 1

    def set_aside(self, route: str, tenant: str, part: float) -> None:
        """Count the part of a tenant's label that was not learned from."""
        self.labels_set_aside[route, tenant] += part

    def signal(self, route: str, name: str, score: float) -> None:
        """Count a score of an answer that was learned from."""
        self.signals.setdefault((route, name), Mean()).add(score)

    def signal_failed(self, route: str, name: str) -> None:
        """Count an answer that a signal could not score."""
        self.signals_failed[route, name] += 1

    def signal_dropped(self, route: str) -> None:
        """Count an answer that was not scored, because too many waited or it is too large."""
        self.signals_dropped[route] += 1

    def guard(self, route: str, name: str, act: str) -> None:
        """Count what a guard did to a request."""
        self.guarded[route, name, act] += 1

    def tags_nano(self) -> dict[str, int]:
        """Return the cost of each `key=value` tag; not for Prometheus: clients choose the tags."""
        return dict(self.tags)
