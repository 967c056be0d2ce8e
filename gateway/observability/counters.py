"""The Prometheus metrics.

Counts on the request path are plain integers in slotted tallies, one per (route, backend, tenant).
All three come from the configuration, so the number of series is bounded. Money is counted in
nano-dollars and divided once, at scrape time, so that the sum equals the ledger's to the last
digit. Gauges of budgets, policies and the journal are read from their owners at scrape time.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics

from tollway.backends.types import Details
from tollway.backends.units import MORE
from tollway.gateway.budgets.model import NANO
from tollway.gateway.observability.aggregation import Family
from tollway.gateway.observability.histogram import Buckets
from tollway.gateway.routing import budget_effect
from tollway.gateway.routing.metering import ESTIMATED, GIVEN_UP, REPORTED, USAGE
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.policies.types import Choice

TEXT = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TOLD = (USAGE, REPORTED)  # the cost comes from usage or a price reported by the backend
TAGS_MAX = 1000  # key and value pairs whose spend is counted
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
    cost_nano: dict[str, int] = field(default_factory=dict)
    quoted_nano: int = 0
    device_s: float = 0.0
    input_tokens: float = 0.0
    cached_input_tokens: float = 0.0
    output_tokens: float = 0.0
    units: dict[str, float] = field(default_factory=dict)


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


Read = Callable[[Any], float]


class Source(Protocol):
    """A collector of metrics that are read at scrape time."""

    def __call__(self) -> Iterable[Metric]:
        """Yield metric families."""


class Metrics:
    """Counts on the request path, and renders at scrape time."""

    # The mutable state of the metrics is their tallies and counts.

    def __init__(self, version: str, *, linked: bool = False) -> None:
        """`linked`: figures have exemplars, which link to traces."""
        self._linked = linked
        self._tallies: dict[tuple[str, str, str], Tally] = {}
        self._outcomes: dict[tuple[str, str, str], int] = {}
        self._draws: dict[tuple[str, str], int] = {}
        self._changed: dict[tuple[str, str], int] = {}
        self._feedback: dict[tuple[str, str], int] = {}
        self._answers: dict[tuple[str], Mean] = {}
        self.rows_skipped = 0
        self._set_aside: dict[tuple[str, str], float] = {}
        self._labels: dict[tuple[str, str], Mean] = {}
        self._offers: dict[tuple[str, str], Offers] = {}
        self._no_answer: dict[str, int] = {}
        self._tags: dict[str, int] = {}
        self._zero: dict[str, int] = {}
        self._guessed: dict[tuple[str, str], int] = {}
        self._reloads = {"ok": 0, "refused": 0}
        self._sources: list[Source] = []
        self._version = version
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(self._collect))
        self._overhead: dict[tuple[str, ...], Buckets] = {}
        self._upstream: dict[tuple[str, ...], Buckets] = {}

    def declare(self, route: str, backends: Iterable[str], tenants: Iterable[str]) -> None:
        """Initialize the series of a route to zero, so that a first increase is visible.

        Existing series are kept.
        """
        self._overhead.setdefault((route,), Buckets(OVERHEAD_S))
        self._answers.setdefault((route,), Mean())
        self._draws = {(route, reason): 0 for reason in REASONS} | self._draws
        self._changed = {(route, by): 0 for by in budget_effect.CHANGES} | self._changed
        for backend in backends:
            self._labels.setdefault((route, backend), Mean())
            self._zero.setdefault(backend, 0)
            self._offers.setdefault((route, backend), Offers())
            self._upstream.setdefault((route, backend), Buckets(LATENCY_S))
            self._no_answer.setdefault(backend, 0)
            for tenant in tenants:
                zero = Tally(cost_nano={USAGE: 0, ESTIMATED: 0})
                self._tallies.setdefault((route, backend, tenant), zero)

    def reloaded(self, well: bool) -> None:
        """Count a reload of the configuration."""
        self._reloads["ok" if well else "refused"] += 1

    def add_source(self, source: Source) -> None:
        """Register a collector to call at every scrape."""
        self._sources.append(source)

    def attempt(
        self, route: str, tenant: str, attempt: Attempt, exemplar: dict[str, str] | None = None
    ) -> None:
        """Count one attempt (1 us); `exemplar` links its latency to a trace."""
        tally = self._tallies.get((route, attempt.backend, tenant))
        if tally is None:
            tally = self._tallies[route, attempt.backend, tenant] = Tally()
        outcome = attempt.outcome
        tally.attempts += 1
        if outcome.error and outcome.error not in GIVEN_UP:
            tally.errors += 1
        if outcome.bug:
            tally.internal_errors += 1
        if outcome.no_answer:
            backend = attempt.backend
            self._no_answer[backend] = self._no_answer.get(backend, 0) + 1
        if attempt.fallback:
            tally.fallbacks += 1
        if attempt.audit:
            tally.audits += 1
            tally.audit_nano += outcome.cost_nano
        spent = tally.cost_nano
        spent[outcome.provenance] = spent.get(outcome.provenance, 0) + outcome.cost_nano
        if outcome.provenance in TOLD:
            tally.quoted_nano += attempt.quote.expected_nano
        if outcome.usage is not None:
            tally.device_s += outcome.usage.device_s
            tally.input_tokens += outcome.usage.input_tokens
            tally.cached_input_tokens += outcome.usage.cached_input_tokens
            tally.output_tokens += outcome.usage.output_tokens
            if outcome.usage.more is not None:
                self._count_details(tally, attempt.backend, outcome.usage.more)
        self._upstream[route, attempt.backend].observe(attempt.latency_s, exemplar)

    def _count_details(self, tally: Tally, backend: str, more: Details) -> None:
        """Count what few calls have: other units, guessed prices, no usage."""
        for unit, count in more.units:
            tally.units[unit] = tally.units.get(unit, 0.0) + count
        for unit in more.guessed:
            key = (backend, unit)
            self._guessed[key] = self._guessed.get(key, 0) + 1
        if more.is_zero:
            self._zero[backend] = self._zero.get(backend, 0) + 1

    def request(self, state: RequestState, now_s: float) -> None:
        """Count one request (1 us)."""
        inference = state.inference
        route = inference.route.name
        outcome = state.outcome
        key = (route, inference.tenant, outcome)
        self._outcomes[key] = self._outcomes.get(key, 0) + 1
        for by in (
            budget_effect.by(state) if state.refusals or state.inference.route.paced_by else ()
        ):
            self._changed[route, by] = self._changed.get((route, by), 0) + 1
        if state.draws:
            self._offered(route, state.draws[0].choice)
        for draw in state.draws:
            drawn = (route, draw.choice.reason)
            self._draws[drawn] = self._draws.get(drawn, 0) + 1
        upstream_s = state.upstream_s
        exemplar = None if inference.trace is None else inference.trace.exemplar
        self._overhead[route,].observe(now_s - inference.received_s - upstream_s, exemplar)

    def _offered(self, route: str, choice: Choice) -> None:
        """Count what the request would have cost at each arm (0.2 us per arm)."""
        for arm, cost_usd, quality in zip(
            choice.arms, choice.cost_hat_usd, choice.quality_hat, strict=True
        ):
            offers = self._offers[route, arm]
            offers.count += 1
            offers.cost_usd += cost_usd
            offers.quality += quality

    def tagged(self, tags: Mapping[str, str], cost_nano: int) -> None:
        """Count spend by tag. Clients choose tags freely: those beyond TAGS_MAX count as others."""
        for key, value in tags.items():
            tag = f"{key}={value}"
            if tag not in self._tags and len(self._tags) >= TAGS_MAX:
                tag = "(other)"
            self._tags[tag] = self._tags.get(tag, 0) + cost_nano

    def label(self, route: str, backend: str, quality: float, *, answered: bool) -> None:
        """Count the quality of a reply; `answered`: it is the reply that the client received."""
        self._labels.setdefault((route, backend), Mean()).add(quality)
        if answered:
            self._answers.setdefault((route,), Mean()).add(quality)

    def refused(self, route: str, tenant: str, reason: str) -> None:
        """Count a request that was refused before it was routed (key, size, form)."""
        key = (route, tenant, reason)
        self._outcomes[key] = self._outcomes.get(key, 0) + 1

    def shed(self) -> None:
        """Count a request that was refused unread because too many were in flight."""
        self.refused("", "", "overloaded")

    def feedback(self, route: str, outcome: str) -> None:
        """Count one feedback."""
        key = (route, outcome)
        self._feedback[key] = self._feedback.get(key, 0) + 1

    def set_aside(self, route: str, tenant: str, part: float) -> None:
        """Count the part of a tenant's label that was discounted."""
        key = (route, tenant)
        self._set_aside[key] = self._set_aside.get(key, 0.0) + part

    def spend_nano(self) -> dict[tuple[str, str, str], int]:
        """Return the cost of each (route, backend, tenant) since the start."""
        return {key: sum(tally.cost_nano.values()) for key, tally in self._tallies.items()}

    def families(self) -> list[Family]:
        """Return all metrics as plain documents, which can be added to other workers'."""
        return [
            {
                "name": metric.name,
                "type": metric.type,
                "text": metric.documentation,
                "samples": [
                    [name, labels, value]
                    for name, labels, value, *_ in metric.samples
                    if not name.endswith("_created")
                ],
            }
            for metric in self._registry.collect()
        ]

    def render(self, families: Iterable[Family] | None = None) -> bytes:
        """Return the exposition in Prometheus' text format; of `families` if given."""
        if families is None:
            return generate_latest(self._registry)
        return generate_latest(_Collector(lambda: map(_metric, families)))

    def exposition(
        self, families: Iterable[Family] | None = None, accept: str = ""
    ) -> tuple[bytes, str]:
        """Return the exposition and its type: OpenMetrics, which alone has exemplars, to those who
        accept it where there are any. Sums over workers have none.
        """
        if self._linked and families is None and "application/openmetrics-text" in accept:
            body: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return body, openmetrics.CONTENT_TYPE_LATEST
        return self.render(families), TEXT

    def _collect(self) -> Iterator[Metric]:
        yield from self._counters()
        yield histogram(
            "tollway_gateway_duration_seconds",
            "Time a request spent in the gateway itself, its backends' time taken off",
            ["route"],
            self._overhead,
        )
        yield histogram(
            "tollway_upstream_duration_seconds",
            "Time an attempt took at a backend",
            ["route", "backend"],
            self._upstream,
        )
        for source in self._sources:
            yield from source()
        reloads = CounterMetricFamily(
            "tollway_config_reloads", "Reloads of the configuration", labels=["result"]
        )
        for result, count in self._reloads.items():
            reloads.add_metric([result], count)
        yield reloads
        info = GaugeMetricFamily("tollway_build_info", "Which Tollway this is", labels=["version"])
        info.add_metric([self._version], 1)
        yield info

    def _means(self) -> Iterator[tuple[str, str, list[str], Mapping[Any, object], Read]]:
        count, total = attrgetter("count"), attrgetter("sum")
        route, backend = ["route"], ["route", "backend"]
        answers, labels, offers = self._answers, self._labels, self._offers
        yield "answers", "Answered requests whose quality was told", route, answers, count
        yield "labels", "Replies whose quality was told", backend, labels, count
        yield "offers", "Requests that a backend was offered for", backend, offers, count
        yield "answer_quality", "Sum of what answers were worth", route, answers, total
        yield "label_quality", "Sum of what replies were worth", backend, labels, total
        text = "What requests were expected to cost, had each gone to this backend"
        yield "counterfactual_cost_usd", text, backend, offers, attrgetter("cost_usd")
        text = "Sum of what was expected of this backend, over all requests"
        yield "counterfactual_quality", text, backend, offers, attrgetter("quality")

    def tags_nano(self) -> dict[str, int]:
        """Return the cost of each `key=value` tag; not for Prometheus: clients choose the tags."""
        return dict(self._tags)

    def _counters(self) -> Iterator[Metric]:
        keys = ["route", "backend", "tenant"]
        requests = CounterMetricFamily(
            "tollway_requests", "Requests by outcome", labels=["route", "tenant", "outcome"]
        )
        for outcome_key, count in self._outcomes.items():
            requests.add_metric(outcome_key, count)
        yield requests
        decisions = CounterMetricFamily(
            "tollway_decisions", "Draws of the policy, by why that arm", labels=["route", "reason"]
        )
        for draw_key, count in self._draws.items():
            decisions.add_metric(draw_key, count)
        yield decisions
        choices = CounterMetricFamily(
            "tollway_choices_changed",
            "Answered requests whose backend would have been another without a budget or its pace",
            labels=["route", "by"],
        )
        for changed_key, count in self._changed.items():
            choices.add_metric(changed_key, count)
        yield choices
        feedback = CounterMetricFamily(
            "tollway_feedback",
            "Feedback received, by what became of it",
            labels=["route", "outcome"],
        )
        for feedback_key, count in self._feedback.items():
            feedback.add_metric(feedback_key, count)
        yield feedback
        aside = CounterMetricFamily(
            "tollway_labels_set_aside",
            "Labels of a tenant that differ from the others' and were not learned from",
            labels=["route", "tenant"],
        )
        for aside_key, amount in self._set_aside.items():
            aside.add_metric(aside_key, amount)
        yield aside
        skipped = CounterMetricFamily(
            "tollway_journal_rows_skipped",
            "Rows of the journal that a start could not learn from",
        )
        skipped.add_metric([], self.rows_skipped)
        yield skipped
        no_answer = CounterMetricFamily(
            "tollway_no_answer",
            "Replies that held no answer, and were passed on",
            labels=["backend"],
        )
        for backend, count in self._no_answer.items():
            no_answer.add_metric([backend], count)
        yield no_answer
        for name, text, labels, means, read in self._means():
            family = CounterMetricFamily(f"tollway_{name}", text, labels=labels)
            for mean_key, mean in means.items():
                family.add_metric(mean_key, read(mean))
            yield family
        cost = CounterMetricFamily(
            "tollway_cost_usd",
            "Money spent, by where the figure comes from",
            labels=[*keys, "provenance"],
        )
        for key, tally in self._tallies.items():
            for provenance, nano in tally.cost_nano.items():
                cost.add_metric([*key, provenance], nano / NANO)
        yield cost
        for name, text, read in _TALLIED:
            family = CounterMetricFamily(f"tollway_{name}", text, labels=keys)
            for key, tally in self._tallies.items():
                family.add_metric(key, read(tally))
            yield family
        yield from self._further(keys)

    def _further(self, keys: list[str]) -> Iterator[Metric]:
        """Yield the less common units, each if there were calls with it."""
        for unit in MORE:
            found = [(key, t.units.get(unit.name, 0.0)) for key, t in self._tallies.items()]
            found = [(key, count) for key, count in found if count]
            if found:
                name = f"tollway_{unit.metric_name}"
                family = CounterMetricFamily(name, f"Calls used: {unit.text}", labels=keys)
                for key, count in found:
                    family.add_metric(key, count)
                yield family
        zero = CounterMetricFamily(
            "tollway_zero_usage",
            "Calls that cost nothing because their backend reported that nothing was used",
            labels=["backend"],
        )
        for backend, count in self._zero.items():
            zero.add_metric([backend], count)
        yield zero
        guessed = CounterMetricFamily(
            "tollway_unpriced_usage",
            "Calls with a unit, or a service tier, that their backend has no price for",
            labels=["backend", "unit"],
        )
        for guess, count in self._guessed.items():
            guessed.add_metric(guess, count)
        yield guessed


