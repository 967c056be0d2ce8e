"""Reads the price of an hour of a device from a document: a number, JSON, or Prometheus' text."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from tollway.backends.devices.exposition import Selector, total
from tollway.backends.documents import load_reply, shown
from tollway.backends.json_path import compile_first
from tollway.backends.money import NANO_PER_USD
from tollway.backends.price import MAX_NANO

BYTES_MAX = 4 << 20
"""An exporter of a cluster of a thousand nodes gives about one megabyte."""

Read = Callable[[bytes], int]
"""Returns the nano-dollars of an hour; raises ValueError if a document does not tell them."""


def price_reader(path: str | None, selector: Selector | None) -> Read:
    """Return the reader of a JSON document, if there is a `path`; of metrics; or of a number."""
    if selector is not None:
        return lambda body: hourly_nano(repr(total(body.decode("utf-8", "replace"), selector)))
    if path is not None:
        get = compile_first(path)
        return lambda body: hourly_nano(_at(get(load_reply(body)), path))
    return lambda body: hourly_nano(body.decode("ascii", "replace").strip())


def _at(value: object, path: str) -> object:
    if value is None:
        raise ValueError(f"has no {path}")
    return value


def hourly_nano(value: object) -> int:
    """Return a price in dollars as whole nano-dollars, above 0; ValueError if it is no price."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError(f"has {shown(value)}, which is not a number of dollars")
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"has {shown(value)}, which is not a number of dollars") from None
    if not usd.is_finite() or usd <= 0:
        raise ValueError(f"has a price of {shown(value)}, which is not above 0")
    nano = round(min(usd, Decimal(MAX_NANO)) * NANO_PER_USD)
    if not 0 < nano < MAX_NANO:
        raise ValueError(f"has a price of {shown(value)}, which is below a nano-dollar or too high")
    return nano
