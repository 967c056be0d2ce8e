"""The price catalogue: prices of known models, from the package genai-prices.

The data is what the installed version of that package was built with. Nothing is fetched, and
nothing here is on the request path: prices are looked up while a configuration is read.
https://github.com/pydantic/genai-prices
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any

from tollway.backends.price import Price, bounded
from tollway.backends.pricing import parse_price

PACKAGE = "genai-prices"
INSTALL = 'pip install "tollway[catalog]"'
NEAR_MAX = 5
LOOKUPS_MAX = 1024  # different backends that are cached
AHEAD_S = 3600.0  # longer than most calls may take

_KEYS: dict[str, tuple[str, int]] = {
    "input_mtok": ("input_usd_per_mtok", 1),
    "cache_read_mtok": ("cached_input_usd_per_mtok", 1),
    "cache_write_mtok": ("cache_write_5m_usd_per_mtok", 1),
    "cache_write_5m_mtok": ("cache_write_5m_usd_per_mtok", 1),
    "cache_write_1h_mtok": ("cache_write_1h_usd_per_mtok", 1),
    "output_mtok": ("output_usd_per_mtok", 1),
    "output_reasoning_mtok": ("reasoning_usd_per_mtok", 1),
    "input_audio_mtok": ("audio_input_usd_per_mtok", 1),
    "output_audio_mtok": ("audio_output_usd_per_mtok", 1),
    "input_image_mtok": ("image_input_usd_per_mtok", 1),
    "output_image_mtok": ("image_output_usd_per_mtok", 1),
    "input_video_mtok": ("video_input_usd_per_mtok", 1),
    "cache_audio_read_mtok": ("cached_audio_input_usd_per_mtok", 1),
    "cache_image_read_mtok": ("cached_image_input_usd_per_mtok", 1),
    "input_mchars": ("per_mchar_usd", 1),
    "audio_hours": ("audio_usd_per_hour", 1),
    "input_audio_hours": ("audio_usd_per_hour", 1),
    "requests_kcount": ("per_request_usd", 1000),
    "web_searches_kcount": ("per_search_usd", 1000),
    "rerank_searches_kcount": ("per_search_usd", 1000),
    "storage_searches_kcount": ("per_file_search_usd", 1000),
    "input_document_kpages": ("per_page_usd", 1000),
}
"""Our key for each of theirs, and how many of our unit their price is for."""

_CONDITIONS = frozenset({"service_tier", "processing", "speed"})
"""Conditions of variants that appear in replies, and are therefore service tiers here."""

_STANDARD = frozenset({"default", "standard"})

_FREE = frozenset({"openai/moderation"})
"""Models without a figure that are documented as free, where the catalogue does not say so.

https://developers.openai.com/api/docs/guides/moderation
"""
_FREE_COMMENTS = ("free of charge", "included in the subscription")
"""How the catalogue's comments say that a model has no figure because calls of it cost nothing."""

Table = dict[str, Any]
Prices = dict[str, Any]
"""Their prices: by price key a Decimal, or a price with tiers."""


class CatalogMissing(Exception):  # noqa: N818 - reads as what happened
    """The package with the prices is not installed; the message says how to install it."""


class UnknownModel(ValueError):  # noqa: N818
    """The catalogue has no single model of this name; the message lists similar names."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model's price as settings write it; `left_out`: its prices that have no key here.

    `table` is empty if the catalogue knows the model, but not what it costs.
    """

    name: str
    title: str
    context_tokens: int | None
    table: Table
    left_out: tuple[str, ...]


def version() -> str:
    """Return the version of the installed catalogue."""
    try:
        return version_of(PACKAGE)
    except PackageNotFoundError:
        raise CatalogMissing(_missing()) from None


def entries(text: str = "", *, now: datetime | None = None) -> Iterator[Entry]:
    """Yield the models with `text` in their name or title, in the order of their names."""
    now = now or datetime.now(UTC)
    wanted = text.lower()
    for name, model in sorted(_models().items()):
        if wanted in name.lower() or wanted in (model.name or "").lower():
            entry = _entry(name, model, now)
            if entry is not None:
                yield entry


def find(name: str, url: str = "", *, now: datetime | None = None) -> Entry:
    """Return a model's current entry: `provider/model`, or a model of the provider at `url`.

    Raises UnknownModel if there is no such model, several with different prices, or one whose
    price is not known.
    """
    return _find(name, url, (now or datetime.now(UTC)).date())


