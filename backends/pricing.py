"""Parses price tables: the price of usage at a backend, from the settings.

Prices are written in dollars and stored in nano-dollars per unit. They are parsed as decimals, so
that the written price is the charged price: 0.00001 dollars are 10,000 nano-dollars, not 10,001.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation, localcontext
from difflib import get_close_matches

from tollway.backends.money import NANO_PER_USD
from tollway.backends.price import MAX_NANO, Price, bounded
from tollway.backends.units import BY_NAME, MORE, UNITS, Unit

__all__ = ["MAX_NANO", "NANO_PER_USD", "Price", "parse_price"]

# The most calls that can share a device, and the most it can be idle: beyond these it is a mistake,
# not a price.
CALLS_MAX = 1_000_000
SHARE_MIN = Decimal("0.000001")
FACTOR_MAX = 1000
TIERS_MAX = 32  # of each kind: a provider has three or four
_DAY = 24 * 60

_LIKE = {unit.price_key: unit.like for unit in UNITS if unit.price_key} | {
    "device_usd_per_hour": "2.50",
    "concurrency": "8",
    "utilization": "0.6",
    "committed_usd_per_hour": "36",
    "committed_requests_per_hour": "1000",
    "committed_mtok_per_hour": "20",
    "tiers": "[{ above_input_tokens = 200000, ... }]",
    "service_tiers": "{ flex = 0.5, priority = 2.0 }",
    "hours": '[{ from = "16:30", to = "00:30", factor = 0.5 }]',
    "uniform": "true",
    "free": "true",
}

_OF_CONDITIONS = {"above_input_tokens": "200000", "factor": "0.5"}

_TOKENS = tuple(
    unit.price_key
    for unit in UNITS
    if unit.name in ("input_tokens", "output_tokens") or unit.part_of
)
_SHAPES = ("tiers", "service_tiers", "hours")
"""The keys that hold prices under a condition; all others add up."""

_NEEDS = {
    "concurrency": ("device_usd_per_hour", "2.50"),
    "utilization": ("device_usd_per_hour", "2.50"),
    "output_usd_per_mtok": ("input_usd_per_mtok", "0.15` (0 where input is free)"),
    "uniform": ("input_usd_per_mtok", "0.15"),
    "tiers": ("input_usd_per_mtok", "0.15`, what tokens cost below all tiers"),
    "input_usd_per_mtok": ("output_usd_per_mtok", "0.60` (0 where there is no output)"),
    "committed_requests_per_hour": ("committed_usd_per_hour", "36"),
    "committed_mtok_per_hour": ("committed_usd_per_hour", "36"),
} | {
    unit.price_key: (BY_NAME[unit.part_of].price_key, BY_NAME[unit.part_of].like)
    for unit in UNITS
    if unit.part_of
}


def parse_price(table: Mapping[str, object]) -> Price:
    """Return the price in a settings table; the parts that it names add up.

    - `per_request_usd`, and the other keys of `tollway.backends.units`: tokens of each kind,
      images, characters, pages, hours of audio, searches
    - `device_usd_per_hour`, with `concurrency` (calls that share the device, 1) and `utilization`
      (the share of its time that is sold, in (0, 1], 1): a device-second then costs
      usd / 3600 / concurrency / utilization, so that busy seconds pay for idle ones
    - `committed_usd_per_hour`, paid whatever is used, spread over the expected use:
      `committed_requests_per_hour` or `committed_mtok_per_hour`
    - `tiers`: the price of tokens in a call with more input than `above_input_tokens`
    - `service_tiers`: by the tier that replies name, a factor or a table of its own
    - `hours`: by the time of day in UTC, `from`, `to` and a factor
    - `uniform = true`: tokens of a kind without a price cost what those they are part of cost
    - `free = true`, alone

    Raises ValueError naming the key, the value and what to write instead.
    """
    _check_keys(table)
    if "free" in table:
        return _free(table)
    price = _standard(table)
    if not any(price.parts):
        raise ValueError(
            f"price = {dict(table)!r}: a price of 0; write `free = true` if calls cost nothing"
        )
    if "service_tiers" in table and price.is_fixed:
        tiers = table["service_tiers"]
        raise _wrong("service_tiers", tiers, "needs a price of what replies report", "add tokens")
    price = replace(price, service_tiers=tuple(_service_tiers(price, table)))
    return bounded(replace(price, hours=_hours(price, table)))


def _standard(table: Mapping[str, object]) -> Price:
    """Return the price of a table with its tiers, independent of the service tier and the hour."""
    return _tiered(_sum({key: table[key] for key in table if key not in _SHAPES}), table)


def _sum(table: Mapping[str, object]) -> Price:
    sharing = _number(table, "concurrency", "1") * _number(table, "utilization", "1")
    input_nano = _unit_price(table, BY_NAME["input_tokens"], 0.0)
    price = Price(
        per_request_nano=_unit_price(table, BY_NAME["calls"], 0),
        per_device_s_nano=_nano(table, "device_usd_per_hour", 3600 * sharing),
        input_token_nano=input_nano,
        cached_input_token_nano=_unit_price(table, BY_NAME["cached_input_tokens"], input_nano),
        output_token_nano=_unit_price(table, BY_NAME["output_tokens"], 0.0),
        more=tuple(
            (unit.name, _unit_price(table, unit, 0.0)) for unit in MORE if unit.price_key in table
        ),
        is_uniform=_is_true(table, "uniform"),
    )
    return _committed(price, table)


def _committed(price: Price, table: Mapping[str, object]) -> Price:
    """Return a price with a fixed cost per hour spread over the expected use."""
    key = "committed_usd_per_hour"
    if key not in table:
        return price
    over = [name for name in table if name.startswith("committed_") and name != key]
    if len(over) != 1:
        raise _wrong(
            key,
            table[key],
            "is spread over what is used",
            "add one of `committed_requests_per_hour = 1000`, `committed_mtok_per_hour = 20`",
        )
    used = _number(table, over[0], "0")
    if not used:
        raise _wrong(over[0], table[over[0]], "must be above 0", "write what is used in an hour")

    def with_share(nano: float) -> float:
        if nano + each >= MAX_NANO:
            raise _wrong(key, table[key], "gives a price above 9 million dollars", "lower it")
        return nano + each

    if over[0] == "committed_requests_per_hour":
        each = _nano(table, key, used)
        return replace(price, per_request_nano=with_share(price.per_request_nano))
    each = _nano(table, key, used * 1_000_000)
    return replace(
        price,
        input_token_nano=with_share(price.input_token_nano),
        cached_input_token_nano=with_share(price.cached_input_token_nano),
        output_token_nano=with_share(price.output_token_nano),
        more=tuple(
            (name, with_share(rate) if BY_NAME[name].part_of else rate) for name, rate in price.more
        ),
    )


def _tiered(price: Price, table: Mapping[str, object]) -> Price:
    """Return a price with the tiers of its table: the longer the input, the higher."""
    rows = table.get("tiers", [])
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise _wrong("tiers", rows, "is not a list of tables", f"write e.g. {_LIKE['tiers']}")
    _check_count("tiers", rows)
    tiers: list[tuple[float, Price]] = []
    below = price
    for number, tier in enumerate(rows):
        above, higher = _tier(price, tier, f"tiers[{number}]")
        if tiers and above <= tiers[-1][0]:
            raise _wrong(f"tiers[{number}]", tier, "is not above the tier before it", "sort them")
        if any(higher.rate(unit.name) < below.rate(unit.name) for unit in UNITS):
            raise _wrong(
                f"tiers[{number}]",
                tier,
                "is cheaper in a part than what is below it",
                "write prices that do not fall",
            )
        tiers.append((above, higher))
        below = higher
    return replace(price, tiers=tuple(reversed(tiers)))


def _tier(price: Price, tier: object, where: str) -> tuple[float, Price]:
    """Return (input tokens, price of a call with more) of one tier's table."""
    if not isinstance(tier, Mapping) or "above_input_tokens" not in tier:
        raise _wrong(where, tier, "has no above_input_tokens", f"write e.g. {_LIKE['tiers']}")
    tokens = {key: value for key, value in tier.items() if key != "above_input_tokens"}
    if unknown := [key for key in tokens if key not in _TOKENS]:
        raise _wrong(
            f"{where}.{unknown[0]}",
            tokens[unknown[0]],
            "is not a price of tokens",
            "write it outside the tier",
        )
    _check_keys(tokens)
    higher = _sum(_as_uniform(tokens, price))
    return float(_number(tier, "above_input_tokens", "0")), replace(
        price,
        input_token_nano=higher.input_token_nano,
        cached_input_token_nano=higher.cached_input_token_nano,
        output_token_nano=higher.output_token_nano,
        more=tuple(_further(price, higher)),
    )


