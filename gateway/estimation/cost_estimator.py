"""Estimates what a call would cost: learned usage times the current price.

The estimator learns usage (device-seconds, tokens) and never dollars, so a new price applies to the
next request. A regression head predicts the logarithm of usage from the context. The ratio of the
mean to the exponential of that prediction, and the distance to the 95 % quantile, are learned
separately from the errors. A price with only a per-request part is fixed: nothing is learned, and
all three figures are equal.
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
    """A backend's expected charge for a call.

    ceiling: learned bound that covers 95 % of calls. maximum: certain if every part of the price is
    bounded in advance; otherwise twice the tenant's largest recent cost (`worst_seen.py`). usage:
    expected usage. known: the bounds on the usage.
    """

    expected_nano: int
    ceiling_nano: int
    maximum_nano: int
    usage: Usage = CALL
    known: Usage = CALL


@record
class _Retained:
    """A cached quote that is valid for every context until something is learned.

    Its key is the price. If the price is not fixed, the key also includes the known bounds, the
    cached share, and how far the tenant's costliest call exceeded its expected cost.
    """

    quote: Quote
    price: Price
    known: Usage | None = None
    cached: float | None = None
    worst: float = USUAL

    def holds(self, price: Price, known: Usage, cached: float | None, worst: float) -> bool:
        """Return whether the quote applies to such a call."""
        return self.price is price and (
            self.known is None
            or (self.known is known and self.cached == cached and self.worst == worst)
        )


class CostEstimator:
    """Quotes the backends of one route."""

    # The mutable state is a usage model per backend, the head that the models share, and the quotes
    # that do not depend on the context. They are cached because most quotes for model servers do
    # not depend on it.

    def __init__(self) -> None:
        # 0.2: even the logarithm of usage is heavy-tailed; at 0.5 one outlier distorts the head.
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
        """Return a backend's quote at `price`.

        `cached` is the cached share of the input, if known. `known` bounds the usage in advance:
        the greatest possible number of input tokens, and limits on output tokens or device-seconds;
        0 where nothing is known.
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
        """Learn a call's usage. Raises ValueError for usage without a price."""
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
        """Return a backend's token rates per byte and per second, for prediction and learning."""
        rate = self._rates.get(backend)
        if rate is None:
            rate = self._rates[backend] = TokenRate()
        return rate

    def longest(self, backend: str, tenant: str) -> float:
        """Return an upper bound on the tokens of nearly all of a tenant's answers."""
        return self._model(backend).longest.of(tenant)

    def answered(self, backend: str, tenant: str, tokens: float, limit: int) -> None:
        """Learn an answer's number of tokens and its limit; a limit of 0 means none."""
        self._model(backend).longest.see(tenant, tokens, limit)

    def accuracy(self) -> dict[str, Accuracy]:
        """Return each backend's quote accuracy; backends with fixed prices have none."""
        return {backend: model.accuracy for backend, model in self._models.items()}

    def keep(self, backends: Collection[str]) -> None:
        """Drop all other backends."""
        for known in (self._models, self._rates, self._kept):
            for name in known.keys() - set(backends):
                del known[name]
        self._forget()

    def _forget(self) -> None:
        """Drop cached predictions and quotes that learning has made stale."""
        self._memo = (Context(()), {})
        self._kept = {name: kept for name, kept in self._kept.items() if kept.known is None}

    def _model(self, backend: str) -> UsageModel:
        model = self._models.get(backend)
        if model is None:
            model = self._models[backend] = UsageModel(backend, self._usual)
        return model

    def _usual(self, unit: str) -> float:
        """Return the assumed usage of a unit at a backend that was never called.

        The length of an answer depends mainly on the question, so it is the mean of the other
        backends. With the prior's 500 tokens, a new arm beside arms that write 40 would look far
        too expensive, would never be called, and would never prove to be cheap. Device time depends
        on the device, so it is the prior.
        """
        if unit != "output_tokens":
            return prior(unit)
        seen = [mean for model in self._models.values() if (mean := model.mean(unit))]
        return sum(seen) / len(seen) if seen else prior(unit)

    def _logs(self, context: Context) -> dict[str, float]:
        """Return the head's predictions for all backends, computed once per context."""
        if self._memo[0] is not context:
            keys = [key for model in self._models.values() for key in model.keys]
            values = self._head.predict(_plain(context), keys) if keys else []
            self._memo = (context, dict(zip(keys, values, strict=True)))
        return self._memo[1]

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""
        values = {
            "models": {backend: model.save() for backend, model in self._models.items()},
            "rates": {backend: rate.save() for backend, rate in self._rates.items()},
        }
        return pack(KIND, values, {"head": self._head.save()})

    def load(self, state: bytes) -> None:
        """Load a saved state. Raises ValueError and changes nothing if it is damaged."""
        values, parts = unpack(KIND, state)
        models = {backend: UsageModel(backend, self._usual) for backend in values["models"]}
        for backend, model in models.items():
            model.load(values["models"][backend])
        # Snapshots that predate token rates have none.
        rates = {name: TokenRate.load(rate) for name, rate in values.get("rates", {}).items()}
        self._head.load(parts["head"])
        self._models, self._rates = models, rates
        self._forget()


def _plain(context: Context) -> Context:
    """Return the context without the reply kept so far: a call's usage does not depend on it."""
    return Context(context.dense, context.sparse) if context.held else context
