"""Estimates what a call would cost: learned usage times today's price.

What is learned is usage (device-seconds, tokens), never dollars, so that a new price acts on the
next request. The logarithm of usage is regressed on the context by a head; what the mean is above
its exponential, and how far the 95 % quantile is, are learned beside it from the errors. A call
whose price has only a part per request costs what it costs: nothing is learned, all three figures
are equal.
"""

import math
from collections.abc import Collection

from tollway.backends.pricing import Price
from tollway.backends.types import Usage, record
from tollway.gateway.estimation.token_rate import TokenRate
from tollway.gateway.estimation.usage_model import Accuracy, UsageModel, prior
from tollway.gateway.estimation.worst_seen import USUAL
from tollway.policies.regressors.vowpal import VowpalRegressor
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import Context

KIND = "estimator 3"
CALL = Usage()


@record
class Quote:
    """What a backend is expected to charge.

    ceiling: covers 95 % of calls, as learned. maximum: certain where every part of the price is
    bounded beforehand; else twice the largest of its tenant lately (`worst.py`). usage: what it is
    expected to use. known: what bounded that.
    """

    expected_nano: int
    ceiling_nano: int
    maximum_nano: int
    usage: Usage = CALL
    known: Usage = CALL


@record
class _Retained:
    """A quote that is the same for every context, until something is learned.

    It is of a price; and where that is not fixed, of what was known of the call, and of how far
    above the expected cost its tenant's costliest call was.
    """

    quote: Quote
    price: Price
    known: Usage | None = None
    cached: float | None = None
    worst: float = USUAL

    def holds(self, price: Price, known: Usage, cached: float | None, worst: float) -> bool:
        """Whether it is the quote of such a call."""
        return self.price is price and (
            self.known is None
            or (self.known is known and self.cached == cached and self.worst == worst)
        )


