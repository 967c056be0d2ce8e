"""Estimates what a call would cost: learned usage times the current price.

The estimator learns usage (device-seconds, tokens) and never dollars, so a new price applies to the
next request. A regression head predicts the logarithm of usage from the context. The ratio of the
mean to the exponential of that prediction, and the distance to the 95 % quantile, are learned
separately from the errors. A price with only a per-request part is fixed: nothing is learned, and
all three figures are equal.

An estimate starts at the first quote, and no single call moves it far. A backend that is not called
is expected to cost a little less with each request, within the uncertainty of its estimate:
otherwise an estimate that is too high would never be corrected, because no call would follow.

What one tenant's calls use must not become what others are quoted. So each tenant has usage models
of its own, once there are two tenants. They start as copies of the common ones, which learn from
all calls and quote for tenants that are new. The regression head is common to all, and each model
corrects its mean.
"""

import asyncio
import math
from collections.abc import Callable, Collection
from functools import partial

from tollway.backends.pricing import Price
from tollway.backends.types import Usage
from tollway.gateway.estimation.token_rate import TokenRate
from tollway.gateway.estimation.usage_model import Accuracy, UsageModel, prior
from tollway.policies.regressors.types import Regressor
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import Context
from tollway.record import record

KIND = "estimator 3"
TENANTS_MAX = 1000  # with models of their own, some kilobytes for each backend; beyond, common ones
CALL = Usage()
NO_MEMO: tuple[Context, dict[str, float]] = (Context(()), {})


@record
class Quote:
    """A backend's expected charge for a call.

    ceiling: learned bound that covers 95 % of calls. maximum: certain if every part of the price is
    bounded in advance; otherwise twice the tenant's largest recent cost (`worst_seen.py`). usage:
    expected usage. known: the bounds on the usage. relief: the factor, at most 1, by which
    `expected_nano` is below the cost of `usage`, because the backend was not called lately.
    """

    expected_nano: int
    ceiling_nano: int
    maximum_nano: int
    usage: Usage = CALL
    known: Usage = CALL
    relief: float = 1.0


def fixed_quote(price: Price) -> Quote:
    """Return the quote of every call at a price with only a per-request part."""
    return Quote(price.call_nano, price.call_nano, price.most.cost_nano(CALL))


@record
class _Retained:
    """A cached quote that is valid for every context until something is learned.

    Its key is the model, the price, the known bounds, the cached share, and how far the tenant's
    costliest call exceeded its expected cost.
    """

    quote: Quote
    model: UsageModel
    price: Price
    known: Usage
    cached: float | None
    worst: float


@record
class _Observed:
    """A call whose usage is to be learned."""

    context: Context
    backend: str
    quote: Quote
    usage: Usage
    cost_nano: int
    tenant: str
    now_s: float


