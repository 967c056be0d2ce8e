"""Charges: the cost of a call that brought no complete, priced reply.

error reply          token prices: nothing, unless the reply reports usage; a price per device
                     second: the time it took; a price per request: one request for a 5xx, except
                     503 and 529, and nothing for a 3xx or 4xx (providers bill this way)
cancelled, cut off,  usage if the backend reported it; else the whole reservation if a hard budget
client disconnected  applies to the call, because the backend may bill it in full; else an estimate
"""

from dataclasses import replace

from tollway.backends.pricing import Price
from tollway.backends.types import Details, Usage
from tollway.backends.units import BY_NAME
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.plan import Target
from tollway.record import record

NOT_RUN = frozenset({429, 503, 529})
"""Statuses of a server that did no work; 529 is Anthropic's status for an overload."""

BY_USAGE, BY_HOLD, BY_ESTIMATE = "usage", "hold", "estimate"
"""The rule that charged a call without a complete reply."""


@record
class Charge:
    """An amount, and the rule that determined it."""

    cost_nano: int
    rule: str


def given_up(estimate_nano: int, hold_nano: int | None) -> Charge:
    """Return the charge of a call that was sent and about which nothing more is known.

    `hold_nano` is what a hard budget reserved for it; None if no hard budget applies.
    """
    if hold_nano is None:
        return Charge(estimate_nano, BY_ESTIMATE)
    return Charge(max(hold_nano, estimate_nano), BY_HOLD)


def unanswered(quote: Quote, hold_nano: int | None) -> Charge:
    """Return the charge of a call that was sent and got no reply."""
    return given_up(quote.ceiling_nano, hold_nano)


def refused(backend: Target, status: int, latency_s: float) -> tuple[int, Usage | None]:
    """Return the cost and the usage of an error reply that reports no usage.

    No tokens were generated, so only the price per request and the device time are charged.
    """
    if status in NOT_RUN:
        return 0, None
    usage = Usage(calls=1.0 if status >= 500 else 0.0, device_s=latency_s, exact=False)
    cost_nano = backend.price.cost_nano(usage)
    return cost_nano, usage if cost_nano else None


def used_at_least(quote: Quote, report: Usage | None, tokens: float, latency_s: float) -> Usage:
    """Return the known lower bound of the usage of a stream that reported no final usage.

    `report` is the usage reported before the end; `tokens` is an estimate of the output from its
    text and time, which counts up to the limit that the request set.
    """
    most = quote.known.output_tokens
    tokens = min(tokens, most) if most else tokens
    # At least one: a stream that has begun has read its prompt and produced a token.
    tokens = max(1.0, tokens, report.output_tokens if report is not None else 0.0)
    more = quote.usage.more
    seen = replace(
        quote.usage,
        output_tokens=tokens,
        device_s=latency_s,
        exact=False,
        more=Details(service_tier=more.service_tier) if more and more.service_tier else None,
    )
    if report is not None and report.input_tokens > 0:
        cached = min(report.cached_input_tokens, report.input_tokens)
        return replace(
            seen,
            input_tokens=report.input_tokens,
            cached_input_tokens=cached,
            more=_of_input(report) or seen.more,
        )
    return seen


def _of_input(report: Usage) -> Details | None:
    """Return the kinds of input that a report before the end of a stream names."""
    if report.more is None:
        return None
    units = [pair for pair in report.units if BY_NAME[pair[0]].part_of == "input_tokens"]
    return Details(tuple(units), service_tier=report.more.service_tier)


def estimated(price: Price, seen: Usage) -> Charge:
    """Return the estimated charge of a usage."""
    try:
        return Charge(price.cost_nano(seen), BY_ESTIMATE)
    except ValueError:  # an implausible token count was reported, without device seconds
        return Charge(price.foreseen_nano(replace(seen, output_tokens=1.0)), BY_ESTIMATE)
