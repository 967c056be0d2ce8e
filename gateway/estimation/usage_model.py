"""Usage of one backend's calls; each unit is learned as the log of its ratio to the first value."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tollway.backends.pricing import MAX_NANO, Price
from tollway.backends.types import Details, Usage
from tollway.backends.units import BY_NAME
from tollway.gateway.estimation.longest_answers import Longest
from tollway.gateway.estimation.worst_seen import USUAL, Worst

PRIOR = Usage(device_s=1.0, input_tokens=500.0, output_tokens=500.0)
"""Assumed usage of a call before any was seen, within its bounds."""

SHARE = 0.3  # prior share of the greatest possible input tokens: a token is three or four bytes
RATE = 0.01  # learning rate of the mean corrections: about the last hundred calls
MEAN_RATE = 0.02  # of the means of a unit and of its errors
PSEUDO_CALLS = 5  # calls that the first quote counts for
OUTLIER = 4.0  # a call counts as at most this multiple of its expectation
DOUBT_MAX = math.log(OUTLIER)
DOUBT_KEPT = 0.9  # of the doubt after an outlier, per further call
SPREAD = 1.2  # assumed deviation of a logarithm while it is unknown
RELIEF_RATE = 0.03  # logarithm that each request without a call takes off a quote
SHARE_RATE = 0.05  # learning rate of a unit's share of its whole: the last twenty calls
QUANTILE = 0.95
STEP = 0.05  # step of the quantile's log: found within a hundred calls, then within a few percent
LOG_MARGIN_MAX = math.log(20.0)
SURE_CALLS = 200  # calls needed to judge whether the context predicts usage
TRIED_CALLS = 100  # of a unit, after which the head is asked only where it has been better
PAYS = 0.95  # greatest share of the mean's squared error at which the head is worth its 15 us
REST = 16  # a head that does not pay learns one call in 16, to be ready when that changes
LEAST = 1e-9  # smallest usage; with COUNT_MAX above it, every ratio of two usages is finite
LOG_MAX = 8.0  # e^8: beyond three thousand times the usual, a regression extrapolates wildly


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of a backend's quotes.

    calls: number of calls evaluated. coverage: share at or below the ceiling. relative_error: mean
    of |expected - cost| / cost over about the last hundred calls.
    """

    calls: int = 0
    coverage: float = 1.0
    relative_error: float = 0.0


# As saved, in this order.
_TABLES = ("first", "actual", "guessed", "mean_log", "head_error", "mean_error", "count", "doubt")


def prior() -> float:
    """Return the assumed output tokens of a call if nothing is known."""
    return PRIOR.output_tokens


class _Unit:
    """One unit of usage, learned as the logarithm of its ratio to the first usage seen."""

    __slots__ = (*_TABLES, "is_helped", "key", "middle", "name", "plain")

    # The mutable state: the usage that ratios are taken to (0: none was seen), the mean usage and
    # the mean guess, the mean logarithm, the errors of the head and of that mean (None before the
    # head has learned), how many calls the means rest on, and how far the last outliers may have
    # raised them, as a logarithm.
    # Derived of these by `settle`: the usage at the mean logarithm, what is expected without the
    # head, and whether the context helps to predict it, as far as is known.

    def __init__(self, name: str, key: str, plain: float = 0.0) -> None:
        """`key` is the head's; `plain` is expected before any usage was seen."""
        self.name, self.key, self.plain = name, key, plain
        self.first = self.actual = self.guessed = self.mean_log = self.middle = 0.0
        self.count = self.doubt = 0.0
        self.head_error: float | None = None
        self.mean_error: float | None = None
        self.is_helped = True

    def settle(self) -> None:
        """Compute what is derived of the state."""
        self.middle = self.at(self.mean_log)
        self.plain = self.middle * (self.actual / self.guessed)
        if self.head_error is not None and self.mean_error is not None:
            self.is_helped = self.head_error < PAYS * self.mean_error

    def begin(self, usage: float, count: float) -> None:
        """Take a usage as the mean of `count` calls."""
        self.first = self.actual = self.guessed = usage
        self.mean_log, self.count = 0.0, count
        self.settle()

    def uncertainty(self) -> float:
        """Return how far the estimate may be too high, as a logarithm.

        Two standard errors, or as much as an outlier may have raised it.
        """
        if not self.count:
            return 0.0
        young = self.count < 2 * PSEUDO_CALLS or self.mean_error is None
        spread = SPREAD if young else math.sqrt(self.mean_error or 0.0)
        return max(2.0 * spread / math.sqrt(min(self.count, 1.0 / MEAN_RATE)), self.doubt)

    def at(self, log: float) -> float:
        """Return the usage at a logarithm."""
        if not -LOG_MAX <= log <= LOG_MAX:
            log = LOG_MAX if log > 0 else -LOG_MAX
        return self.first * math.exp(log)

    def expected(self, logs: Mapping[str, float]) -> float:
        """Return the expected usage, given the head's predictions.

        The head may know a unit that this model has not seen: that of another tenant's calls.
        """
        log = logs.get(self.key)
        if log is None or not self.first:
            return self.plain
        return self.at(log) * (self.actual / self.guessed)