def _further(price: Price, higher: Price) -> Iterator[tuple[str, float]]:
    """Yield the prices of further units in a tier: its own, else never less than below it."""
    below, own = dict(price.more), dict(higher.more)
    for unit in MORE:
        if unit.name in own:
            yield unit.name, own[unit.name]
        elif unit.name in below:
            usual = higher.rates[unit.name] if unit.part_of else 0.0
            yield unit.name, max(below[unit.name], usual)


def _service_tiers(price: Price, table: Mapping[str, object]) -> Iterator[tuple[str, Price]]:
    tables = table.get("service_tiers", {})
    like = f"write e.g. {_LIKE['service_tiers']}"
    if not isinstance(tables, Mapping):
        raise _wrong("service_tiers", tables, "is not a table", like)
    _check_count("service_tiers", tables)
    for name, value in tables.items():
        where = f"service_tiers.{name}"
        if not isinstance(value, Mapping):
            yield name.lower(), price.times(_factor(tables, name, where))
            continue
        if nested := [key for key in value if key in ("service_tiers", "hours", "free")]:
            raise _wrong(
                f"{where}.{nested[0]}",
                value[nested[0]],
                "is not allowed in a tier",
                "write it outside",
            )
        try:
            _check_keys(value)
            yield name.lower(), _standard(_as_uniform(value, price))
        except ValueError as exc:
            raise ValueError(f"price.{where}: {str(exc).removeprefix('price.')}") from None


