"""What a call is charged where no complete, priced reply came back.

error reply        token prices: nothing, unless the reply reports usage; a price per device
                   second: the time it took; a price per request: one request for a 5xx, except
                   503 and 529, and nothing for a 3xx or 4xx (so do providers bill)
given up, cut off, usage if the backend reported it; else the whole hold where a hard budget
left by its client binds the call, for the backend may bill it in full; else an estimate
"""

from dataclasses import replace

from tollway.backends.pricing import Price
from tollway.backends.types import Details, Usage, record
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.backend import Backend

NOT_RUN = frozenset({429, 503, 529})
"""Statuses by which a server says that it did no work; 529 is Anthropic's for an overload."""

BY_USAGE, BY_HOLD, BY_ESTIMATE = "usage", "hold", "estimate"
"""By which rule a call was charged that brought no complete reply."""


@record
class Charge:
    """An amount, and the rule it follows."""

    cost_nano: int
    rule: str


def given_up(estimate_nano: int, hold_nano: int | None) -> Charge:
    """Return the charge of a call that was sent and of which nothing more is known.

    `hold_nano` is what a hard budget holds for it; None where none binds it.
    """
    if hold_nano is None:
        return Charge(estimate_nano, BY_ESTIMATE)
    return Charge(max(hold_nano, estimate_nano), BY_HOLD)


def unanswered(quote: Quote, hold_nano: int | None) -> Charge:
    """Return the charge of a call that was sent and brought no reply."""
    return given_up(quote.ceiling_nano, hold_nano)


def refused(backend: Backend, status: int, latency_s: float) -> tuple[int, Usage | None]:
    """Return what an error reply that reports no usage costs, and for which usage.

    No tokens were generated, so what remains is the price per request and the device's time.
    """
    if status in NOT_RUN:
        return 0, None
    usage = Usage(calls=1.0 if status >= 500 else 0.0, device_s=latency_s, exact=False)
    cost_nano = backend.price.cost_nano(usage)
    return cost_nano, usage if cost_nano else None


def used_at_least(quote: Quote, told: Usage | None, tokens: float, latency_s: float) -> Usage:
    """Return what a stream without its final usage has used, as far as can be told.

    `told` is what it reported on the way; `tokens` an estimate of its output by its text and time,
    which counts up to the limit that its request named.
    """
    most = quote.known.output_tokens
    tokens = min(tokens, most) if most else tokens
    # One at least: a stream that has begun has read its prompt and made a token of its answer.
    tokens = max(1.0, tokens, told.output_tokens if told is not None else 0.0)
    more = quote.usage.more
    seen = replace(
        quote.usage,
        output_tokens=tokens,
        device_s=latency_s,
        exact=False,
        more=Details(service_tier=more.service_tier) if more and more.service_tier else None,
    )
    if told is not None and told.input_tokens > 0:
        cached = min(told.cached_input_tokens, told.input_tokens)
        return replace(seen, input_tokens=told.input_tokens, cached_input_tokens=cached)
    return seen


def estimated(price: Price, seen: Usage) -> Charge:
    """Return the estimated charge of a usage."""
    try:
        return Charge(price.cost_nano(seen), BY_ESTIMATE)
    except ValueError:  # tokens told beyond belief, and no seconds beside them
        return Charge(price.foreseen_nano(replace(seen, output_tokens=1.0)), BY_ESTIMATE)
