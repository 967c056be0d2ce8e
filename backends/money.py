"""Money: integer nano-dollars, parsed from dollars and formatted as dollars.

All amounts between the price table and the journal are integer nano-dollars; dollars appear only in
settings, metrics, commands, pages and documents.
"""

from decimal import Decimal, InvalidOperation

NANO_PER_USD = 1_000_000_000
"""Nano-dollars per dollar: the price of a token is a whole number of them."""


def to_usd(nano: float) -> float:
    """Return nano-dollars as dollars, for documents and metrics."""
    return nano / NANO_PER_USD


def format_usd(nano: int) -> str:
    """Return nano-dollars as exact text: `$1.50`, at least two decimals and at most nine."""
    whole, rest = divmod(abs(nano), NANO_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}${whole}.{decimals}"


def header_usd(nano: int) -> bytes:
    """Return nano-dollars as a header field's value: all nine decimals, without a currency sign."""
    return b"%d.%09d" % divmod(nano, NANO_PER_USD)


def parse_usd(text: str, most_usd: int) -> int:
    """Return dollars as nano-dollars, exactly; ValueError beyond +-`most_usd` or nine decimals.

    The bound is checked first: `int()` of 1e999999 would take minutes.
    """
    try:
        usd = Decimal(text)
    except InvalidOperation:
        raise ValueError("is not a number") from None
    if not usd.is_finite() or not -most_usd <= usd <= most_usd:
        raise ValueError(f"must be from -{most_usd} to {most_usd} dollars")
    nano = usd * NANO_PER_USD
    if nano != int(nano):
        raise ValueError("has more than nine decimals")
    return int(nano)