@lru_cache(LOOKUPS_MAX)
def _find(name: str, url: str, day: date) -> Entry:
    """Return a model's entry on a day: prices start on UTC days."""
    now = datetime.combine(day, time(), UTC)
    read = [_entry(key, model, now) for key, model in _matches(name, url)]
    known = [entry for entry in read if entry is not None]
    if not known:
        raise UnknownModel(f"{name!r} is not in the catalogue; {_near(name)}")
    if any(entry.table != known[0].table for entry in known):
        shown = " or ".join(sorted(entry.name for entry in known)[:NEAR_MAX])
        raise UnknownModel(f"{name!r} has several prices in the catalogue; write {shown}")
    if not known[0].table:
        raise UnknownModel(
            f"{known[0].name!r} is in the catalogue without a price; write its price, or "
            "`price = { free = true }` if calls cost nothing"
        )
    return known[0]


@dataclass(frozen=True, slots=True)
class DatedTariff:
    """A model's price by the catalogue, which has a price that starts on a later day.

    `at_time` is as a Price's. In the `ahead_s` before a change, a call may end at the next price,
    so its maximum covers both.
    """

    name: str
    url: str
    ahead_s: float

    def at_time(self, now_s: float) -> Price:
        """Return the price at a time, in seconds since 1970: the same object while it lasts."""
        now = datetime.fromtimestamp(now_s, UTC)
        soon = now + timedelta(seconds=self.ahead_s)
        price = _priced(self.name, self.url, now.date(), soon.date())
        return price.at_time(now_s)


def dated(
    name: str, url: str = "", *, call_s: float = 0.0, now: datetime | None = None
) -> DatedTariff | None:
    """Return the tariff of a model whose price changes on a later day; None if none is known.

    `call_s`: how long a call may take.
    """
    today = (now or datetime.now(UTC)).date()
    starts = (start for _, model in _matches(name, url) for start in _starts(model))
    if not any(start > today for start in starts):
        return None
    return DatedTariff(name, url, max(AHEAD_S, call_s))


def _starts(model: Any) -> Iterator[date]:
    """Yield the days on which prices of a model start."""
    prices = model.prices if isinstance(model.prices, list) else []
    for one in (*prices, *(model.price_variants or ())):
        start = getattr(one.constraint, "start_date", None)
        if start is not None:
            yield start


@lru_cache(LOOKUPS_MAX)
def _priced(name: str, url: str, day: date, soon: date) -> Price:
    """Return the price on a day, whose maximum covers that of the day on which a call may end."""
    price = _on(name, url, day)
    if soon == day:
        return price
    later = _on(name, url, soon)
    return price if later == price else bounded(price, later)


@lru_cache(LOOKUPS_MAX)
def _on(name: str, url: str, day: date) -> Price:
    """Return the price on a day, or that of the day before if the catalogue then has none."""
    try:
        return parse_price(_find(name, url, day).table)
    except UnknownModel:
        return _on(name, url, day - timedelta(days=1))


def _near(name: str) -> str:
    """Return what to write instead of a name: the same model of a provider, or similar names."""
    near = [key for key, model in _models().items() if model.id == name]
    near = near or get_close_matches(name, _spelt(), n=NEAR_MAX, cutoff=0.6)
    advice = f"write {' or '.join(near[:NEAR_MAX])}; " if near else ""
    return f"{advice}`tollway prices list` has all names of {PACKAGE} {version()}"


def _matches(name: str, url: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, model) of the models a name matches, by the closest kind of match."""
    providers, models = _providers(), _models()
    at, _, rest = name.partition("/")
    groups = (
        [(p, name) for p in providers if url and re.match(p.api_pattern, url)],
        [(p, rest) for p in providers if p.id == at],
        [(p, name) for p in providers if _makes(p, name)],
    )
    for group in groups[:1]:
        if matches := _existing(group):
            yield from matches
            return
    if name in models:
        yield name, models[name]
        return
    for group in groups[1:]:
        if matches := _existing(group):
            yield from matches
            return


def _existing(group: list[tuple[Any, str]]) -> list[tuple[str, Any]]:
    """Return the models that exist, from pairs of (provider, its name for the model)."""
    pairs = [(provider, provider.find_model(name)) for provider, name in group]
    return [(f"{provider.id}/{model.id}", model) for provider, model in pairs if model is not None]


def _makes(provider: Any, name: str) -> bool:
    """Whether models of this name are a provider's own."""
    return provider.model_match is not None and provider.model_match.is_match(name.lower())


@cache
def _providers() -> list[Any]:
    try:
        from genai_prices.data import providers  # noqa: PLC0415 - half a second, where it is used
    except ModuleNotFoundError:
        raise CatalogMissing(_missing()) from None
    return list(providers)


def _missing() -> str:
    return f"the price catalogue is not installed; run: {INSTALL}"


@cache
def _models() -> dict[str, Any]:
    return {f"{p.id}/{model.id}": model for p in _providers() for model in p.models}


@cache
def _spelt() -> list[str]:
    """Return the names that a misspelt one may mean: with their provider and without."""
    return sorted({*_models(), *[model.id for model in _models().values()]})