def _hours(price: Price, table: Mapping[str, object]) -> tuple[tuple[int, int, Price], ...]:
    """Return the windows of a day, (from, to, price) in minutes; ValueError if they overlap."""
    rows = table.get("hours", [])
    like = f"write e.g. {_LIKE['hours']}"
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise _wrong("hours", rows, "is not a list of tables", like)
    _check_count("hours", rows)
    windows: list[tuple[int, int, Price]] = []
    taken: set[int] = set()
    for number, window in enumerate(rows):
        where = f"hours[{number}]"
        if not isinstance(window, Mapping) or not {"from", "to"} < window.keys():
            raise _wrong(where, window, "needs from, to, and a factor or prices", like)
        start, end = (_minute(window[key], f"{where}.{key}") for key in ("from", "to"))
        minutes = {(start + i) % _DAY for i in range((end - start) % _DAY)}
        if not minutes:
            raise _wrong(where, window, "is empty", "write an end other than its beginning")
        if minutes & taken:
            raise _wrong(where, window, "overlaps with one before it", "remove the overlap")
        taken |= minutes
        windows.append((start, end, _within(price, window, where)))
    return tuple(windows)


def _within(price: Price, window: Mapping[str, object], where: str) -> Price:
    """Return the price of a window of the day: a factor, or a table of its own."""
    if window.keys() == {"from", "to", "factor"}:
        return price.times(_factor(window, "factor", f"{where}.factor"))
    table = {key: value for key, value in window.items() if key not in ("from", "to")}
    if nested := [key for key in ("factor", "service_tiers", "hours", "free") if key in table]:
        raise _wrong(
            f"{where}.{nested[0]}", table[nested[0]], "is not allowed in hours", "write it outside"
        )
    try:
        _check_keys(table)
        return _standard(_as_uniform(table, price))
    except ValueError as exc:
        raise ValueError(f"price.{where}: {str(exc).removeprefix('price.')}") from None


def _minute(value: object, where: str) -> int:
    """Return the minute of the day for `HH:MM`."""
    hour, colon, minute = str(value).partition(":")
    digits = hour.isascii() and hour.isdigit() and minute.isascii() and minute.isdigit()
    if not (colon and digits and len(minute) == 2 and int(hour) < 24 and int(minute) < 60):
        raise _wrong(where, value, "is not a time of day in UTC", 'write it like "16:30"')
    return int(hour) * 60 + int(minute)


def _factor(table: Mapping[str, object], key: str, where: str) -> Decimal:
    try:
        factor = _number({"factor": table[key]}, "factor", "1")
    except ValueError as exc:
        raise ValueError(str(exc).replace("price.factor", f"price.{where}", 1)) from None
    if not 0 < factor <= FACTOR_MAX:
        raise _wrong(where, table[key], f"must be above 0 and at most {FACTOR_MAX}", "write 0.5")
    return factor


def _check_count(key: str, entries: Sequence[object] | Mapping[str, object]) -> None:
    if len(entries) > TIERS_MAX:
        raise _wrong(key, f"({len(entries)} entries)", f"has more than {TIERS_MAX}", "merge some")


def _as_uniform(table: Mapping[str, object], price: Price) -> Mapping[str, object]:
    """Return the table of a tier or of hours, which is uniform if the whole price is."""
    return {**table, "uniform": True} if price.is_uniform else table


def _is_true(table: Mapping[str, object], key: str) -> bool:
    if table.get(key, True) is not True:
        raise _wrong(key, table[key], "has no effect", "remove it or write true")
    return key in table


def _free(table: Mapping[str, object]) -> Price:
    if table["free"] is not True:
        raise _wrong("free", table["free"], "has no effect", "remove it and write a price")
    if len(table) > 1:
        raise _wrong("free", True, "is given together with a price", "keep one of the two")
    return Price()


def _check_keys(table: Mapping[str, object]) -> None:
    if not table:
        raise ValueError("price = {}: no price; write e.g. `price = { per_request_usd = 0.0001 }`")
    for key in table:
        if key not in _LIKE:
            near = get_close_matches(key, _LIKE, n=1) or sorted(_LIKE)
            raise _wrong(key, table[key], "is not a key of a price", f"write {' or '.join(near)}")
        if key in _NEEDS and _NEEDS[key][0] not in table:
            other, like = _NEEDS[key]
            like += "" if "`" in like else "`"
            raise _wrong(key, table[key], f"needs {other} beside it", f"add `{other} = {like}")


def _unit_price(table: Mapping[str, object], unit: Unit, default: float) -> int | float:
    """Return the cost of one of a unit."""
    key = unit.price_key
    return _nano(table, key, Decimal(unit.per)) if key in table else default


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
    fix = f"write a number, e.g. `{key} = {_LIKE.get(key) or _OF_CONDITIONS[key]}`"
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
