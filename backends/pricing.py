"""What a call costs: usage times the price of the backend that was called.

Prices are written in dollars and held in nano-dollars per unit. They are read as decimals, so that
what is written is what is charged: 0.00001 dollars are 10,000 nano-dollars, and not 10,001.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation, localcontext
from difflib import get_close_matches

from backends.types import Usage

NANO_PER_USD = 1_000_000_000

MAX_NANO = 2**53
"""9.0 million dollars: the most that a ledger counts exactly, so no price and no call is above."""

# What one device can be shared by, and idle for: beyond these there is a mistake, not a price.
CALLS_MAX = 1_000_000
SHARE_MIN = Decimal("0.000001")

_LIKE = {
    "per_request_usd": "0.0001",
    "device_usd_per_hour": "2.50",
    "concurrency": "8",
    "utilization": "0.6",
    "input_usd_per_mtok": "0.15",
    "cached_input_usd_per_mtok": "0.075",
    "output_usd_per_mtok": "0.60",
    "tiers": "[{ above_input_tokens = 200000, ... }]",
    "free": "true",
}

_TOKENS = ("input_usd_per_mtok", "cached_input_usd_per_mtok", "output_usd_per_mtok")

_NEEDS = {
    "concurrency": ("device_usd_per_hour", "2.50"),
    "utilization": ("device_usd_per_hour", "2.50"),
    "cached_input_usd_per_mtok": ("input_usd_per_mtok", "0.15"),
    "output_usd_per_mtok": ("input_usd_per_mtok", "0.15` (0 where input is free)"),
    "tiers": ("input_usd_per_mtok", "0.15`, what tokens cost below all tiers"),
    "input_usd_per_mtok": ("output_usd_per_mtok", "0.60` (0 where there is no output)"),
}


@dataclass(frozen=True, slots=True)
class Price:
    """A sum of prices per unit, in nano-dollars; a part that is 0 does not count.

    Cached input tokens are a part of the input tokens, and are charged once, at their own price.
    `tiers`: (input tokens, price of a call with more), from the highest; it then prices the whole
    call, and in no part below the tier under it.
    """

    per_request_nano: int | float = 0
    per_device_s_nano: float = 0.0
    input_token_nano: float = 0.0
    cached_input_token_nano: float = 0.0
    output_token_nano: float = 0.0
    tiers: tuple[tuple[float, "Price"], ...] = ()

    def __post_init__(self) -> None:
        assert all(0 <= part < MAX_NANO for part in self.parts), self

    @property
    def parts(self) -> tuple[float, ...]:
        """What the units cost below all tiers, in the order of the fields."""
        return (
            self.per_request_nano,
            self.per_device_s_nano,
            self.input_token_nano,
            self.cached_input_token_nano,
            self.output_token_nano,
        )

    def at(self, input_tokens: float) -> "Price":
        """Return the price of a call with so many input tokens."""
        for above, price in self.tiers:
            if input_tokens > above:
                return price
        return self

    @property
    def is_fixed(self) -> bool:
        """Whether a call's cost is known to the nano-dollar before it is made."""
        return not (
            self.per_device_s_nano
            or self.input_token_nano
            or self.cached_input_token_nano
            or self.output_token_nano
        )

    def is_told_by(self, usage: Usage) -> bool:
        """Whether a reported usage has every part that costs something here.

        A reply may report tokens where seconds are sold, tokens that are free and none that cost,
        or nothing but zeros: what it leaves out was not free, so it is charged by its quote.
        """
        if self.per_device_s_nano and not usage.device_s > 0:
            return False
        if not (self.input_token_nano or self.output_token_nano):
            return True
        given = self.input_token_nano and usage.input_tokens > 0
        return bool(given or (self.output_token_nano and usage.output_tokens > 0))

    def cost_nano(self, usage: Usage) -> int:
        """Return what `usage` costs in nano-dollars, rounded up.

        Raises ValueError where the usage is NaN, infinite, negative or beyond belief, or counts
        more cached input tokens than input tokens: such a call is charged by its quote.
        """
        if self.tiers and (price := self.at(usage.input_tokens)) is not self:
            return price.cost_nano(usage)
        cached = usage.cached_input_tokens
        fresh = usage.input_tokens - cached
        # A comparison with NaN is false, so this also refuses NaN.
        if not (
            usage.calls >= 0
            and usage.device_s >= 0
            and cached >= 0
            and fresh >= 0
            and usage.output_tokens >= 0
        ):
            raise ValueError(f"not a usage: {usage}")
        return _round_up(
            usage.calls * self.per_request_nano
            + usage.device_s * self.per_device_s_nano
            + fresh * self.input_token_nano
            + cached * self.cached_input_token_nano
            + usage.output_tokens * self.output_token_nano,
        )

    def foreseen_nano(self, usage: Usage) -> int:
        """Return what a guess, or a limit that a request names, would cost: at most MAX_NANO - 1.

        To name a limit beyond belief is no fault; to report such a usage is.
        """
        try:
            return min(self.cost_nano(usage), MAX_NANO - 1)
        except ValueError:
            return MAX_NANO - 1


