"""A price: the cost of usage at one backend, in nano-dollars.

Theory of operation. Most calls use the units that are fields of `Usage`: their cost is five
products and a sum. Rare units (`Usage.more`: cache writes, audio, a service tier, the backend's own
bill) are priced separately, by `rates`: the cost of one of each further unit here, either declared
or the default of `tollway.backends.units`.

    tiers           by the length of the input: another price for the whole call
    service_tiers   by the tier that the reply names: another price
    hours           by the time of day in UTC: another price (the scheduler activates it)
    most            the highest cost that any of these can give a call, to bound it beforehand
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Protocol

from tollway.backends.money import NANO_PER_USD
from tollway.backends.types import Details, Usage
from tollway.backends.units import BY_NAME, MORE

MAX_NANO = 2**53
"""9.0 million dollars: the most that a ledger counts exactly; the maximum of prices and calls."""

CHEAPER_TIERS = frozenset({"flex", "batch", "scale", "reserved", "provisioned"})
"""Service tiers that no provider charges more for than for the standard one."""

TIER_TIMES = {"fast": 6.0, "us": 1.1}  # Anthropic's fast mode, and inference in the US alone
TIER_TIMES_ELSE = 2.0  # OpenAI's and Google's `priority` cost at most twice as much
"""The assumed cost of a service tier without a price here, as a multiple of the standard price."""

_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Price:
    """A sum of prices per unit, in nano-dollars; a part that is 0 does not count.

    Cached input tokens are a part of the input tokens, and are charged once, at their own price.
    `tiers`: (input tokens, price of a call with more), from the highest. It then prices the whole
    call, and no part is below the tier under it. `more`: (unit, price of one) of further units.
    `hours`: (from, to, price) in minutes of a day of UTC. `is_fixed`: the cost of a call is known
    to the nano-dollar before it is made, and is `call_nano`. `is_uniform`: tokens of a kind without
    a price here cost as much as text, and are no guess. `is_stale`: the price in force is not
    known, and this is the last one that was, so every cost is an estimate. `most`: the price that
    no charge for a call exceeds, of its declared parts.
    """

    per_request_nano: int | float = 0
    per_device_s_nano: float = 0.0
    input_token_nano: float = 0.0
    cached_input_token_nano: float = 0.0
    output_token_nano: float = 0.0
    tiers: tuple[tuple[float, "Price"], ...] = ()
    more: tuple[tuple[str, float], ...] = ()
    service_tiers: tuple[tuple[str, "Price"], ...] = ()
    hours: tuple[tuple[int, int, "Price"], ...] = ()
    max_price: "Price | None" = None
    is_uniform: bool = False
    is_stale: bool = False
    is_fixed: bool = field(init=False, repr=False, compare=False, hash=False)
    call_nano: int = field(init=False, repr=False, compare=False, hash=False)
    most: "Price" = field(init=False, repr=False, compare=False, hash=False)
    rates: dict[str, float] = field(init=False, repr=False, compare=False, hash=False)
    guessed: frozenset[str] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        assert all(0 <= part < MAX_NANO for part in self.parts), self
        varies = (
            self.per_device_s_nano
            or self.input_token_nano
            or self.cached_input_token_nano
            or self.output_token_nano
            or self.more
        )
        object.__setattr__(self, "is_fixed", not varies)
        object.__setattr__(self, "most", self.max_price or self)
        object.__setattr__(self, "call_nano", self.cost_nano(Usage()))
        rates, guessed = self._defaults()
        object.__setattr__(self, "rates", rates)
        object.__setattr__(self, "guessed", guessed)

    def _defaults(self) -> tuple[dict[str, float], frozenset[str]]:
        """Return the cost of one of each further unit, and which of these are guesses."""
        rates, guessed = dict(self.more), set()
        for unit in MORE:
            if unit.name in rates:
                continue
            if unit.priced_as:
                plain = self.is_uniform and unit.priced_as not in dict(self.more)
                rate = self.cached_input_token_nano if plain else rates[unit.priced_as]
                guess = unit.priced_as in guessed
            elif unit.part_of:
                plain = self.is_uniform and unit.guessed
                rate = self.rate(unit.part_of) * (1.0 if plain else unit.times)
                guess = unit.guessed and not plain
            else:
                sold = self.input_token_nano or self.output_token_nano
                rate = float(unit.usd or 0) * NANO_PER_USD / unit.per if sold else 0.0
                guess = True
            rates[unit.name] = rate
            if guess and rate:
                guessed.add(unit.name)
        return rates, frozenset(guessed)

    def rate(self, unit: str) -> float:
        """Return the cost of one of a unit, in nano-dollars, below all tiers."""
        name = _FIELDS.get(unit)
        return self.rates[unit] if name is None else float(getattr(self, name))

    @property
    def parts(self) -> tuple[float, ...]:
        """The costs of the units below all tiers, in the order of the fields."""
        return (
            self.per_request_nano,
            self.per_device_s_nano,
            self.input_token_nano,
            self.cached_input_token_nano,
            self.output_token_nano,
            *[rate for _, rate in self.more],
        )

    def at(self, input_tokens: float) -> "Price":
        """Return the price of a call with the given number of input tokens."""
        for above, price in self.tiers:
            if input_tokens > above:
                return price
        return self

    def at_time(self, now_s: float) -> "Price":
        """Return the price at a time, in seconds since 1970."""
        minute = int(now_s // 60) % _MINUTES
        for start, end, price in self.hours:
            inside = start <= minute < end if start < end else minute >= start or minute < end
            if inside:
                return price
        return self

    @property
    def standalone(self) -> tuple[str, ...]:
        """The further units with a price here that are not part of the tokens."""
        return tuple([name for name, _ in self.more if not BY_NAME[name].part_of])

    def is_told_by(self, usage: Usage) -> bool:
        """Whether a reported usage has every part that costs something here.

        A reply may report tokens where seconds are sold, or free tokens but none that cost. What it
        omits was not free, so the call is charged by its quote. A report that nothing was used, or
        of the billed amount, is complete.
        """
        if usage.more is not None and usage.more.bill is not None:
            return True
        if self.per_device_s_nano and not usage.device_s > 0:
            return False
        sold = self.input_token_nano or self.output_token_nano
        if not (sold or self.more):
            return True
        if sold:
            given = self.input_token_nano and usage.input_tokens > 0
            if given or (self.output_token_nano and usage.output_tokens > 0):
                return True
        if usage.more is None:
            return False
        return usage.more.is_zero or any(n > 0 and self.rates[unit] for unit, n in usage.units)

    def guesses(self, usage: Usage) -> tuple[str, ...]:
        """Return the units of a usage, or its service tier, that have no price here."""
        more = usage.more
        if more is None or more.bill is not None:
            return ()
        guessed = [unit for unit, count in more.units if count and unit in self.guessed]
        tier = more.service_tier
        if tier and all(name != tier for name, _ in self.service_tiers) and not self.is_fixed:
            guessed.append("service_tier")
        return tuple(guessed)

    def cost_nano(self, usage: Usage, output_tokens: float | None = None) -> int:
        """Return the cost of `usage` in nano-dollars, rounded up.

        `output_tokens` replaces those of the usage. Raises ValueError if the usage is NaN,
        infinite, negative or implausibly large, or counts more of a part than of the whole (cached
        input tokens, of input tokens): such a call is charged by its quote.
        """
        written = usage.output_tokens if output_tokens is None else output_tokens
        more = usage.more
        if more is not None:
            if more.bill is not None:
                return more.bill
            nano = self._unrounded(usage, more, written)
        elif self.tiers and (price := self.at(usage.input_tokens)) is not self:
            return price.cost_nano(usage, written)
        else:
            cached = usage.cached_input_tokens
            fresh = usage.input_tokens - cached
            # A comparison with NaN is false, so this also refuses NaN.
            if not (
                usage.calls >= 0
                and usage.device_s >= 0
                and cached >= 0
                and fresh >= 0
                and written >= 0
            ):
                raise ValueError(f"not a usage: {usage}")
            nano = (
                usage.calls * self.per_request_nano
                + usage.device_s * self.per_device_s_nano
                + fresh * self.input_token_nano
                + cached * self.cached_input_token_nano
                + written * self.output_token_nano
            )
        if not nano < MAX_NANO:
            raise ValueError(f"a cost of {nano} nano-dollars is above {MAX_NANO}")
        # Rounded up, ignoring the error of binary fractions (0.1 * 3 > 0.3): five products and
        # their sum are off by at most nine units of 2^-53, relatively.
        whole = int(nano)
        above = nano - whole
        return whole if above <= 1e-15 * nano and above < 0.5 else whole + 1

    def _unrounded(self, usage: Usage, more: Details, written: float) -> float:
        """Return the cost of a usage with details, in nano-dollars."""
        price, times = self._served_as(more.service_tier)
        price = price.at(usage.input_tokens)
        fresh = usage.input_tokens - usage.cached_input_tokens
        nano, least = 0.0, min(usage.calls, usage.device_s, usage.cached_input_tokens)
        for name, count in more.units:
            nano += count * price.rates[name]
            least = min(least, count)
            part_of = BY_NAME[name].part_of
            if part_of == "input_tokens":
                fresh -= count
            elif part_of == "output_tokens":
                written -= count
        if not (least >= 0 and fresh >= 0 and written >= 0):
            raise ValueError(f"not a usage: {usage}")
        # NaN is not below anything here; it makes the sum NaN, which is refused below.
        nano += usage.calls * price.per_request_nano + usage.device_s * price.per_device_s_nano
        nano += usage.cached_input_tokens * price.cached_input_token_nano
        nano += fresh * price.input_token_nano + written * price.output_token_nano
        return nano * times

    def _served_as(self, tier: str) -> "tuple[Price, float]":
        """Return the price of a service tier, and a factor if that is a guess."""
        if not tier:
            return self, 1.0
        for name, price in self.service_tiers:
            if name == tier:
                return price, 1.0
        return self, math.prod([_times(part) for part in tier.split("+")])

    def foreseen_nano(self, usage: Usage, output_tokens: float | None = None) -> int:
        """Return the cost of a guess, or of a limit that a request names: at most MAX_NANO - 1.

        `output_tokens` replaces those of the usage. An implausible limit in a request is no error;
        an implausible usage in a report is.
        """
        try:
            cost_nano = self.cost_nano(usage, output_tokens)
        except ValueError:
            return MAX_NANO - 1
        return cost_nano if cost_nano < MAX_NANO else MAX_NANO - 1

    def times(self, factor: Decimal) -> "Price":
        """Return this price with all its parts multiplied."""
        return replace(
            self,
            per_request_nano=_scaled(self.per_request_nano, factor),
            per_device_s_nano=_scaled(self.per_device_s_nano, factor),
            input_token_nano=_scaled(self.input_token_nano, factor),
            cached_input_token_nano=_scaled(self.cached_input_token_nano, factor),
            output_token_nano=_scaled(self.output_token_nano, factor),
            tiers=tuple((above, price.times(factor)) for above, price in self.tiers),
            more=tuple((unit, _scaled(rate, factor)) for unit, rate in self.more),
            service_tiers=tuple((name, one.times(factor)) for name, one in self.service_tiers),
        )


_FIELDS = {
    "calls": "per_request_nano",
    "device_s": "per_device_s_nano",
    "input_tokens": "input_token_nano",
    "cached_input_tokens": "cached_input_token_nano",
    "output_tokens": "output_token_nano",
}
"""The fields of a price, by unit."""


def _times(tier: str) -> float:
    """Return the assumed cost of a service tier, as a multiple of the standard price."""
    return 1.0 if tier in CHEAPER_TIERS else TIER_TIMES.get(tier, TIER_TIMES_ELSE)


def rounded_nano(nano: float) -> int:
    """Return a cost below MAX_NANO, at least 0, rounded up as `Price.cost_nano` does."""
    whole = int(nano)
    above = nano - whole
    if above <= 1e-15 * nano and above < 0.5:
        return whole
    return whole + 1 if whole + 1 < MAX_NANO else MAX_NANO - 1


class Tariff(Protocol):
    """What gives the price in force at a time: by the hour (a Price does), or by the date."""

    def at_time(self, now_s: float) -> Price:
        """Return the price at a time, in seconds since 1970: the same object while it lasts."""
        ...


def bounded(price: Price, *later: Price) -> Price:
    """Return a price with the maximum that its service tiers, hours and parts can give a call.

    `later`: prices that may be in force when a call ends that begins at this one.
    """
    ways = [way for one in (price, *later) for way in _ways(one)]
    most = _most(ways)
    thresholds = sorted({above for way in ways for above, _ in way.tiers}, reverse=True)
    tiers = tuple((above, _most(way.at(above + 1.0) for way in ways)) for above in thresholds)
    most = replace(most, tiers=tiers)
    most = replace(most, service_tiers=tuple((name, most) for name, _ in price.service_tiers))
    depends = price.service_tiers or price.hours or later
    if not depends and most.parts == price.parts and tiers == price.tiers:
        return price
    hours = tuple((start, end, replace(one, max_price=most)) for start, end, one in price.hours)
    return replace(price, max_price=most, hours=hours)


def _ways(price: Price) -> Iterator[Price]:
    """Yield every price by which a call may be charged."""
    yield price
    for _, tier in price.service_tiers:
        yield tier
    for _, _, one in price.hours:
        yield from _ways(one)


def _most(prices: Iterable[Price]) -> Price:
    """Return a price with the maximum of each part, and of all kinds of tokens for tokens."""
    listed = list(prices)

    def greatest(unit: str) -> float:
        parts = [one.rate(unit) for one in listed]
        for one in listed:
            parts += [rate for name, rate in one.more if BY_NAME[name].part_of == unit]
        return max(parts)

    given = max(greatest("input_tokens"), greatest("cached_input_tokens"))
    declared = {name for one in listed for name, _ in one.more}
    return Price(
        per_request_nano=greatest("calls"),
        per_device_s_nano=greatest("device_s"),
        input_token_nano=given,
        cached_input_token_nano=min(given, greatest("cached_input_tokens")),
        output_token_nano=greatest("output_tokens"),
        more=tuple((name, greatest(name)) for name in BY_NAME if name in declared),
        is_uniform=all(one.is_uniform for one in listed),
    )


def _scaled(nano: float, factor: Decimal) -> Any:
    scaled = Decimal(repr(nano)) * factor
    if scaled >= MAX_NANO:
        raise ValueError(f"price: multiplied by {factor} it is above 9 million dollars; lower it")
    return int(scaled) if scaled == int(scaled) else float(scaled)
