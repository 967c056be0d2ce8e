"""What one backend's calls use: units learned as logarithms of their ratio to the first seen."""

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
"""What a call is taken to use before any was seen, within its bounds."""

SHARE = 0.3  # of the most input tokens that a request can be: a token is three or four bytes
RATE = 0.01  # of the mean corrections: about the last hundred calls
SHARE_RATE = 0.05  # of a unit's share of its whole: the last twenty calls
QUANTILE = 0.95
STEP = 0.05  # of the quantile's logarithm: found within a hundred calls, then within a few percent
MARGIN_MAX = 20.0
SURE_CALLS = 200  # before that nobody can say whether a context tells what a call will use
PAYS = 0.95  # of the mean's squared error: a head that is no better than that is not worth 15 us
REST = 16  # calls from which a head that does not pay learns one, to be there when that changes
LEAST = 1e-9  # of a unit; with COUNT_MAX above it every ratio of two usages is a finite number
LOG_MAX = 8.0  # e^8: beyond three thousand times the usual a regression is extrapolating wildly


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How good a backend's quotes were.

    calls: how many were judged. coverage: the share at or below its ceiling. relative_error: the
    mean of |expected - cost| / cost, over about the last hundred.
    """

    calls: int = 0
    coverage: float = 1.0
    relative_error: float = 0.0


def prior(unit: str) -> float:
    """Return what a call is taken to use of a unit where nothing is known."""
    return float(getattr(PRIOR, unit))


class UsageModel:
    """Device-seconds, input and output tokens of one backend's calls."""

    # The mutable state: per unit the first usage seen, a mean correction, the mean logarithm, and
    # how far the head and that mean were off; the cached share; the margin of the ceiling; the
    # costliest calls in terms of what was expected; the longest answers; the accuracy.

    def __init__(self, backend: str, usual: Callable[[str], float] = prior) -> None:
        """`usual`: what a call uses of a unit, as far as known before any was seen here."""
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
        """What the head calls the units of this backend that the context tells something of."""
        return tuple([self._units[unit] for unit in self._first if self._pays(unit)])

    def _pays(self, unit: str) -> bool:
        if self.accuracy.calls < SURE_CALLS:
            return True
        return self._head_error.get(unit, 0.0) < PAYS * self._mean_error.get(unit, 1.0)

    def mean(self, unit: str) -> float | None:
        """Return what calls have used of a unit lately; None where none was seen."""
        return self._actual.get(unit)

    @property
    def margin(self) -> float:
        """The ceiling over the expectation."""
        return math.exp(self._log_margin)

    def expected(
        self, logs: Mapping[str, float], known: Usage, cached: float | None = None
    ) -> Usage:
        """Return the expected usage; `logs` are the head's predictions of `keys`.

        `cached` is the share of the input that is, where that can be told; None: the usual one.
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
        """Return the further units of an expected usage: the usual shares of their wholes."""
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
        """Return whether the most that a call can cost is certain, and that cost.

        `worst`: how far above the expected one the costliest of such calls was.
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
            # What others write tells what to expect here, and not what it may come to.
            most = max(expected.output_tokens, PRIOR.output_tokens)
            expected = replace(expected, output_tokens=most)
        return False, min(MAX_NANO - 1, math.ceil(price.foreseen_nano(expected) * 2.0 * worst))

    def _bounds_more(self, price: Price, known: Usage) -> bool:
        """Whether what is known bounds the units that are no tokens.

        A request that stands whole in what was sent has no tool that the provider runs: such calls
        search nothing, unless their model does so unasked, as was then seen.
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
        """Take a call's usage, and what was known to bound it.

        `teach` has the head learn a key's logarithm, and returns what it would have said before.
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
        """Take what share of their wholes the further units are; of others, how many there are."""
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
        """Take what a call has cost in the end, to learn the ceiling and the accuracy from."""
        if cost_nano <= 0 or expected_nano <= 0:
            return
        ratio = cost_nano / expected_nano
        self.worst.see(tenant, ratio, now_s)
        # Robbins and Monro: steps that balance where 5 % of the calls are above.
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
        """Take a saved state."""
        for table, values in zip(_TABLES, state["units"], strict=True):
            setattr(self, table, {str(unit): float(value) for unit, value in values.items()})
        self._input, self._cached = float(state["input"]), float(state["cached"])
        # Snapshots of before there were further units have no shares of them.
        shares = state.get("shares", {})
        self._shares = {unit: float(shares[unit]) for unit in shares if unit in BY_NAME}
        self._input_share, self._inputs = float(state["input_share"]), int(state["inputs"])
        self._log_margin = float(state["log_margin"])
        self.worst.load(state["worst"])
        self.longest.load(state.get("longest", {}))  # snapshots of before have none
        self.accuracy = Accuracy(
            int(state["calls"]), float(state["coverage"]), float(state["relative_error"])
        )


_TABLES = ("_first", "_actual", "_guessed", "_mean_log", "_head_error", "_mean_error")


def _guess(first: float, log: float) -> float:
    return first * math.exp(min(max(log, -LOG_MAX), LOG_MAX))


def _mean(before: float | None, value: float) -> float:
    # A few calls' worth of the first would bias the mean for long: the rate starts at a tenth.
    return value if before is None else before + 0.02 * (value - before)
