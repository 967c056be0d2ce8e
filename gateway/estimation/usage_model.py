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
SHARE_RATE = 0.05  # learning rate of a unit's share of its whole: the last twenty calls
QUANTILE = 0.95
STEP = 0.05  # step of the quantile's log: found within a hundred calls, then within a few percent
MARGIN_MAX = 20.0
SURE_CALLS = 200  # calls needed to judge whether the context predicts usage
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


def prior(unit: str) -> float:
    """Return the assumed usage of a unit if nothing is known."""
    return float(getattr(PRIOR, unit))


class UsageModel:
    """Model of the device-seconds and the input and output tokens of one backend's calls."""

    # The mutable state is, per unit, the first usage seen, a mean correction, the mean logarithm,
    # and the errors of the head and of that mean; and the cached share, the margin of the ceiling,
    # the largest ratios of cost to expected cost, the longest answers, and the accuracy.

    def __init__(self, backend: str, usual: Callable[[str], float] = prior) -> None:
        """`usual` returns a unit's assumed usage before any call was seen here."""
        self._usual = usual
        self._units = {"device_s": f"{backend}/device_s", "output_tokens": f"{backend}/output"}
        self._first: dict[str, float] = {}
        self._actual: dict[str, float] = {}
        self._guessed: dict[str, float] = {}
        self._mean_log: dict[str, float] = {}
        self._head_error: dict[str, float] = {}
        self._mean_error: dict[str, float] = {}
        self._input = 0.0
        self._input_share = SHARE
        self._inputs = 0
        self._cached = 0.0
        self._shares: dict[str, float] = {}
        self._log_margin = math.log(4.0)
        self.worst = Worst()
        self.longest = Longest()
        self.accuracy = Accuracy()

    @property
    def keys(self) -> tuple[str, ...]:
        """The head's keys for the units of this backend that the context helps to predict."""
        return tuple([self._units[unit] for unit in self._first if self._pays(unit)])

    def _pays(self, unit: str) -> bool:
        if self.accuracy.calls < SURE_CALLS:
            return True
        return self._head_error.get(unit, 0.0) < PAYS * self._mean_error.get(unit, 1.0)

    def mean(self, unit: str) -> float | None:
        """Return the recent mean usage of a unit; None if none was seen."""
        return self._actual.get(unit)

    @property
    def margin(self) -> float:
        """Ratio of the ceiling to the expected cost."""
        return math.exp(self._log_margin)

    def expected(
        self, logs: Mapping[str, float], known: Usage, cached: float | None = None
    ) -> Usage:
        """Return the expected usage. `logs` holds the head's predictions for `keys`.

        `cached` is the cached share of the input, if known; None uses the mean share.
        """
        if known.input_tokens:
            inputs = known.input_tokens * self._input_share
        else:
            inputs = self._input or PRIOR.input_tokens
        expected = Usage(
            calls=known.calls,
            device_s=self._expected("device_s", logs, known.device_s),
            input_tokens=inputs,
            cached_input_tokens=inputs * min(1.0, self._cached if cached is None else cached),
            output_tokens=self._expected("output_tokens", logs, known.output_tokens),
            exact=False,
            more=known.more,
        )
        return replace(expected, more=self._details(expected, known)) if self._shares else expected

    def _details(self, expected: Usage, known: Usage) -> Details:
        """Return the additional units of an expected usage, from their mean shares."""
        left = {
            "input_tokens": expected.input_tokens - expected.cached_input_tokens,
            "output_tokens": expected.output_tokens,
        }
        told = dict(known.units)
        for unit, share in self._shares.items():
            whole = BY_NAME[unit].part_of
            if whole:
                told[unit] = min(share * float(getattr(expected, whole)), left[whole])
                left[whole] -= told[unit]
            else:
                told.setdefault(unit, share)
        return Details(
            tuple(told.items()), service_tier=known.more.service_tier if known.more else ""
        )

    def _expected(self, unit: str, logs: Mapping[str, float], bound: float) -> float:
        first = self._first.get(unit)
        if first is None:
            value = self._usual(unit)
        else:
            value = _guess(first, logs.get(self._units[unit], self._mean_log[unit]))
            value *= self._actual[unit] / self._guessed[unit]
        return min(value, bound) if bound else float(value)

    def bounds(
        self, expected: Usage, price: Price, known: Usage, worst: float = USUAL
    ) -> tuple[bool, int]:
        """Return whether a call's maximum cost is certain, and that cost.

        `worst`: the largest ratio of cost to expected cost among such calls.
        """
        certain = (
            (not price.per_device_s_nano or known.device_s > 0)
            and (not price.input_token_nano or known.input_tokens > 0)
            and (not price.output_token_nano or known.output_tokens > 0)
            and (not price.more or self._bounds_more(price, known))
        )
        price = price.most
        if certain:
            if known.cached_input_tokens:
                known = replace(known, cached_input_tokens=0.0)
            return True, price.foreseen_nano(known)
        if not self.accuracy.calls:
            # Other backends' answers indicate the expected length here, but not the maximum.
            most = max(expected.output_tokens, PRIOR.output_tokens)
            expected = replace(expected, output_tokens=most)
        return False, min(MAX_NANO - 1, math.ceil(price.foreseen_nano(expected) * 2.0 * worst))

    def _bounds_more(self, price: Price, known: Usage) -> bool:
        """Return whether the known bounds cover the units that are not tokens.

        A request whose whole input was sent has no tool that the provider runs. Such calls make no
        searches, unless earlier calls showed that the model searches on its own.
        """
        told = dict(known.units).keys()
        searches = known.input_tokens > 0 and not self._shares.get("searches")
        return all(unit in told or (unit == "searches" and searches) for unit in price.standalone)

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
        for unit in self._units:
            used = float(getattr(usage, unit))
            if used > LEAST:
                self._learn(unit, used, logs, teach)

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
        unit: str,
        used: float,
        logs: Mapping[str, float],
        teach: Callable[[str, float], float],
    ) -> None:
        key, first = self._units[unit], self._first.setdefault(unit, used)
        log = min(max(math.log(used / first), -LOG_MAX), LOG_MAX)
        mean_log = self._mean_log.get(unit, 0.0)
        guess = _guess(first, logs.get(key, mean_log))
        self._actual[unit] = _mean(self._actual.get(unit), used)
        self._guessed[unit] = _mean(self._guessed.get(unit), guess)
        if not self._pays(unit) and self.accuracy.calls % REST:
            return
        said = teach(key, log)
        self._head_error[unit] = _mean(self._head_error.get(unit), (said - log) ** 2)
        self._mean_error[unit] = _mean(self._mean_error.get(unit), (mean_log - log) ** 2)
        self._mean_log[unit] = _mean(self._mean_log.get(unit), log)

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
        self._log_margin = min(max(self._log_margin, 0.0), math.log(MARGIN_MAX))
        was = self.accuracy
        calls = was.calls + 1
        rate = max(RATE, 1.0 / calls)
        covered = float(cost_nano <= ceiling_nano)
        error = abs(expected_nano - cost_nano) / cost_nano
        self.accuracy = Accuracy(
            calls,
            was.coverage + rate * (covered - was.coverage),
            was.relative_error + rate * (error - was.relative_error),
        )

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {
            "units": [getattr(self, table) for table in _TABLES],
            "input": self._input,
            "input_share": self._input_share,
            "inputs": self._inputs,
            "cached": self._cached,
            "shares": self._shares,
            "log_margin": self._log_margin,
            "worst": self.worst.save(),
            "longest": self.longest.save(),
            "calls": self.accuracy.calls,
            "coverage": self.accuracy.coverage,
            "relative_error": self.accuracy.relative_error,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        for table, values in zip(_TABLES, state["units"], strict=True):
            setattr(self, table, {str(unit): float(value) for unit, value in values.items()})
        self._input, self._cached = float(state["input"]), float(state["cached"])
        # Snapshots that predate additional units have no shares.
        shares = state.get("shares", {})
        self._shares = {unit: float(shares[unit]) for unit in shares if unit in BY_NAME}
        self._input_share, self._inputs = float(state["input_share"]), int(state["inputs"])
        self._log_margin = float(state["log_margin"])
        self.worst.load(state["worst"])
        self.longest.load(state.get("longest", {}))  # older snapshots have none
        self.accuracy = Accuracy(
            int(state["calls"]), float(state["coverage"]), float(state["relative_error"])
        )


_TABLES = ("_first", "_actual", "_guessed", "_mean_log", "_head_error", "_mean_error")


def _guess(first: float, log: float) -> float:
    return first * math.exp(min(max(log, -LOG_MAX), LOG_MAX))


def _mean(before: float | None, value: float) -> float:
    # The first value is taken in full; later values move the mean by a fiftieth of the difference.
    return value if before is None else before + 0.02 * (value - before)
