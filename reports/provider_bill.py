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

from tollway.gateway.budgets.model import NANO
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
    """What was billed for one item on one day ("" where the bill has no days)."""

    day: str
    item: str
    amount_nano: int
    quantities: Mapping[str, float]


def read(
    path: Path, zone: tzinfo, told: Mapping[str, str], names: Mapping[str, str]
) -> list[BillLine]:
    """Read a bill; `told` renames columns, `names` items. Raises Unknowable if it is unreadable.

    Lines of the same day and item are added up.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = _columns(reader.fieldnames or (), told)
            lines = [_line(row, columns, zone, names, n) for n, row in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise Unknowable(f"{path} cannot be read as CSV: {exc}") from None
    return list(_added(lines))


def _columns(heads: Sequence[str], told: Mapping[str, str]) -> dict[str, str]:
    """Return the bill's own name for each column that is read."""
    known = {head.strip().lower(): head for head in heads}
    if wrong := [name for name in told if name not in COLUMNS]:
        raise Unknowable(f"{wrong[0]!r} is no column that is read; those are {', '.join(COLUMNS)}")
    found: dict[str, str] = {}
    for name, aliases in COLUMNS.items():
        wanted = (told[name].lower(),) if name in told else aliases
        at = next((known[alias] for alias in wanted if alias in known), None)
        if at is not None:
            found[name] = at
        elif name in told or name in {"amount", "item"}:
            raise Unknowable(
                f"the bill has no column {' or '.join(wanted)}, only {', '.join(heads)}; say which "
                f"it is: --column {name}=NAME"
            )
    return found


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
        raise Unknowable(f"line {number} of the bill is in {cell('currency')}, not in dollars")
    try:
        amount = Decimal(cell("amount").replace("$", "").replace(",", "") or "0")
        quantities = {name: float(cell(name).replace(",", "")) for name in QUANTITIES if cell(name)}
        day = _day(cell("date"), zone)
    except (InvalidOperation, ValueError) as exc:
        raise Unknowable(f"line {number} of the bill cannot be read: {exc}") from None
    if not amount.is_finite():
        raise Unknowable(f"line {number} of the bill has no amount: {amount}")
    item = cell("item")
    return BillLine(
        day, names.get(item, item), int((amount * NANO).to_integral_value()), quantities
    )


def _day(text: str, zone: tzinfo) -> str:
    """Return a timestamp's day in `zone`, or a date as it is, in the provider's own zone."""
    if not text:
        return ""
    if _DIGITS.fullmatch(text):
        return f"{datetime.fromtimestamp(float(text), zone):%F}"
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(zone)
    return f"{moment:%F}"


def _added(lines: Iterable[BillLine]) -> Iterable[BillLine]:
    found: dict[tuple[str, str], BillLine] = {}
    for line in lines:
        before = found.get((line.day, line.item))
        if before is not None:
            sums = {
                name: before.quantities.get(name, 0.0) + line.quantities.get(name, 0.0)
                for name in {*before.quantities, *line.quantities}
            }
            line = BillLine(line.day, line.item, before.amount_nano + line.amount_nano, sums)  # noqa: PLW2901
        found[line.day, line.item] = line
    return found.values()