def parse_price(table: Mapping[str, object]) -> Price:
    """Return the price that a settings table says; the parts that it names add up.

    - `per_request_usd`
    - `device_usd_per_hour`, with `concurrency` (calls that share the device, 1) and `utilization`
      (the share of its time that is sold, in (0, 1], 1): a device-second then costs
      usd / 3600 / concurrency / utilization, so that busy seconds pay for idle ones
    - `input_usd_per_mtok` and `output_usd_per_mtok`, with `cached_input_usd_per_mtok` (as input),
      and `tiers`: what tokens cost in a call whose input is longer than `above_input_tokens`
    - `free = true`, alone

    Raises ValueError naming the key, the value and what to write instead.
    """
    _check_keys(table)
    if "free" in table:
        return _free(table)
    price = _sum({key: value for key, value in table.items() if key != "tiers"})
    price = _tiered(price, table)
    if not any(price.parts):
        raise ValueError(
            f"price = {dict(table)!r}: a price of 0; write `free = true` if calls cost nothing"
        )
    return price


def _sum(table: Mapping[str, object]) -> Price:
    sharing = _number(table, "concurrency", "1") * _number(table, "utilization", "1")
    input_nano = _per_token(table, "input_usd_per_mtok", 0.0)
    return Price(
        per_request_nano=_nano(table, "per_request_usd", Decimal(1)),
        per_device_s_nano=_nano(table, "device_usd_per_hour", 3600 * sharing),
        input_token_nano=input_nano,
        cached_input_token_nano=_per_token(table, "cached_input_usd_per_mtok", input_nano),
        output_token_nano=_per_token(table, "output_usd_per_mtok", 0.0),
    )


def _tiered(price: Price, table: Mapping[str, object]) -> Price:
    """Return a price with the tiers of its table: dearer the longer the input is."""
    told = table.get("tiers", [])
    if not isinstance(told, Sequence) or isinstance(told, str):
        raise _wrong("tiers", told, "is not a list of tables", f"write e.g. {_LIKE['tiers']}")
    tiers: list[tuple[float, Price]] = []
    below = price
    for number, tier in enumerate(told):
        above, dearer = _tier(price, tier, f"tiers[{number}]")
        if tiers and above <= tiers[-1][0]:
            raise _wrong(f"tiers[{number}]", tier, "is not above the tier before it", "sort them")
        if any(part < under for part, under in zip(dearer.parts, below.parts, strict=True)):
            raise _wrong(
                f"tiers[{number}]",
                tier,
                "is cheaper in a part than what is below it",
                "write prices that do not fall",
            )
        tiers.append((above, dearer))
        below = dearer
    return replace(price, tiers=tuple(reversed(tiers)))


