"""The names of the counters in Prometheus.

Money is divided once, at scrape time, so that the sum equals the ledger's to the last digit.
"""

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from tollway.backends.money import to_usd
from tollway.backends.units import MORE
from tollway.gateway.observability.counters import Metrics, Tally
from tollway.gateway.observability.families import Metric, counter, histogram

Read = Callable[[Any], float]


def counter_families(metrics: Metrics) -> Iterator[Metric]:
    """Yield the families of all counters."""
    keys = ["route", "backend", "tenant"]
    yield counter(
        "tollway_requests",
        "Requests by outcome",
        ["route", "tenant", "outcome"],
        metrics.outcomes.items(),
    )
    yield counter(
        "tollway_decisions",
        "Draws of the policy, by reason",
        ["route", "reason"],
        metrics.draws.items(),
    )
    yield counter(
        "tollway_choices_changed",
        "Answered requests for which a budget or its pacing changed the backend",
        ["route", "by"],
        metrics.choices_changed.items(),
    )
    yield counter(
        "tollway_feedback",
        "Feedback received, by result",
        ["route", "outcome"],
        metrics.feedback_results.items(),
    )
    yield counter(
        "tollway_labels_set_aside",
        "Labels of a tenant that were ignored because other tenants' labels contradict them",
        ["route", "tenant"],
        metrics.labels_set_aside.items(),
    )
    yield from _signal_families(metrics)
    yield counter(
        "tollway_journal_rows_skipped",
        "Journal rows that the last start could not learn from",
        [],
        [((), metrics.rows_skipped)],
    )
    yield counter(
        "tollway_no_answer",
        "Replies without an answer that were sent to the client",
        ["backend"],
        _by_backend(metrics.no_answers),
    )
    for name, text, labels, means, read in _means(metrics):
        yield counter(
            f"tollway_{name}", text, labels, ((at, read(mean)) for at, mean in means.items())
        )
    yield counter(
        "tollway_cost_usd",
        "Cost in dollars, by provenance",
        [*keys, "provenance"],
        (
            ((*key, provenance), to_usd(nano))
            for key, tally in metrics.tallies.items()
            for provenance, nano in tally.cost_nano.items()
        ),
    )
    for name, text, read in _TALLIED:
        rows = ((key, read(tally)) for key, tally in metrics.tallies.items())
        yield counter(f"tollway_{name}", text, keys, rows)
    yield from _further(metrics, keys)
    yield histogram(
        "tollway_gateway_duration_seconds",
        "Time a request spent in the gateway itself, excluding its calls to backends",
        ["route"],
        metrics.overhead,
    )
    yield histogram(
        "tollway_upstream_duration_seconds",
        "Duration of an attempt at a backend",
        ["route", "backend"],
        metrics.upstream,
    )
    yield counter(
        "tollway_config_reloads",
        "Reloads of the configuration",
        ["result"],
        (((result,), count) for result, count in metrics.reloads.items()),
    )


def _signal_families(metrics: Metrics) -> Iterator[Metric]:
    keys, means = ["route", "signal"], metrics.signals
    yield counter(
        "tollway_signals",
        "Answers scored by a signal",
        keys,
        ((at, mean.count) for at, mean in means.items()),
    )
    yield counter(
        "tollway_signal_score",
        "Sum of the scores of a signal",
        keys,
        ((at, mean.sum) for at, mean in means.items()),
    )
    yield counter(
        "tollway_signal_failures",
        "Answers that a signal could not score",
        keys,
        metrics.signals_failed.items(),
    )
    yield counter(
        "tollway_signals_dropped",
        "Answers that were not scored, because too many waited or they are too large",
        ["route"],
        _by_backend(metrics.signals_dropped),
    )
    yield counter(
        "tollway_guarded",
        "Requests that a guard tagged, rewrote or refused, or that it could not check",
        ["route", "guard", "act"],
        metrics.guarded.items(),
    )


def _means(
    metrics: Metrics,
) -> Iterator[tuple[str, str, list[str], Mapping[tuple[str, ...], Any], Read]]:
    count, total = attrgetter("count"), attrgetter("sum")
    route, backend = ["route"], ["route", "backend"]
    answers, labels, offers = metrics.answers, metrics.labels, metrics.offers
    yield "answers", "Answered requests with a known quality", route, answers, count
    yield (
        "labels",
        "Replies with a known quality, including those that were escalated",
        backend,
        labels,
        count,
    )
    yield (
        "offers",
        "Requests for which the policy could choose this backend",
        backend,
        offers,
        count,
    )
    yield "answer_quality", "Sum of the quality of labelled answers", route, answers, total
    yield "label_quality", "Sum of the quality of labelled replies", backend, labels, total
    text = "Expected cost in dollars if every request had gone to this backend"
    yield "counterfactual_cost_usd", text, backend, offers, attrgetter("cost_usd")
    text = "Sum of the expected quality if every request had gone to this backend"
    yield "counterfactual_quality", text, backend, offers, attrgetter("quality")


def _further(metrics: Metrics, keys: list[str]) -> Iterator[Metric]:
    """Yield the less common units, each if there were calls with it."""
    for unit in MORE:
        counts = ((key, t.units.get(unit.name, 0.0)) for key, t in metrics.tallies.items())
        rows = [(key, count) for key, count in counts if count]
        if rows:
            yield counter(f"tollway_{unit.metric_name}", f"Calls used: {unit.text}", keys, rows)
    yield counter(
        "tollway_zero_usage",
        "Calls that cost nothing because the backend reported zero usage",
        ["backend"],
        _by_backend(metrics.zero_usage),
    )
    yield counter(
        "tollway_unpriced_usage",
        "Calls with a unit or a service tier that has no price at the backend",
        ["backend", "unit"],
        metrics.unpriced_usage.items(),
    )


_TALLIED: tuple[tuple[str, str, Callable[[Tally], float]], ...] = (
    ("attempts", "Calls to backends", lambda t: t.attempts),
    ("attempt_errors", "Calls to backends that returned no usable answer", lambda t: t.errors),
    (
        "internal_errors",
        "Replies that the gateway failed to read because of a bug in the gateway",
        lambda t: t.internal_errors,
    ),
    ("fallbacks", "Calls to a backend after another backend failed", lambda t: t.fallbacks),
    (
        "audits",
        "Calls to a reference backend that audit another backend's answer",
        lambda t: t.audits,
    ),
    (
        "audit_cost_usd",
        "Cost of audits in dollars; included in the total cost",
        lambda t: to_usd(t.audit_nano),
    ),
    (
        "quoted_usd",
        "Expected cost in dollars of the calls with known usage",
        lambda t: to_usd(t.quoted_nano),
    ),
    ("device_seconds", "Device seconds used by calls", lambda t: t.device_s),
    ("input_tokens", "Input tokens", lambda t: t.input_tokens),
    (
        "cached_input_tokens",
        "Input tokens that backends read from their prompt caches; included in the input tokens",
        lambda t: t.cached_input_tokens,
    ),
    ("output_tokens", "Output tokens", lambda t: t.output_tokens),
)


def _by_backend(counts: Mapping[str, int]) -> Iterator[tuple[tuple[str], int]]:
    return (((backend,), count) for backend, count in counts.items())