_TALLIED: tuple[tuple[str, str, Callable[[Tally], float]], ...] = (
    ("attempts", "Calls to backends", lambda t: t.attempts),
    ("attempt_errors", "Calls to backends that brought no usable answer", lambda t: t.errors),
    (
        "internal_errors",
        "Replies that the gateway failed to read because of a mistake of its own",
        lambda t: t.internal_errors,
    ),
    ("fallbacks", "Calls to a backend because another had failed", lambda t: t.fallbacks),
    ("audits", "Calls to a reference to judge another's answer", lambda t: t.audits),
    ("audit_cost_usd", "Money spent on audits; part of all", lambda t: t.audit_nano / NANO),
    (
        "quoted_usd",
        "What calls were expected to cost whose true usage is known",
        lambda t: t.quoted_nano / NANO,
    ),
    ("device_seconds", "Seconds of a device that calls used", lambda t: t.device_s),
    ("input_tokens", "Tokens read by backends", lambda t: t.input_tokens),
    (
        "cached_input_tokens",
        "Tokens read that backends had in their prompt caches; part of input",
        lambda t: t.cached_input_tokens,
    ),
    ("output_tokens", "Tokens written by backends", lambda t: t.output_tokens),
)


@dataclass(frozen=True, slots=True)
class _Collector:
    collect: Callable[[], Iterator[Metric]]


def histogram(
    name: str, text: str, labels: list[str], found: Mapping[tuple[str, ...], Buckets]
) -> Metric:
    """Return histograms in Prometheus' form, by their label values."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, buckets in found.items():
        told: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for bound, count, seen in buckets.cumulative():
            le = "+Inf" if bound == math.inf else repr(bound)
            told.append((le, count) if seen is None else (le, count, Exemplar(*seen)))
        family.add_metric(values, told, buckets.sum)
    return family


def _metric(family: Family) -> Metric:
    metric = Metric(family["name"], family["text"], family["type"])
    for name, labels, value in family["samples"]:
        metric.add_sample(name, labels, value)
    return metric