class CostEstimator:
    """Quotes the backends of one route."""

    # The mutable state: a usage model per backend, the head that the models share, and the quotes
    # that do not depend on the context, kept because before model servers most do not.

    def __init__(self) -> None:
        # 0.2: a usage is heavy-tailed even in its logarithm; at 0.5 one outlier swings the head.
        self._head = VowpalRegressor(learning_rate=0.2)
        self._models: dict[str, UsageModel] = {}
        self._kept: dict[str, _Retained] = {}
        self._rates: dict[str, TokenRate] = {}
        self._memo: tuple[Context, dict[str, float]] = (Context(()), {})

    def quote(
        self,
        context: Context,
        backend: str,
        price: Price,
        known: Usage,
        cached: float | None = None,
        *,
        tenant: str = "",
        now_s: float = 0.0,
    ) -> Quote:
        """Return the quote of a backend at `price`; `cached`: what share of the input is, if known.

        `known` bounds the usage beforehand: the most input tokens that the request can be, limits
        on its output tokens or device-seconds; 0 where nothing is known.
        """
        kept = self._kept.get(backend)
        if kept is not None and kept.known is None and kept.price is price:
            return kept.quote  # a fixed price
        found = self._models.get(backend)
        worst = USUAL if found is None else found.worst.of(tenant, now_s)
        if kept is not None and kept.holds(price, known, cached, worst):
            return kept.quote
        if price.is_fixed:
            cost_nano = price.call_nano
            quote = Quote(cost_nano, cost_nano, price.most.cost_nano(CALL))
            self._kept[backend] = _Retained(quote, price)
            return quote
        model, logs = self._model(backend), self._logs(context)
        expected = model.expected(logs, known, cached)
        certain, maximum = model.bounds(expected, price, known, worst)
        expected_nano = price.foreseen_nano(expected)
        if certain:
            expected_nano = min(expected_nano, maximum)
        ceiling_nano = min(math.ceil(expected_nano * model.margin), maximum)
        quote = Quote(
            expected_nano,
            max(ceiling_nano, expected_nano),
            max(maximum, expected_nano),
            expected,
            known,
        )
        if not logs:
            self._kept[backend] = _Retained(quote, price, known, cached, worst)
        return quote

    def observe(
        self,
        context: Context,
        backend: str,
        quote: Quote,
        price: Price,
        usage: Usage,
        *,
        tenant: str = "",
        now_s: float = 0.0,
    ) -> None:
        """Learn what a call used. ValueError for a usage that has no price."""
        if price.is_fixed:
            return
        cost_nano = price.cost_nano(usage)
        model = self._model(backend)
        plain = _plain(context)
        model.learn(
            self._logs(context),
            usage,
            quote.known,
            lambda key, log: self._head.learn(plain, key, log),
        )
        model.judge(quote.expected_nano, quote.ceiling_nano, cost_nano, tenant=tenant, now_s=now_s)
        self._forget()

    def rate(self, backend: str) -> TokenRate:
        """Return how many tokens a backend's streams hold per byte and second, to learn and ask."""
        rate = self._rates.get(backend)
        if rate is None:
            rate = self._rates[backend] = TokenRate()
        return rate

    def longest(self, backend: str, tenant: str) -> float:
        """Return how many tokens nearly all answers of a tenant have had at most."""
        return self._model(backend).longest.of(tenant)

    def answered(self, backend: str, tenant: str, tokens: float, limit: int) -> None:
        """Learn how many tokens an answer had, and its limit; 0 where it had none."""
        self._model(backend).longest.see(tenant, tokens, limit)

    def accuracy(self) -> dict[str, Accuracy]:
        """Return by backend how good its quotes were; none for those with fixed prices."""
        return {backend: model.accuracy for backend, model in self._models.items()}

    def keep(self, backends: Collection[str]) -> None:
        """Forget all backends but these."""
        for known in (self._models, self._rates, self._kept):
            for name in known.keys() - set(backends):
                del known[name]
        self._forget()

    def _forget(self) -> None:
        """Forget what was said before something was learned."""
        self._memo = (Context(()), {})
        self._kept = {name: kept for name, kept in self._kept.items() if kept.known is None}

    def _model(self, backend: str) -> UsageModel:
        model = self._models.get(backend)
        if model is None:
            model = self._models[backend] = UsageModel(backend, self._usual)
        return model

    def _usual(self, unit: str) -> float:
        """Return what a call is taken to use of a unit at a backend that was never asked.

        How long an answer is depends on the question first: it is the mean of the other backends.
        At the prior's 500 tokens a new arm beside ones that write 40 looks hopelessly dear, is
        never asked, and so never found to be cheap. How long it takes depends on the device.
        """
        if unit != "output_tokens":
            return prior(unit)
        seen = [mean for model in self._models.values() if (mean := model.mean(unit))]
        return sum(seen) / len(seen) if seen else prior(unit)

    def _logs(self, context: Context) -> dict[str, float]:
        """Return the head's predictions for all backends, once per context."""
        if self._memo[0] is not context:
            keys = [key for model in self._models.values() for key in model.keys]
            values = self._head.predict(_plain(context), keys) if keys else []
            self._memo = (context, dict(zip(keys, values, strict=True)))
        return self._memo[1]

    def save(self) -> bytes:
        """Return what was learned, with a checksum."""
        values = {
            "models": {backend: model.save() for backend, model in self._models.items()},
            "rates": {backend: rate.save() for backend, rate in self._rates.items()},
        }
        return pack(KIND, values, {"head": self._head.save()})

    def load(self, state: bytes) -> None:
        """Take a saved state; ValueError, and no change, where it is damaged."""
        values, parts = unpack(KIND, state)
        models = {backend: UsageModel(backend, self._usual) for backend in values["models"]}
        for backend, model in models.items():
            model.load(values["models"][backend])
        # Snapshots of before there were rates have none.
        rates = {name: TokenRate.load(rate) for name, rate in values.get("rates", {}).items()}
        self._head.load(parts["head"])
        self._models, self._rates = models, rates
        self._forget()


def _plain(context: Context) -> Context:
    """Return the context without the reply in hand: what a call uses does not depend on it."""
    return Context(context.dense, context.sparse) if context.held else context
