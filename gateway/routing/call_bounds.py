"""Call bounds: the most that a call can cost, and the output limit that enforces it.

Theory of operation. A hard budget reserves the most that a call can cost, so that no bill can
exceed the budget. Input is bounded by the request's bytes if they contain all that is read, else by
the backend's context. Output is bounded by a limit: the client's own, the backend's declared
maximum, or one that the gateway writes into the request. The limit written is

    max(least, 2 x the longest recent answers, what 1/64 of the remaining budget pays for)

and never above the client's own limit, the declared maximum, or the remaining budget. So with
plenty of money hardly any answer is cut off. With little money, a budget serves several calls at
once although each could be a hundred times as long. The last dollar buys a shorter answer rather
than none. See docs/decisions/0204.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tollway.backends import output as outputs
from tollway.backends.dialect import Dialect
from tollway.backends.output import Output, OutputLimit
from tollway.backends.price import MAX_NANO, Price, rounded_nano
from tollway.backends.types import Call, Details, Usage
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.plan import Target
from tollway.record import record

SHARES = 64  # concurrent calls of a budget while answers are short: as many as a backend gets
FACTOR = 2.0  # times the longest recent answers: 1 in 400 log-normal ones is longer (sigma 1)
UNDECLARED_MAX = 16_384  # if no maximum is declared: servers refuse a limit above their own
LEAST, USEFUL = outputs.SMALLEST, 256
"""The least limit is twice the longest recent answers, clamped to this range. Some servers refuse
fewer than 16 tokens; 256 tokens are a paragraph, which is useful whatever the usual length."""

INPUT_SLACK = 1.25  # times the expected input, when prompt and limit must share the context


@dataclass(slots=True)
class Costs:
    """The most that a call costs, as a function of the token limit of each answer.

    `fixed` is the maximum usage other than output; `extra_nano` is the guess for units that nothing
    bounds; `answers` is 0 if there is no output. `unrounded_nano`: the cost of `fixed`, to which
    each token of the output adds `price.output_token_nano`; None if they do not simply add up.
    Derived: `base_nano` is the cost without output; `each_nano` is the cost per token.
    """

    price: Price
    fixed: Usage
    extra_nano: int
    answers: float
    unrounded_nano: float | None = None
    base_nano: int = field(init=False)
    each_nano: float = field(init=False)

    def __post_init__(self) -> None:
        many, base_nano = 100_000, self.nano(0)
        self.base_nano, self.each_nano = base_nano, (self.nano(many) - base_nano) / many

    def nano(self, tokens: int) -> int:
        """Return the maximum cost if each answer has at most `tokens` tokens (0.4 us)."""
        nano = self.unrounded_nano
        if nano is None:
            return self.extra_nano + self.price.foreseen_nano(self.fixed, tokens * self.answers)
        # As `Price.cost_nano`, which looks at each part of the usage again.
        nano += tokens * self.answers * self.price.output_token_nano
        return self.extra_nano + (rounded_nano(nano) if nano < MAX_NANO else MAX_NANO - 1)

    def tokens(self, amount_nano: int) -> int:
        """Return the tokens that each answer may have for the call to cost at most an amount."""
        if amount_nano < self.base_nano or not self.each_nano:
            return 0
        tokens = int((amount_nano - self.base_nano) / self.each_nano)
        while tokens > 0 and (over_nano := self.nano(tokens) - amount_nano) > 0:
            tokens = max(0, tokens - math.ceil(over_nano / self.each_nano))
        return tokens


def _costs(price: Price, fixed: Usage, extra_nano: int, answers: float) -> Costs:
    if price.tiers:
        price = price.at(fixed.input_tokens)
    least = min(fixed.calls, fixed.device_s, fixed.input_tokens, answers)
    if fixed.more is not None or price.tiers or fixed.cached_input_tokens or not least >= 0:
        return Costs(price, fixed, extra_nano, answers)
    unrounded_nano = (
        fixed.calls * price.per_request_nano
        + fixed.device_s * price.per_device_s_nano
        + fixed.input_tokens * price.input_token_nano
    )
    return Costs(price, fixed, extra_nano, answers, unrounded_nano)


@record
class CallBounds:
    """A call's bounds under hard budgets.

    `most`: the tokens that the client and the backend allow for each answer; 0 if neither limits
    them. `wanted`: the tokens to allow. `maximum_nano` and `least_nano`: the desired and the least
    reservation.
    """

    costs: Costs
    most: int
    wanted: int
    maximum_nano: int
    least_nano: int
    output: Output | None
    field: str
    dropped: tuple[str, ...]

    def limit(self, hold_nano: int) -> OutputLimit | None:
        """Return the limit to write for a reservation; None if none needs to be written."""
        if self.output is None or not self.field:
            return None
        tokens = self.wanted if hold_nano >= self.maximum_nano else self.costs.tokens(hold_nano)
        if self.most and tokens >= self.most:
            return None
        return outputs.limit(self.output, tokens, self.field, self.dropped)

    def quoted(self, quote: Quote, hold_nano: int) -> Quote:
        """Return the quote of the limited call."""
        expected_nano, ceiling_nano = quote.expected_nano, quote.ceiling_nano
        if ceiling_nano > hold_nano:  # the ceiling is never below the expected cost
            expected_nano, ceiling_nano = min(expected_nano, hold_nano), hold_nano
        return Quote(expected_nano, ceiling_nano, hold_nano, quote.usage, quote.known)


class Unbounded(ValueError):  # noqa: N818 - reads as what happened
    """Nothing bounds a call; the message says which part is unbounded and what to declare."""


def bounds(
    backend: Target, quote: Quote, call: Call, *, longest: float, left_nano: int
) -> CallBounds:
    """Return the bounds of a call (10 us); raise Unbounded if nothing bounds it.

    `longest`: the tokens of the longest recent answers; `left_nano`: the remaining budget.
    """
    if backend.price.is_stale:
        raise Unbounded(
            f'the price of [[backends]] "{backend.name}" is not known at present, because that of '
            "its device cannot be read; see the age of its price in the metrics"
        )
    price, known = backend.price.most, quote.known
    endpoint = call.payload.endpoint
    if endpoint.is_declared and not price.is_fixed:
        raise Unbounded(
            "nothing tells what this work will cost; give it a route with a backend whose price is "
            f'per_request_usd alone, as [[backends]] "{backend.name}" is not'
        )
    asked = backend.protocol.output(call, call.payload)
    if asked is not None and asked.unbounded:
        raise Unbounded(asked.unbounded)
    inputs = _inputs(backend, known) if price.input_token_nano else 0.0
    more = known.more
    if asked is not None and (asked.samples > 1 or asked.written_as):
        inputs *= asked.samples
        more = _written(more, asked.written_as, inputs)
    fixed = Usage(known.calls, known.device_s, inputs, 0.0, 0.0, exact=False, more=more)
    extra_nano = _extra_nano(backend, quote, endpoint.unit)
    if not price.output_token_nano or (asked is not None and not asked.generates):
        costs = _costs(price, fixed, extra_nano, 0.0)
        return CallBounds(costs, 0, 0, costs.base_nano, costs.base_nano, None, "", ())
    answers = 1.0 if asked is None else _answers(backend, asked)
    dropped = backend.dialect.drops
    field = "" if asked is None else _field(asked, backend.dialect, dropped)
    most = _most(backend, 0 if asked is None else asked.own(dropped))
    if not (field or most):
        place = f'[[backends]] "{backend.name}"'
        raise Unbounded(f"its output has no limit; set max_output_tokens of {place}")
    costs, least, wanted = _costs(price, fixed, extra_nano, answers), most, most
    if field:
        least = _least(backend, longest, most, 0 if asked is None else asked.least)
        share = costs.tokens(left_nano // SHARES)
        taken = backend.dialect.output_max(call.tenant)  # the backend refused a larger limit
        wanted = _wanted(longest, most, least, share, taken)
        if not most or wanted < most:
            wanted = min(wanted, _room(backend, quote, least))
    return CallBounds(
        costs, most, wanted, costs.nano(wanted), costs.nano(least), asked, field, dropped
    )


def _inputs(backend: Target, known: Usage) -> float:
    """Return the maximum number of input tokens of a call."""
    context = backend.input_tokens_max
    if context is not None:
        return min(known.input_tokens or math.inf, float(context))
    if not known.input_tokens:
        place = f'[[backends]] "{backend.name}"'
        raise Unbounded(f"its input is more than the text it sends; set context_tokens of {place}")
    return known.input_tokens


def _answers(backend: Target, asked: Output) -> float:
    """Return the number of answers generated."""
    if not asked.answers:
        raise Unbounded("n and best_of are not whole numbers above 0; send whole numbers")
    if asked.modality and asked.modality not in dict(backend.price.more):
        key = asked.modality.replace("tokens", "usd_per_mtok")
        place = f'[[backends]] "{backend.name}"'
        raise Unbounded(f"it asks for more than text; set {key} in the price of {place}")
    return asked.answers


def _most(backend: Target, own: int) -> int:
    """Return the tokens that client and backend allow an answer; 0 if neither sets a limit."""
    ceiling = backend.max_output_tokens or backend.input_tokens_max or 0
    return min(own, ceiling) if own and ceiling else own or ceiling


def _field(asked: Output, dialect: Dialect, dropped: Sequence[str]) -> str:
    """Return the field for writing a limit for the backend; empty if there is none.

    The request's own field if it has one that is sent.
    """
    for name in asked.limits:
        if name not in dropped:
            return name
    field = dialect.limit_field(asked.field)
    return "" if field in dropped else field


def _written(more: Details | None, unit: str, inputs: float) -> Details | None:
    """Return the units of a call whose input may all be written to a cache as `unit`, if any."""
    if not unit:
        return more
    units = [] if more is None else [pair for pair in more.units if pair[0] != unit]
    return Details((*units, (unit, inputs)), service_tier="" if more is None else more.service_tier)


def _least(backend: Target, longest: float, most: int, asked: int) -> int:
    least = backend.min_output_tokens
    if not least:
        least = int(FACTOR * longest)
        least = LEAST if least < LEAST else USEFUL if least > USEFUL else least
    least = max(least, asked)
    return most if 0 < most < least else least


def _wanted(longest: float, most: int, least: int, share: int, taken: int | None) -> int:
    """Return the tokens to allow each answer; `share`: those that its budget share pays for."""
    wanted = max(least, math.ceil(FACTOR * longest), share if most else min(share, UNDECLARED_MAX))
    if most and wanted >= most:
        return most
    return wanted if taken is None else min(wanted, max(least, taken))


def _room(backend: Target, quote: Quote, least: int) -> int:
    """Return the largest limit that fits into the context with the prompt, as far as known."""
    if backend.input_tokens_max is None:
        return outputs.UNLIMITED
    inputs = math.ceil(INPUT_SLACK * quote.usage.input_tokens)
    return max(least, backend.input_tokens_max - inputs)


def _extra_nano(backend: Target, quote: Quote, named: str) -> int:
    """Return the reservation for units other than tokens that the request does not bound.

    For the unit that the endpoint is about (`named`) it is the declared maximum, and Unbounded
    without one. For others, such as searches, it is a guess, eight times the expected cost: only
    the provider determines their number.
    """
    price = backend.price
    if not price.more:
        return 0
    known_units = dict(quote.known.units)
    counts = dict(quote.usage.units)
    searched = 0.0 if quote.known.input_tokens else 1.0
    nano = 0.0
    for unit in price.standalone:
        if unit in known_units:
            continue
        if unit == named:
            nano += _declared(backend, unit) * price.most.rate(unit)
        else:
            usual = counts.get(unit, searched if unit == "searches" else 1.0)
            nano += 8.0 * usual * price.most.rate(unit)
    return math.ceil(nano)


def _declared(backend: Target, unit: str) -> float:
    """Return the maximum of a unit that a backend declares for a call."""
    if unit != "audio_s":
        raise Unbounded(f"it does not say how many {unit} it asks for; send a whole number")
    if backend.max_audio_s is None:
        place = f'[[backends]] "{backend.name}"'
        raise Unbounded(f"the length of its recording is unknown; set max_audio_s of {place}")
    return backend.max_audio_s
