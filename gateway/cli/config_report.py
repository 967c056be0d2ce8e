"""Prints the configuration in effect: all of it as TOML, and a summary of its routes."""

import json
from collections.abc import Iterator
from typing import Any

from tollway.backends.money import to_usd
from tollway.backends.pricing import Price
from tollway.backends.units import HOT, UNITS, Unit
from tollway.gateway.settings import BackendConfig, RouteConfig, Settings


def as_toml(document: dict[str, Any]) -> str:
    """Return JSON types as TOML, with nested tables inline."""
    lines = [f"{key} = {_value(value)}" for key, value in document.items() if not _tables(value)]
    for key, value in document.items():
        many = isinstance(value, list)
        for table in _tables(value):
            lines += ["", f"[[{key}]]" if many else f"[{key}]"]
            lines += [f"{name} = {_value(inner)}" for name, inner in table.items()]
    return "\n".join(lines) + "\n"


def _tables(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list):
        return [inner for inner in value if isinstance(inner, dict)]
    return []


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(name)} = {_value(value)}" for name, value in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else json.dumps(name)


def differences(old: Settings, new: Settings) -> list[dict[str, Any]]:
    """Return the settings that differ, by name, each with both values; None: it has none."""
    from tollway.gateway.wiring.settings_changes import differing  # noqa: PLC0415 - imports it all

    before, after = differing(old, new)
    return [
        {"setting": name, "before": before[name], "after": after[name]}
        for name in after
        if name != "extends"
    ]


def in_words(changes: list[dict[str, Any]]) -> list[str]:
    """Return a line for each setting that differs: `budgets.day.limit_usd: 10 -> 5`."""
    return [
        f"{one['setting']}: {_shown(one['before'])} -> {_shown(one['after'])}" for one in changes
    ]


def _shown(value: Any) -> str:
    return "not set" if value is None else _value(value)


def summary(settings: Settings) -> Iterator[str]:
    """Yield a summary of each route, its backends and prices, as TOML comments."""
    backends = {backend.name: backend for backend in settings.backends}
    for route in settings.routes:
        yield f"# {route.name}: {route.path}, {_aim(route)}"
        for name in route.backends:
            backend = backends[name]
            off = "" if backend.enabled else " (disabled)"
            yield f"#   {name} ({backend.kind}): {_charged(backend)}{off}"
    bound = sum(budget.enforcement != "soft" for budget in settings.budgets)
    yield f"# {len(settings.budgets)} budgets; {bound} of them refuse calls when exhausted"


def _charged(backend: BackendConfig) -> str:
    """Return how a backend's calls are priced, in words."""
    if backend.device is not None:
        return f"its share of device {backend.device}"
    return price(backend.parsed_price())


def _aim(route: RouteConfig) -> str:
    floor = f", accuracy floor {route.accuracy_floor:.1%}" if route.accuracy_floor else ""
    cascade = ", cascade" if route.cascade else ""
    return f"{route.objective}{floor}, policy {route.policy}{cascade}"


def price(price: Price) -> str:
    """Return a price in words: `$0.0001 a request + $0.0001447 a device-second`."""
    tiers = [
        f"; above {above:,.0f} input tokens {_sum(above_price)}"
        for above, above_price in price.tiers
    ]
    served = [f"; served as {name} {_sum(other)}" for name, other in price.service_tiers]
    hours = [f"; {_clock(start)}-{_clock(end)} UTC {_sum(o)}" for start, end, o in price.hours]
    return "".join([_sum(price), *reversed(tiers), *served, *hours])


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _sum(price: Price) -> str:
    declared = {*HOT, *[name for name, _ in price.more]}
    parts = {
        each(unit): to_usd(price.rate(unit.name) * unit.per)
        for unit in UNITS
        if unit.name in declared
    }
    terms = [f"${_number(usd)} {unit}" for unit, usd in parts.items() if usd]
    return " + ".join(terms) or "free"


def each(unit: Unit) -> str:
    """Return the quantity of a unit that its price is for: `a million input tokens`."""
    if unit.per == 1:
        one = unit.text.removesuffix("s") if unit.text != "searches" else "search"
        return f"an {one}" if one[0] in "aeiou" else f"a {one}"
    return {3600: "an hour of audio"}.get(unit.per, f"a million {unit.text}")


def _number(usd: float) -> str:
    text = f"{usd:.12f}" if usd >= 1 else f"{usd:.4g}" if usd >= 1e-4 else f"{usd:.12f}"
    return text.rstrip("0").rstrip(".")
