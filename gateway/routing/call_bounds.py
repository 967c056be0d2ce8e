"""What a call can cost at most, and the limit of its output that makes it so.

Theory of operation. A hard budget holds the most that a call can cost, so that no bill can break
it. Input is bounded by the request's bytes where all that is read stands in it, else by the
backend's context. Output is bounded by a limit: the client's own, the backend's declared maximum,
or one that is written into the request. The limit written is

    max(least, 2 x the longest answers of late, what a sixty-fourth of the budget's rest pays for)

and never above the client's own, the declared maximum, or what is left in the budget. So with
plenty of money hardly any answer is cut off; with little, a budget serves several calls at once
though each could be a hundred times as long; and the last dollar buys a shorter answer rather than
none. See docs/decisions/0204.
"""

import math
from dataclasses import replace

from tollway.backends import output as outputs
from tollway.backends.dialect import Dialect
from tollway.backends.output import Output, OutputLimit
from tollway.backends.pricing import Price
from tollway.backends.types import Call, Usage, record
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.backend import NO_PAYLOAD, Backend

SHARES = 64  # calls that a budget serves at once while answers are short: as many as a backend gets
FACTOR = 2.0  # over the longest answers of late: one of 400 log-normal answers is longer (sigma 1)
UNDECLARED_MAX = 16_384  # where no maximum is declared: servers refuse a limit above their own
LEAST, USEFUL = outputs.SMALLEST, 256
"""The least limit is twice the longest answers of late, within these: below 16 tokens some servers
refuse, and 256 tokens are a paragraph, which is worth having whatever the usual length."""

INPUT_SLACK = 1.25  # over the input expected, where prompt and limit must fit the context together


@record
class Costs:
    """What a call costs at most, by how many tokens each answer has at most.

    `fixed` is what it can use beside its output, `extra_nano` the guess for units that nothing
    bounds; `base_nano` is what it costs without any output, `each_nano` what a token adds.
    """

    price: Price
    fixed: Usage
    extra_nano: int
    answers: float
    base_nano: int
    each_nano: float

    def nano(self, tokens: int) -> int:
        """Return the most that it costs if each answer has so many tokens at most (3 us)."""
        return self.extra_nano + _nano(self.price, self.fixed, tokens * self.answers)

    def tokens(self, amount_nano: int) -> int:
        """Return how many tokens each answer may have so that it costs no more than an amount."""
        if amount_nano < self.base_nano or not self.each_nano:
            return 0
        tokens = int((amount_nano - self.base_nano) / self.each_nano)
        while tokens > 0 and (over_nano := self.nano(tokens) - amount_nano) > 0:
            tokens = max(0, tokens - math.ceil(over_nano / self.each_nano))
        return tokens


def _nano(price: Price, fixed: Usage, output_tokens: float) -> int:
    # Not by `replace`, which takes longer than the price.
    return price.foreseen_nano(
        Usage(
            fixed.calls,
            fixed.device_s,
            fixed.input_tokens,
            0.0,
            output_tokens,
            exact=False,
            more=fixed.more,
        )
    )


def _costs(price: Price, fixed: Usage, extra_nano: int, answers: float) -> Costs:
    base_nano, many = _nano(price, fixed, 0.0), 100_000
    each_nano = (_nano(price, fixed, many * answers) - base_nano) / many
    return Costs(price, fixed, extra_nano, answers, extra_nano + base_nano, each_nano)


@record
class CallBounds:
    """A call's bounds under hard budgets.

    `most`: of each answer's tokens, what the client or the backend allow, 0 where neither does;
    `wanted`: what it is to be given; `maximum_nano` and `least_nano`: what it is to hold, and at
    least must.
    """

    costs: Costs
    most: int
    wanted: int
    maximum_nano: int
    least_nano: int
    output: Output | None
    field: str
    dropped: tuple[str, ...]

    @property
    def answers(self) -> float:
        """How many answers are generated; 0 where there is no output."""
        return self.costs.answers

    def limit(self, hold_nano: int) -> OutputLimit | None:
        """Return the limit to write for what was held; None where nothing need be written."""
        if self.output is None or not self.field:
            return None
        tokens = self.wanted if hold_nano >= self.maximum_nano else self.costs.tokens(hold_nano)
        if self.most and tokens >= self.most:
            return None
        return outputs.limit(self.output, tokens, self.field, self.dropped)

    def quoted(self, quote: Quote, hold_nano: int) -> Quote:
        """Return a quote of the call as it is limited."""
        return replace(
            quote,
            expected_nano=min(quote.expected_nano, hold_nano),
            ceiling_nano=min(quote.ceiling_nano, hold_nano),
            maximum_nano=hold_nano,
        )


class Unbounded(ValueError):  # noqa: N818 - reads as what happened
    """Nothing bounds a call; the message says what does not, and what to declare."""


