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
from dataclasses import replace

from tollway.backends import output as outputs
from tollway.backends.dialect import Dialect
from tollway.backends.output import Output, OutputLimit
from tollway.backends.pricing import Price
from tollway.backends.types import Call, Usage, record
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.backend import NO_PAYLOAD, Backend

SHARES = 64  # concurrent calls of a budget while answers are short: as many as a backend gets
FACTOR = 2.0  # times the longest recent answers: 1 in 400 log-normal ones is longer (sigma 1)
UNDECLARED_MAX = 16_384  # if no maximum is declared: servers refuse a limit above their own
LEAST, USEFUL = outputs.SMALLEST, 256
"""The least limit is twice the longest recent answers, clamped to this range. Some servers refuse
fewer than 16 tokens; 256 tokens are a paragraph, which is useful whatever the usual length."""

INPUT_SLACK = 1.25  # times the expected input, when prompt and limit must share the context


@record
class Costs:
    """The most that a call costs, as a function of the token limit of each answer.

    `fixed` is the maximum usage other than output; `extra_nano` is the guess for units that nothing
    bounds; `base_nano` is the cost without output; `each_nano` is the cost per token.
    """

    price: Price
    fixed: Usage
    extra_nano: int
    answers: float
    base_nano: int
    each_nano: float

    def nano(self, tokens: int) -> int:
        """Return the maximum cost if each answer has at most `tokens` tokens (3 us)."""
        return self.extra_nano + _nano(self.price, self.fixed, tokens * self.answers)

    def tokens(self, amount_nano: int) -> int:
        """Return the tokens that each answer may have for the call to cost at most an amount."""
        if amount_nano < self.base_nano or not self.each_nano:
            return 0
        tokens = int((amount_nano - self.base_nano) / self.each_nano)
        while tokens > 0 and (over_nano := self.nano(tokens) - amount_nano) > 0:
            tokens = max(0, tokens - math.ceil(over_nano / self.each_nano))
        return tokens


def _nano(price: Price, fixed: Usage, output_tokens: float) -> int:
    # Built directly: `replace` takes longer than the price computation.
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

    @property
    def answers(self) -> float:
        """The number of answers generated; 0 if there is no output."""
        return self.costs.answers

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
        return replace(
            quote,
            expected_nano=min(quote.expected_nano, hold_nano),
            ceiling_nano=min(quote.ceiling_nano, hold_nano),
            maximum_nano=hold_nano,
        )


class Unbounded(ValueError):  # noqa: N818 - reads as what happened
    """Nothing bounds a call; the message says which part is unbounded and what to declare."""


def bounds(
    backend: Backend, quote: Quote, call: Call, *, longest: float, left_nano: int
) -> CallBounds:
    """Return the bounds of a call (30 us); raise Unbounded if nothing bounds it.

    `longest`: the tokens of the longest recent answers; `left_nano`: the remaining budget.
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
    """Return the maximum number of input tokens of a call."""
    context = backend.input_tokens_max
    if context is not None:
        return min(known.input_tokens or math.inf, float(context))
    if not known.input_tokens:
        place = f'[[backends]] "{backend.name}"'
        raise Unbounded(f"its input is more than the text it sends; set context_tokens of {place}")
    return known.input_tokens


def _answers(backend: Backend, asked: Output) -> float:
    """Return the number of answers generated."""
    if not asked.answers:
        raise Unbounded("n and best_of are not whole numbers above 0; send whole numbers")
    if asked.modality and asked.modality not in dict(backend.price.more):
        key = asked.modality.replace("tokens", "usd_per_mtok")
        place = f'[[backends]] "{backend.name}"'
        raise Unbounded(f"it asks for more than text; set {key} in the price of {place}")
    return asked.answers


def _most(backend: Backend, own: int) -> int:
    """Return the tokens that client and backend allow an answer; 0 if neither sets a limit."""
    ceiling = backend.max_output_tokens or backend.input_tokens_max or 0
    return min(own, ceiling) if own and ceiling else own or ceiling


def _field(asked: Output | None, dialect: Dialect) -> str:
    """Return the field for writing a limit for the backend; empty if there is none.

    The request's own field if it has one that is sent.
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
    """Return the tokens to allow each answer; `share`: those that its budget share pays for."""
    wanted = max(least, math.ceil(FACTOR * longest), share if most else min(share, UNDECLARED_MAX))
    if most and wanted >= most:
        return most
    taken = backend.dialect.output_max  # the backend refused a larger limit
    return wanted if taken is None else min(wanted, max(least, taken))


def _room(backend: Backend, quote: Quote, least: int) -> int:
    """Return the largest limit that fits into the context with the prompt, as far as known."""
    if backend.input_tokens_max is None:
        return outputs.UNLIMITED
    inputs = math.ceil(INPUT_SLACK * quote.usage.input_tokens)
    return max(least, backend.input_tokens_max - inputs)


def _extra_nano(price: Price, quote: Quote) -> int:
    """Return the reservation for unbounded units other than tokens, such as searches.

    It is a guess, eight times the expected cost: only the provider determines their number.
    """
    known_units = dict(quote.known.units)
    searched = 0.0 if quote.known.input_tokens else 1.0
    counts = dict(quote.usage.units)
    nano = 0.0
    for unit in price.standalone:
        if unit not in known_units:
            usual = counts.get(unit, searched if unit == "searches" else 1.0)
            nano += 8.0 * usual * price.most.rate(unit)
    return math.ceil(nano)