def _entry(name: str, model: Any, now: datetime) -> Entry | None:
    """Return the entry; None if the price cannot be expressed as a price here."""
    prices, hours = _standard(model, now)
    tiers: dict[str, Prices] = {}
    left_out: set[str] = set()
    for when, variant in _variants(model, now):
        condition, value = next(iter(when.items()))
        if len(when) != 1 or condition not in _CONDITIONS:
            left_out.update(f"{condition} = {value}" for condition, value in when.items())
        elif value in _STANDARD:
            prices = {**prices, **variant}
        else:
            tiers[value] = variant
    left_out.update(key for key in prices if key not in _KEYS)
    table = _table(prices)
    if not table:
        table = {"free": True} if _is_free(name, model) else {}
        return Entry(name, model.name or "", model.context_window, table, tuple(sorted(left_out)))
    if _is_uniform(name, table):
        table["uniform"] = True
    if hours:
        table["hours"] = [{**window, **_table(prices)} for window, prices in hours]
    if tiers:
        table["service_tiers"] = {
            tier: _table({**prices, **variant}) for tier, variant in tiers.items()
        }
    try:
        parse_price(table)
    except ValueError:
        return None
    return Entry(name, model.name or "", model.context_window, table, tuple(sorted(left_out)))


def _is_free(name: str, model: Any) -> bool:
    """Whether a model without a figure is marked as free; else its price is not known."""
    comment = (model.price_comments or "").lower()
    return (
        name.endswith(":free")
        or (model.name or "").endswith("(free)")
        or name in _FREE
        or any(mark in comment for mark in _FREE_COMMENTS)
    )


def _is_uniform(name: str, table: Table) -> bool:
    """Whether sounds and images cost as much as text, where the catalogue has no price for them.

    So they do in the package's own calculation. Only models that have `audio` in their names, all
    of OpenAI, charge more for sound; for some of these the catalogue has the price of text alone.
    """
    sold = any(key.endswith("_usd_per_mtok") for key in table)
    return sold and ("audio" not in name or "audio_input_usd_per_mtok" in table)


def _standard(model: Any, now: datetime) -> tuple[Prices, list[tuple[Table, Prices]]]:
    """Return the prices in force, and the prices by the hour with their windows."""
    if not isinstance(model.prices, list):
        return _prices(model.prices), []
    prices, hours = _prices(model.prices[0].prices), []
    for one in model.prices:
        start = getattr(one.constraint, "start_time", None)
        if start is not None:
            window = {"from": f"{start:%H:%M}", "to": f"{one.constraint.end_time:%H:%M}"}
            hours.append((window, _prices(one.prices)))
        elif one.constraint is None or one.constraint.active(now):
            prices = _prices(one.prices)
    return prices, hours


def _variants(model: Any, now: datetime) -> Iterator[tuple[dict[str, str], Prices]]:
    """Yield (condition, prices that differ there); of two for one condition the first counts."""
    for variant in reversed(model.price_variants or ()):
        if variant.constraint is None or variant.constraint.active(now):
            yield variant.when, _prices(variant.prices)


def _prices(model_price: Any) -> Prices:
    members = model_price.__dict__
    return {key: value for key, value in members.items() if value is not None and key[0] != "_"}


def _table(prices: Prices) -> Table:
    """Return their prices under our keys; those that depend on the input's length in `tiers`.

    Empty without any figure: that is not a price of 0.
    """
    known = [key for key in _KEYS if key in prices]
    table: Table = {}
    for key in known:
        ours, per = _KEYS[key]
        table[ours] = _number(_base(prices[key]), per)
    starts = {tier.start for key in known for tier in getattr(prices[key], "tiers", ())}
    if table and not starts and not any(table.values()):
        return {"free": True}
    table = _with_both(table)
    if starts:
        table["tiers"] = [_tier(prices, start) for start in sorted(starts)]
    return table


def _tier(prices: Prices, start: int) -> Table:
    """Return the token prices of a call with more than `start` of input."""
    tier: Table = {}
    for key, (ours, per) in _KEYS.items():
        if key not in prices or not ours.endswith("_mtok"):
            continue
        price = _base(prices[key])
        for step in getattr(prices[key], "tiers", ()):
            price = step.price if start >= step.start else price
        tier[ours] = _number(price, per)
    return {"above_input_tokens": start, **_with_both(tier)}


def _with_both(table: Table) -> Table:
    """Return a table with both an input and an output price, if it has either."""
    if not any(key.endswith("_mtok") for key in table):
        return table
    missing = {
        key: 0.0 for key in ("input_usd_per_mtok", "output_usd_per_mtok") if key not in table
    }
    return {**missing, **table}


def _base(price: Any) -> Decimal:
    """Return a price below all tiers."""
    base: Decimal = getattr(price, "base", price)
    return base


def _number(price: Decimal, per: int) -> float:
    return float(price / per)