def bounds(
    backend: Backend, quote: Quote, call: Call, *, longest: float, left_nano: int
) -> CallBounds:
    """Return the bounds of a call (30 us); Unbounded where nothing bounds it.

    `longest`: how many tokens answers have had at most; `left_nano`: what the budget has left.
    """
    price, known = backend.price.most, quote.known
    inputs = _inputs(backend, known) if price.input_token_nano else 0.0
    fixed = Usage(known.calls, known.device_s, inputs, 0.0, 0.0, exact=False, more=known.more)
    extra_nano = _extra_nano(backend.price, quote)
    asked = backend.protocol.output(call, call.payload or NO_PAYLOAD)
    if not price.output_token_nano or (asked is not None and not asked.generates):
        costs = _costs(price, fixed, extra_nano, 0.0)
        return CallBounds(costs, 0, 0, costs.base_nano, costs.base_nano, None, "", ())
    answers = 1.0 if asked is None else _answers(backend, asked)
    dropped = backend.dialect.drops
    field = _field(asked, backend.dialect)
    most = _most(backend, 0 if asked is None else asked.own(dropped))
    if not (field or most):
        place = f'[[backends]] "{backend.name}"'
        raise Unbounded(f"its output has no limit; set max_output_tokens of {place}")
    costs, least, wanted = _costs(price, fixed, extra_nano, answers), most, most
    if field:
        least = _least(backend, longest, most)
        share = costs.tokens(left_nano // SHARES)
        wanted = _wanted(backend, longest, most, least, share)
        if not most or wanted < most:
            wanted = min(wanted, _room(backend, quote, least))
    return CallBounds(
        costs, most, wanted, costs.nano(wanted), costs.nano(least), asked, field, dropped
    )


def _inputs(backend: Backend, known: Usage) -> float:
    """Return how many input tokens a call has at most."""
    context = backend.input_tokens_max
    if context is not None:
        return min(known.input_tokens or math.inf, float(context))
    if not known.input_tokens:
        place = f'[[backends]] "{backend.name}"'
        raise Unbounded(f"its input is more than the text it sends; set context_tokens of {place}")
    return known.input_tokens


def _answers(backend: Backend, asked: Output) -> float:
    """Return how many answers are generated."""
    if not asked.answers:
        raise Unbounded("n and best_of are no whole numbers above 0; send such")
    if asked.modality and asked.modality not in dict(backend.price.more):
        key = asked.modality.replace("tokens", "usd_per_mtok")
        place = f'[[backends]] "{backend.name}"'
        raise Unbounded(f"it asks for more than text; set {key} in the price of {place}")
    return asked.answers


def _most(backend: Backend, own: int) -> int:
    """Return how many tokens the client and the backend allow an answer; 0 where neither says."""
    ceiling = backend.max_output_tokens or backend.input_tokens_max or 0
    return min(own, ceiling) if own and ceiling else own or ceiling


def _field(asked: Output | None, dialect: Dialect) -> str:
    """Return the field in which a limit can be written for the backend; empty where there is none.

    The request's own where it has one that is sent.
    """
    if asked is None:
        return ""
    present = [name for name in asked.limits if name not in dialect.drops]
    field = present[0] if present else dialect.limit_field(asked.field)
    return "" if field in dialect.drops else field


def _least(backend: Backend, longest: float, most: int) -> int:
    least = backend.min_output_tokens or min(max(int(FACTOR * longest), LEAST), USEFUL)
    return min(least, most) if most else least


def _wanted(backend: Backend, longest: float, most: int, least: int, share: int) -> int:
    """Return how many tokens each answer is to be allowed; `share`: what its share pays for."""
    wanted = max(least, math.ceil(FACTOR * longest), share if most else min(share, UNDECLARED_MAX))
    if most and wanted >= most:
        return most
    taken = backend.dialect.output_max  # the backend refused a larger limit
    return wanted if taken is None else min(wanted, max(least, taken))


def _room(backend: Backend, quote: Quote, least: int) -> int:
    """Return the largest limit that fits into the context beside the prompt, as far as known."""
    if backend.input_tokens_max is None:
        return outputs.UNLIMITED
    inputs = math.ceil(INPUT_SLACK * quote.usage.input_tokens)
    return max(least, backend.input_tokens_max - inputs)


def _extra_nano(price: Price, quote: Quote) -> int:
    """Return what to hold for units that are no tokens and that nothing bounds, such as searches.

    It is a guess, eight times what is expected: their number is the provider's alone to say.
    """
    told = dict(quote.known.units)
    searched = 0.0 if quote.known.input_tokens else 1.0
    counts = dict(quote.usage.units)
    nano = 0.0
    for unit in price.standalone:
        if unit not in told:
            usual = counts.get(unit, searched if unit == "searches" else 1.0)
            nano += 8.0 * usual * price.most.rate(unit)
    return math.ceil(nano)