class UsageModel:
    """Model of the device-seconds and the input and output tokens of one backend's calls.

    `keys`: the head's keys for the units of this backend that the context helps to predict.
    `margin`: the ratio of the ceiling to the expected cost. `called_at`: the number of calls to all
    backends that were learned up to the last one of this backend, set by the estimator.
    """

    # The mutable state is that of the units; and the cached share, the margin of the ceiling, the
    # largest ratios of cost to expected cost, the longest answers, the accuracy, and the last call.
    # Derived: the uncertainty of the estimate.

    def __init__(self, backend: str, usual: Callable[[], float] = prior) -> None:
        """`usual` returns the assumed output tokens before any call was seen here."""
        self._usual = usual
        self._device = _Unit("device_s", f"{backend}/device_s", PRIOR.device_s)
        self._output = _Unit("output_tokens", f"{backend}/output")
        self._units = self._device, self._output
        self.keys: list[str] = []
        self._input = 0.0
        self._input_share = SHARE
        self._inputs = 0
        self._cached = 0.0
        self._shares: dict[str, float] = {}
        self._log_margin = math.log(4.0)
        self.margin = math.exp(self._log_margin)
        self.called_at = 0
        self._uncertainty = 0.0
        self.worst = Worst()
        self.longest = Longest()
        self._calls = 0
        self._coverage = 1.0
        self._relative_error = 0.0

    @property
    def accuracy(self) -> Accuracy:
        """The accuracy of the quotes."""
        return Accuracy(self._calls, self._coverage, self._relative_error)

    def _choose_keys(self) -> None:
        self.keys = [
            unit.key
            for unit in self._units
            if unit.first and (unit.is_helped or unit.count < TRIED_CALLS)
        ]

    @property
    def output_tokens(self) -> float:
        """The recent mean of the output tokens; 0 if none were seen."""
        return self._output.actual

    def expected(
        self, logs: Mapping[str, float], known: Usage, cached: float | None = None
    ) -> Usage:
        """Return the expected usage. `logs` holds the head's predictions for `keys`.

        `cached` is the cached share of the input, if known; None uses the mean share.
        """
        inputs, output = known.input_tokens, self._output
        inputs = inputs * self._input_share if inputs else self._input or PRIOR.input_tokens
        share = self._cached if cached is None else cached
        device_s, tokens = self._device.plain, output.plain or self._usual()
        if logs:
            device_s = self._device.expected(logs)
            tokens = output.expected(logs) or tokens
        if 0.0 < known.device_s < device_s:
            device_s = known.device_s
        if 0.0 < known.output_tokens < tokens:
            tokens = known.output_tokens
        cached_inputs = inputs * share if share < 1.0 else inputs
        # By position: names take as long again.
        expected = Usage(known.calls, device_s, inputs, cached_inputs, tokens, False, known.more)
        return replace(expected, more=self._details(expected, known)) if self._shares else expected

    def relief(self, idle: int) -> float:
        """Return the factor on the expected cost after `idle` requests without a call (0.3 us).

        An estimate that a few expensive calls have raised would never be corrected if no call
        followed. So an unused backend is quoted lower by 3 % per request, within the uncertainty of
        its estimate.
        """
        lower = RELIEF_RATE * idle
        return math.exp(-lower if lower < self._uncertainty else -self._uncertainty)

    def _details(self, expected: Usage, known: Usage) -> Details:
        """Return the additional units of an expected usage, from their mean shares."""
        left = {
            "input_tokens": expected.input_tokens - expected.cached_input_tokens,
            "output_tokens": expected.output_tokens,
        }
        units = dict(known.units)
        for unit, share in self._shares.items():
            whole = BY_NAME[unit].part_of
            if whole:
                units[unit] = min(share * float(getattr(expected, whole)), left[whole])
                left[whole] -= units[unit]
            else:
                units.setdefault(unit, share)
        return Details(
            tuple(units.items()), service_tier=known.more.service_tier if known.more else ""
        )

    def bounds(
        self,
        expected: Usage,
        expected_nano: int,
        price: Price,
        known: Usage,
        worst: float = USUAL,
    ) -> tuple[bool, int]:
        """Return whether a call's maximum cost is certain, and that cost.

        `expected_nano`: the cost of the expected usage. `worst`: the largest ratio of cost to
        expected cost among such calls.
        """
        certain = (
            (not price.per_device_s_nano or known.device_s > 0)
            and (not price.input_token_nano or known.input_tokens > 0)
            and (not price.output_token_nano or known.output_tokens > 0)
            and (not price.more or self._bounds_more(price, known))
        )
        if certain:
            if known.cached_input_tokens:
                known = replace(known, cached_input_tokens=0.0)
            return True, price.most.foreseen_nano(known)
        if not self._calls:
            # Other backends' answers indicate the expected length here, but not the maximum.
            most = max(expected.output_tokens, PRIOR.output_tokens)
            expected_nano = price.most.foreseen_nano(expected, most)
        elif price.most is not price:
            expected_nano = price.most.foreseen_nano(expected)
        maximum = math.ceil(expected_nano * 2.0 * worst)
        return False, maximum if maximum < MAX_NANO else MAX_NANO - 1

    def _bounds_more(self, price: Price, known: Usage) -> bool:
        """Return whether the known bounds cover the units that are not tokens.

        A request whose whole input was sent has no tool that the provider runs. Such calls make no
        searches, unless earlier calls showed that the model searches on its own.
        """
        units = dict(known.units).keys()
        searches = known.input_tokens > 0 and not self._shares.get("searches")
        return all(unit in units or (unit == "searches" and searches) for unit in price.standalone)

    def learn(
        self,
        logs: Mapping[str, float],
        usage: Usage,
        known: Usage,
        teach: Callable[[str, float], float],
    ) -> None:
        """Learn a call's usage, given the bounds that were known.

        `teach` makes the head learn a key's logarithm and returns its previous prediction.
        """
        if usage.input_tokens > 0:
            before = self._input or usage.input_tokens
            self._input = before + RATE * (usage.input_tokens - before)
            if known.input_tokens:
                self._inputs += 1
                ratio = min(1.0, usage.input_tokens / known.input_tokens)
                self._input_share += max(RATE, 1 / self._inputs) * (ratio - self._input_share)
            share = usage.cached_input_tokens / usage.input_tokens
            self._cached += RATE * (share - self._cached)
        if usage.more is not None or self._shares:
            self._learn_shares(usage)
        if usage.device_s > LEAST:
            # The assumed second is no list price: the first call says more.
            self._learn(self._device, float(usage.device_s), logs, teach, 0.0)
        if usage.output_tokens > LEAST:
            begin = 0.0 if self._output.first else self._usual()
            self._learn(self._output, float(usage.output_tokens), logs, teach, begin)
        self._doubt()

    def _doubt(self) -> None:
        self._uncertainty = max(self._device.uncertainty(), self._output.uncertainty())

    def _learn_shares(self, usage: Usage) -> None:
        """Learn each additional unit's share of its whole, or its count if it has no whole."""
        used = dict(usage.units)
        for unit in self._shares.keys() | used.keys():
            whole = BY_NAME[unit].part_of
            over = float(getattr(usage, whole)) if whole else 1.0
            if over > 0:
                share = used.get(unit, 0.0) / over
                before = self._shares.get(unit, 0.0)
                self._shares[unit] = before + SHARE_RATE * (share - before)

    def _learn(
        self,
        unit: _Unit,
        used: float,
        logs: Mapping[str, float],
        teach: Callable[[str, float], float],
        begin: float,
    ) -> None:
        if not unit.first:
            self._begin(unit, used, begin)
        expected = unit.expected(logs)
        if unit.count < PSEUDO_CALLS and used * OUTLIER < expected:
            unit.begin(used, 0.0)  # the calls before were the outliers
            expected = used
        # One call says little about the mean of the others, however expensive it was. A second in
        # succession is no outlier: usage, or an unannounced price, has risen.
        above = used > OUTLIER * expected
        outlier = above and unit.doubt < DOUBT_MAX
        if outlier:
            used = OUTLIER * expected
        unit.doubt = DOUBT_MAX if above else unit.doubt * DOUBT_KEPT
        guess = unit.at(logs[unit.key]) if unit.key in logs else unit.middle
        unit.count += 1.0
        rate = max(MEAN_RATE, 1.0 / unit.count)
        unit.actual += rate * (used - unit.actual)
        unit.guessed += rate * (guess - unit.guessed)
        log = min(max(math.log(used / unit.first), -LOG_MAX), LOG_MAX)
        if outlier:
            unit.mean_log += rate * (log - unit.mean_log)
            unit.settle()
            self._choose_keys()
        elif self._calls < SURE_CALLS or not self._calls % REST or unit.is_helped:
            error, mean_log = teach(unit.key, log), unit.mean_log
            unit.head_error = _mean(unit.head_error, (error - log) ** 2)
            unit.mean_error = _mean(unit.mean_error, (mean_log - log) ** 2)
            unit.mean_log += rate * (log - mean_log)
            unit.settle()
            self._choose_keys()
        else:
            unit.plain = unit.middle * (unit.actual / unit.guessed)
            if unit.count <= TRIED_CALLS:  # a unit that not every call uses may be tried late
                self._choose_keys()

    def _begin(self, unit: _Unit, used: float, quoted: float) -> None:
        """Start a unit's means at its first call: at the quote, if there was one below the usage.

        Too low an estimate is corrected by the calls that follow it, too high a one by none.
        """
        if 0.0 < quoted < used:
            unit.begin(quoted, float(PSEUDO_CALLS))
        else:
            unit.begin(used, 0.0)

    def judge(
        self,
        expected_nano: int,
        ceiling_nano: int,
        cost_nano: int,
        *,
        tenant: str = "",
        now_s: float = 0.0,
    ) -> None:
        """Learn the ceiling and the accuracy from a call's final cost."""
        if cost_nano <= 0 or expected_nano <= 0:
            return
        ratio = cost_nano / expected_nano
        self.worst.see(tenant, ratio, now_s)
        # Robbins and Monro: the steps balance when 5 % of the calls exceed the ceiling.
        above = math.log(ratio) > self._log_margin
        self._log_margin += STEP * (QUANTILE if above else QUANTILE - 1.0)
        self._log_margin = min(max(self._log_margin, 0.0), LOG_MARGIN_MAX)
        self.margin = math.exp(self._log_margin)
        self._calls += 1
        if self._calls == SURE_CALLS:
            self._choose_keys()
        rate = max(RATE, 1.0 / self._calls)
        self._coverage += rate * ((cost_nano <= ceiling_nano) - self._coverage)
        error = abs(expected_nano - cost_nano) / cost_nano
        self._relative_error += rate * (error - self._relative_error)

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {
            "units": [
                {
                    unit.name: value
                    for unit in self._units
                    if unit.first and (value := getattr(unit, table)) is not None
                }
                for table in _TABLES
            ],
            "input": self._input,
            "input_share": self._input_share,
            "inputs": self._inputs,
            "cached": self._cached,
            "shares": self._shares,
            "log_margin": self._log_margin,
            "worst": self.worst.save(),
            "longest": self.longest.save(),
            "calls": self._calls,
            "called_at": self.called_at,
            "coverage": self._coverage,
            "relative_error": self._relative_error,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        for table, values in zip(_TABLES, state["units"], strict=False):
            for unit in self._units:
                if unit.name in values:
                    setattr(unit, table, float(values[unit.name]))
        if len(state["units"]) <= _TABLES.index("count"):  # an older snapshot: count many calls
            for unit in self._units:
                unit.count = 1.0 / MEAN_RATE if unit.first else 0.0
        self._input, self._cached = float(state["input"]), float(state["cached"])
        # Snapshots that predate additional units have no shares.
        shares = state.get("shares", {})
        self._shares = {unit: float(shares[unit]) for unit in shares if unit in BY_NAME}
        self._input_share, self._inputs = float(state["input_share"]), int(state["inputs"])
        self._log_margin = float(state["log_margin"])
        self.margin = math.exp(self._log_margin)
        self.worst.load(state["worst"])
        self.longest.load(state.get("longest", {}))  # older snapshots have none
        self._calls, self._coverage = int(state["calls"]), float(state["coverage"])
        self._relative_error = float(state["relative_error"])
        self.called_at = int(state.get("called_at", 0))
        for unit in self._units:
            if unit.first:
                unit.settle()
        self._doubt()
        self._choose_keys()


def _mean(before: float | None, value: float) -> float:
    return value if before is None else before + MEAN_RATE * (value - before)
