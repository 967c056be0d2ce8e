"""Reads a provider's bill: a CSV file under any column names.

The names of FOCUS and of OpenAI's exports and plain names are recognised; `--column` maps others.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal, InvalidOperation
from pathlib import Path

from tollway.backends.money import NANO_PER_USD
from tollway.reports.tables import Unknowable

COLUMNS: dict[str, tuple[str, ...]] = {
    "amount": ("amount", "amount_usd", "amount_value", "cost", "cost_usd", "billedcost", "total"),
    "item": ("item", "backend", "model", "resourceid", "line_item", "sku", "description"),
    "date": ("date", "day", "usage_date", "chargeperiodstart", "start_time_iso", "start_time"),
    "requests": ("requests", "calls", "num_model_requests", "n_requests", "pricingquantity"),
    "input_tokens": ("input_tokens", "prompt_tokens", "n_context_tokens_total", "x_inputtokens"),
    "output_tokens": (
        "output_tokens",
        "completion_tokens",
        "n_generated_tokens_total",
        "x_outputtokens",
    ),
    "device_s": ("device_s", "device_seconds", "gpu_seconds", "x_deviceseconds"),
    "currency": ("currency", "billingcurrency", "amount_currency"),
}
"""The columns that are read, and the names accepted for each, in lower case."""

QUANTITIES = ("requests", "input_tokens", "output_tokens", "device_s")
_DIGITS = re.compile(r"\d{9,11}(\.\d+)?")


@dataclass(frozen=True, slots=True)
class BillLine:
    """The amount billed for one item on one day ("" if the bill has no dates)."""

    day: str
    item: str
    amount_nano: int
    quantities: Mapping[str, float]


def read(
    path: Path, zone: tzinfo, renamed: Mapping[str, str], names: Mapping[str, str]
) -> list[BillLine]:
    """Read a bill. Raises Unknowable if it is unreadable.

    `renamed` has the bill's own names of columns, `names` our names of its items. Lines of the same
    day and item are added up.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = _columns(reader.fieldnames or (), renamed)
            lines = [_line(row, columns, zone, names, n) for n, row in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise Unknowable(f"{path} cannot be read as CSV: {exc}") from None
    return list(_added(lines))


def _columns(heads: Sequence[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """Return the bill's own name for each column that is read."""
    known = {head.strip().lower(): head for head in heads}
    if wrong := [name for name in renamed if name not in COLUMNS]:
        raise Unknowable(f"--column: unknown column {wrong[0]!r}; use one of {', '.join(COLUMNS)}")
    columns: dict[str, str] = {}
    for name, aliases in COLUMNS.items():
        wanted = (renamed[name].lower(),) if name in renamed else aliases
        at = next((known[alias] for alias in wanted if alias in known), None)
        if at is not None:
            columns[name] = at
        elif name in renamed or name in {"amount", "item"}:
            raise Unknowable(
                f"the bill has no column {' or '.join(wanted)}; its columns are "
                f"{', '.join(heads)}; name the right one: --column {name}=NAME"
            )
    return columns


def _line(
    row: Mapping[str, str],
    columns: Mapping[str, str],
    zone: tzinfo,
    names: Mapping[str, str],
    number: int,
) -> BillLine:
    def cell(name: str) -> str:
        return (row.get(columns[name]) or "").strip() if name in columns else ""

    if cell("currency") not in {"", "USD", "usd"}:
        raise Unknowable(
            f"line {number} of the bill is in {cell('currency')}, not in USD; convert the bill"
        )
    try:
        amount = Decimal(cell("amount").replace("$", "").replace(",", "") or "0")
        quantities = {name: float(cell(name).replace(",", "")) for name in QUANTITIES if cell(name)}
        day = _day(cell("date"), zone)
    except (InvalidOperation, ValueError) as exc:
        raise Unknowable(f"line {number} of the bill cannot be read: {exc}") from None
    if not amount.is_finite():
        raise Unknowable(f"line {number} of the bill: {amount} is not an amount")
    item = cell("item")
    return BillLine(
        day, names.get(item, item), int((amount * NANO_PER_USD).to_integral_value()), quantities
    )


def _day(text: str, zone: tzinfo) -> str:
    """Return a timestamp's day in `zone`. A date without a time stays unchanged."""
    if not text:
        return ""
    if _DIGITS.fullmatch(text):
        return f"{datetime.fromtimestamp(float(text), zone):%F}"
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(zone)
    return f"{moment:%F}"


def _added(lines: Iterable[BillLine]) -> Iterable[BillLine]:
    by_key: dict[tuple[str, str], BillLine] = {}
    for line in lines:
        before = by_key.get((line.day, line.item))
        if before is not None:
            sums = {
                name: before.quantities.get(name, 0.0) + line.quantities.get(name, 0.0)
                for name in {*before.quantities, *line.quantities}
            }
            line = BillLine(line.day, line.item, before.amount_nano + line.amount_nano, sums)  # noqa: PLW2901
        by_key[line.day, line.item] = line
    return by_key.values()