class CostEstimator:
    """Quotes the backends of one route."""

    # The mutable state is a usage model per backend, and one per backend and tenant; the tenants
    # seen; the head that the models share (None until one of them learns); the calls observed but
    # not learned yet; the number of calls learned; and the quotes that do not depend on the
    # context. They are cached because most quotes for model servers do not depend on it.

    def __init__(self) -> None:
        self._head: Regressor | None = None
        self._models = _Models()
        self._own: dict[tuple[str, str], UsageModel] = {}
        self._tenants: set[str] = set()
        self._retained: dict[str, _Retained] = {}
        self._rates: dict[str, TokenRate] = {}
        self._memo = NO_MEMO
        self._observed: list[_Observed] = []
        self._learned = 0
        self._soon: Callable[[Callable[[], None]], object] | None = None

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
        if price.is_fixed:
            return fixed_quote(price)
        model = self._models[backend]
        worst = model.worst.of(tenant, now_s)
        if self._own:
            model = self._own.get((backend, tenant), model)
        # A request that bounds its input has its own quote.
        retained = None if known.input_tokens else self._retained.get(backend)
        if (
            retained is not None
            and retained.model is model
            and retained.price is price
            and retained.known is known
            and retained.cached == cached
            and retained.worst == worst
        ):
            return retained.quote
        memo, logs = self._memo
        if memo is not context:
            logs = self._logs(context)
        expected = model.expected(logs, known, cached)
        expected_nano = price.foreseen_nano(expected)
        certain, maximum = model.bounds(expected, expected_nano, price, known, worst)
        if maximum < expected_nano:
            if certain:
                expected_nano = maximum
            else:
                maximum = expected_nano
        # A margin is at least 1.
        ceiling_nano = min(math.ceil(expected_nano * model.margin), maximum)
        idle = self._learned - model.called_at
        relief = model.relief(idle) if idle else 1.0
        if relief < 1.0:
            expected_nano = math.ceil(expected_nano * relief)
        quote = Quote(expected_nano, ceiling_nano, maximum, expected, known, relief)
        if not (logs or known.input_tokens):
            self._retained[backend] = _Retained(quote, model, price, known, cached, worst)
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
        """Learn a call's usage: at once, or after this iteration of the event loop.

        Raises ValueError for usage without a price.
        """
        if price.is_fixed:
            return
        cost_nano = price.cost_nano(usage)
        self._observed.append(_Observed(context, backend, quote, usage, cost_nano, tenant, now_s))
        if self._soon is None:
            self.flush()
        elif len(self._observed) == 1:
            self._soon(self.flush)

    def learn_in_turns(self, *, varies: bool = False) -> None:
        """From now on, learn once per iteration of the running event loop, off the requests.

        `varies`: there are prices that depend on usage. Their head is loaded now, because that
        would hold up the loop for 15 ms when the first call ends.
        """
        self._soon = asyncio.get_running_loop().call_soon
        if varies:
            self._learning_head()

    def flush(self) -> None:
        """Learn what was observed: 8 us a call; 25 us more for a unit that the head learns."""
        observed, self._observed = self._observed, []
        for one in observed:
            self._learned += 1
            own = self._own_model(one.backend, one.tenant)
            model, said = self._models[one.backend], dict[str, float]()
            logs = self._logs(one.context) if model.keys else {}  # the head takes 10 us
            _learn(model, one, logs, partial(self._teach, one.context, said))
            model.called_at = self._learned
            if own is not None:  # the head has learned this call
                _learn(own, one, logs, partial(_said, said))
                own.called_at = self._learned
            self._forget()

    def _own_model(self, backend: str, tenant: str) -> UsageModel | None:
        """Return a tenant's own model; None as long as there is but one tenant, or too many."""
        if tenant not in self._tenants and len(self._tenants) < TENANTS_MAX:
            self._tenants.add(tenant)
            if len(self._tenants) == 2:  # the other one's calls are all that the models know
                for name in self._models:
                    for known in self._tenants - {tenant}:
                        self._own[name, known] = self._copy(name)
        if len(self._tenants) < 2 or tenant not in self._tenants:
            return None
        if (backend, tenant) not in self._own:
            self._own[backend, tenant] = self._copy(backend)
        return self._own[backend, tenant]

    def _copy(self, backend: str) -> UsageModel:
        """Return a copy of a backend's common model."""
        copy = UsageModel(backend, self._models.usual)
        copy.load(self._models[backend].save())
        return copy

    def rate(self, backend: str) -> TokenRate:
        """Return a backend's token rates per byte and per second, for prediction and learning."""
        rate = self._rates.get(backend)
        if rate is None:
            rate = self._rates[backend] = TokenRate()
        return rate

    def longest(self, backend: str, tenant: str) -> float:
        """Return an upper bound on the tokens of nearly all of a tenant's answers."""
        return self._models[backend].longest.of(tenant)

    def answered(self, backend: str, tenant: str, tokens: float, limit: int) -> None:
        """Learn an answer's number of tokens and its limit; a limit of 0 means none."""
        self._models[backend].longest.see(tenant, tokens, limit)

    def accuracy(self) -> dict[str, Accuracy]:
        """Return each backend's quote accuracy; backends with fixed prices have none."""
        self.flush()
        return {backend: model.accuracy for backend, model in self._models.items()}

    def keep(self, backends: Collection[str]) -> None:
        """Drop all other backends."""
        for known in (self._models, self._rates, self._retained):
            for name in known.keys() - set(backends):
                del known[name]
        self._own = {key: model for key, model in self._own.items() if key[0] in backends}
        self._forget()

    def _forget(self) -> None:
        """Drop cached predictions and quotes that learning has made stale."""
        self._memo = NO_MEMO
        self._retained.clear()

    def _learning_head(self) -> Regressor:
        if self._head is None:
            self._head = _new_head()
        return self._head

    def _teach(self, context: Context, said: dict[str, float], key: str, log: float) -> float:
        """Make the head learn a key's logarithm; return and note what it predicted before."""
        said[key] = before = self._learning_head().learn(_plain(context), key, log)
        return before

    def _logs(self, context: Context) -> dict[str, float]:
        """Return the head's predictions for all backends, computed once per context."""
        if self._memo[0] is not context:
            keys: list[str] = []
            for model in self._models.values():
                keys += model.keys
            values = self._learning_head().predict(_plain(context), keys) if keys else []
            self._memo = (context, dict(zip(keys, values, strict=True)))
        return self._memo[1]

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""
        self.flush()
        values = {
            "models": {backend: model.save() for backend, model in self._models.items()},
            "own": [[*key, model.save()] for key, model in self._own.items()],
            "tenants": sorted(self._tenants),
            "learned": self._learned,
            "rates": {backend: rate.save() for backend, rate in self._rates.items()},
        }
        return pack(KIND, values, {"head": self._head.save()} if self._head else {})

    def load(self, state: bytes) -> None:
        """Load a saved state. Raises ValueError and changes nothing if it is damaged."""
        values, parts = unpack(KIND, state)
        models = _Models()
        for backend, saved in values["models"].items():
            models[backend].load(saved)
        # Snapshots that predate models of tenants have none.
        own: dict[tuple[str, str], UsageModel] = {}
        for backend, tenant, saved in values.get("own", ()):
            own[backend, tenant] = model = UsageModel(backend, models.usual)
            model.load(saved)
        # Snapshots that predate token rates have none.
        rates = {name: TokenRate.load(rate) for name, rate in values.get("rates", {}).items()}
        head = None
        if "head" in parts:
            head = _new_head()
            head.load(parts["head"])
        self._head, self._models, self._rates = head, models, rates
        self._learned = int(values.get("learned", 0))
        self._own, self._tenants = own, set(values.get("tenants", ()))
        self._forget()