def _tier(price: Price, tier: object, where: str) -> tuple[float, Price]:
    """Return (input tokens, price of a call with more) of one tier's table."""
    if not isinstance(tier, Mapping) or "above_input_tokens" not in tier:
        raise _wrong(where, tier, "has no above_input_tokens", f"write e.g. {_LIKE['tiers']}")
    tokens = {key: value for key, value in tier.items() if key != "above_input_tokens"}
    if unknown := [key for key in tokens if key not in _TOKENS]:
        raise _wrong(
            f"{where}.{unknown[0]}", tokens[unknown[0]], "is no price of tokens", "move it"
        )
    _check_keys(tokens)
    dearer = _sum(tokens)
    return float(_number(tier, "above_input_tokens", "0")), replace(
        price,
        input_token_nano=dearer.input_token_nano,
        cached_input_token_nano=dearer.cached_input_token_nano,
        output_token_nano=dearer.output_token_nano,
    )


def _free(table: Mapping[str, object]) -> Price:
    if table["free"] is not True:
        raise _wrong("free", table["free"], "says nothing", "leave it out and write a price")
    if len(table) > 1:
        raise _wrong("free", True, "stands beside a price", "keep one of the two")
    return Price()


def _check_keys(table: Mapping[str, object]) -> None:
    if not table:
        raise ValueError("price = {}: no price; write e.g. `price = { per_request_usd = 0.0001 }`")
    for key in table:
        if key not in _LIKE:
            near = get_close_matches(key, _LIKE, n=1) or sorted(_LIKE)
            raise _wrong(key, table[key], "is not a part of a price", f"write {' or '.join(near)}")
        if key in _NEEDS and _NEEDS[key][0] not in table:
            other, like = _NEEDS[key]
            like += "" if "`" in like else "`"
            raise _wrong(key, table[key], f"needs {other} beside it", f"add `{other} = {like}")


def _per_token(table: Mapping[str, object], key: str, default: float) -> float:
    return _nano(table, key, Decimal(1_000_000)) if key in table else default


def _nano(table: Mapping[str, object], key: str, units: Decimal) -> int | float:
    """Return the nano-dollars of one of `units` units that together cost `table[key]` dollars."""
    usd = _number(table, key, "0")
    with localcontext(prec=50):
        nano = min(usd, Decimal(MAX_NANO)) * NANO_PER_USD / units
    if nano >= MAX_NANO:
        raise _wrong(key, table[key], "is above 9 million dollars", f"write e.g. {_LIKE[key]}")
    return int(nano) if nano == int(nano) else float(nano)


def _number(table: Mapping[str, object], key: str, default: str) -> Decimal:
    value = table.get(key, default)
    fix = f"write a number, e.g. `{key} = {_LIKE.get(key, '200000')}`"
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise _wrong(key, value, "is not a number", fix)
    try:
        number = Decimal(str(value))
    except InvalidOperation as exc:
        raise _wrong(key, value, "is not a number", fix) from exc
    if not number.is_finite() or number < 0:
        raise _wrong(key, value, "must be finite and not negative", fix)
    if key == "utilization" and not SHARE_MIN <= number <= 1:
        raise _wrong(key, value, "must be above 0 and at most 1", fix)
    if key == "concurrency" and not (
        1 <= number <= CALLS_MAX and number == number.to_integral_value()
    ):
        raise _wrong(key, value, f"must be a whole number from 1 to {CALLS_MAX}", fix)
    return number


def _wrong(key: str, value: object, what: str, fix: str) -> ValueError:
    return ValueError(f"price.{key} = {value!r}: {what}; {fix}")


def _round_up(nano: float) -> int:
    """Return `nano` rounded up, forgiving it the error of binary fractions (0.1 * 3 > 0.3)."""
    if not nano < MAX_NANO:
        raise ValueError(f"a cost of {nano} nano-dollars is above {MAX_NANO}")
    nearest = int(nano)
    if nearest == nano:  # nearly always, where a call has a price
        return nearest
    nearest = round(nano)
    # 1e-15: five products and their sum are off by at most nine units of 2^-53, relatively.
    return nearest if abs(nano - nearest) <= 1e-15 * nano else math.ceil(nano)