class _Models(dict[str, UsageModel]):
    """The usage models by backend, created when first used."""

    def __missing__(self, backend: str) -> UsageModel:
        model = self[backend] = UsageModel(backend, self.usual)
        return model

    def usual(self) -> float:
        """Return the assumed output tokens of a call to a backend that was never called.

        The length of an answer depends mainly on the question, so it is the mean of the other
        backends. With the prior's 500 tokens, a new arm beside arms that write 40 would look far
        too expensive, would never be called, and would never prove to be cheap.
        """
        seen = [mean for model in self.values() if (mean := model.output_tokens)]
        return sum(seen) / len(seen) if seen else prior()


def _learn(
    model: UsageModel,
    one: _Observed,
    logs: dict[str, float],
    teach: Callable[[str, float], float],
) -> None:
    model.learn(logs, one.usage, one.quote.known, teach)
    model.judge(
        int(one.quote.expected_nano / one.quote.relief),
        one.quote.ceiling_nano,
        one.cost_nano,
        tenant=one.tenant,
        now_s=one.now_s,
    )


def _said(said: dict[str, float], key: str, log: float) -> float:
    """Return what the head predicted before it learned a call; if it did not, the truth."""
    return said.get(key, log)


def _new_head() -> Regressor:
    # Imported when a model first learns: the library and its weights take 16 MB.
    from tollway.policies.regressors.vowpal import VowpalRegressor  # noqa: PLC0415

    # 0.2: even the logarithm of usage is heavy-tailed; at 0.5 one outlier distorts the head.
    return VowpalRegressor(learning_rate=0.2)


def _plain(context: Context) -> Context:
    """Return the context without the reply kept so far: a call's usage does not depend on it."""
    return Context(context.dense, context.sparse) if context.held else context
