"""Tables: rows under typed columns, written as text, CSV, Parquet or JSON.

Money is in nano-dollars and is written exactly: in text with as many decimals as needed, in CSV
with nine, in Parquet as decimal(38, 9), in JSON as integers.
"""

import csv
import io
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tollway.backends.money import format_usd, to_usd

Value = str | int | float | None
FORMATS = ("text", "csv", "parquet", "html", "json", "jsonl", "md")
NOTHING = "-"
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # also in full width

_MARKUP = re.compile(r"[\\`*_|<>\[\]~]")


class Unknowable(Exception):  # noqa: N818 - reads as what happened
    """The requested output cannot be produced; the message says what would help."""


class Kind(Enum):
    """The type of a column."""

    TEXT = "text"
    COUNT = "count"
    MONEY = "money"
    SHARE = "share"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name in files, its heading in text, and its type.

    `standard`: the name is defined by a standard, so no unit is appended.
    """

    name: str
    heading: str
    kind: Kind = Kind.TEXT
    standard: bool = False

    @property
    def key(self) -> str:
        """The name in files, with its unit."""
        if self.standard:
            return self.name
        return f"{self.name}_usd" if self.kind is Kind.MONEY else self.name


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values, each of its column's type; money is in integer nano-dollars.

    `total` is the sum of the rows. Files leave it out, because programs compute their own sums.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""
    total: tuple[Value, ...] | None = None

    @property
    def lines(self) -> tuple[tuple[Value, ...], ...]:
        """The rows, followed by the total if there is one."""
        return self.rows if self.total is None else (*self.rows, self.total)


def shown(value: Value, kind: Kind) -> str:
    """Format a value for people."""
    if value is None:
        return NOTHING
    if kind is Kind.MONEY:
        return format_usd(int(value))
    if kind is Kind.SHARE:
        return f"{value:.2%}"
    if kind is Kind.COUNT:
        return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def text(table: Table, width: int | None = None) -> list[str]:
    """Return a table as lines: text aligned left, numbers aligned right.

    A table wider than `width` characters continues in blocks below one another, each beginning with
    the leading columns of text; no column is cut. None: any width.
    """
    kinds = [column.kind for column in table.columns]
    cells = _cells(table)
    heads = [column.heading.upper() for column in table.columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines: list[str] = []
    for block in _blocks(kinds, widths, width):
        for row in (heads, *cells):
            padded = [
                row[at].ljust(widths[at]) if kinds[at] is Kind.TEXT else row[at].rjust(widths[at])
                for at in block
            ]
            lines.append(f"  {'  '.join(padded)}".rstrip())
    note = textwrap.wrap(table.note, width or 10**9, initial_indent="  ", subsequent_indent="  ")
    return [table.title, *(lines if table.columns else []), *note]


def _cells(table: Table) -> list[list[str]]:
    kinds = [column.kind for column in table.columns]
    return [[shown(v, k) for v, k in zip(row, kinds, strict=True)] for row in table.lines]


def _blocks(kinds: list[Kind], widths: list[int], width: int | None) -> list[list[int]]:
    """Return the columns of each block, by index."""
    everything = list(range(len(kinds)))
    if width is None or sum(widths) + 2 * len(widths) <= width:
        return [everything]
    named = next((at for at, kind in enumerate(kinds) if kind is not Kind.TEXT), len(kinds))
    lead, blocks = everything[:named], [everything[:named]]
    for at in everything[named:]:
        taken = sum(widths[one] + 2 for one in blocks[-1])
        if taken + widths[at] + 2 > width and len(blocks[-1]) > len(lead):
            blocks.append(lead.copy())
        blocks[-1].append(at)
    return blocks


def markdown(title: str, lead: str, tables: Sequence[Table]) -> str:
    """Return tables in GitHub's Markdown, below a title and a line about them."""
    return "\n".join([f"# {title}", "", _in_markdown(lead), "", *map(_section, tables)])


def _section(table: Table) -> str:
    heads = [column.heading for column in table.columns]
    rules = ["---" if column.kind is Kind.TEXT else "---:" for column in table.columns]
    rows = [f"| {' | '.join(map(_in_markdown, row))} |" for row in (heads, *_cells(table))]
    rows.insert(1, f"|{'|'.join(rules)}|")
    note = [table.note, ""] if table.note else []
    return "\n".join([f"## {table.title}", "", *rows, "", *note])


def _in_markdown(text: str) -> str:
    """Return a text that stays in its cell and is no markup: clients choose tags' values."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def decimal(nano: int) -> Decimal:
    """Return nano-dollars as dollars, exactly."""
    return Decimal(nano).scaleb(-9)


def as_csv(table: Table) -> str:
    """Return a table as CSV (RFC 4180); unknown values are empty.

    A text that a spreadsheet would take for a formula begins with an apostrophe: clients choose the
    names and values of tags (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_inert(column.key) for column in table.columns])
    for row in table.rows:
        writer.writerow([_cell(v, c.kind) for v, c in zip(row, table.columns, strict=True)])
    return out.getvalue()


def _cell(value: Value, kind: Kind) -> Any:
    if value is None:
        return ""
    if isinstance(value, str):
        return _inert(value)
    return f"{decimal(int(value)):.9f}" if kind is Kind.MONEY else value


def _inert(text: str) -> str:
    """Return a text as a spreadsheet must not compute it."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA_STARTS) else text


def as_json(tables: Sequence[Table]) -> str:
    """Return tables as JSON, keyed by title; money is in integers named `*_nano`."""
    document = {table.title: _objects(table) for table in tables}
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_json_lines(table: Table) -> str:
    """Return a table as JSON, one row on each line."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in _objects(table))


def _objects(table: Table) -> list[dict[str, Value]]:
    return [
        {
            (f"{c.name}_nano" if c.kind is Kind.MONEY else c.name): value
            for c, value in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]


def write_parquet(table: Table, path: Path) -> None:
    """Write a table as Parquet; raise Unknowable if polars is not installed."""
    if find_spec("polars") is None:
        raise Unknowable(
            "Parquet needs polars; install it in a clone of Tollway: pip install '.[simulate]'"
        )
    import polars as pl  # noqa: PLC0415 - an extra, and slow to import

    types: dict[Kind, Any] = {
        Kind.TEXT: pl.String,
        Kind.COUNT: pl.Float64,
        Kind.MONEY: pl.Decimal(38, 9),
        Kind.SHARE: pl.Float64,
        Kind.NUMBER: pl.Float64,
    }
    columns: dict[str, Any] = {}
    for at, column in enumerate(table.columns):
        values = [row[at] for row in table.rows]
        kind: Any = types[column.kind]
        if column.kind is Kind.MONEY:
            values = [None if v is None else decimal(int(v)) for v in values]  # type: ignore[misc]
        elif column.kind is Kind.COUNT and not any(isinstance(v, float) for v in values):
            kind = pl.Int64
        columns[column.key] = pl.Series(values, dtype=kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).write_parquet(path)


def dollars(value: Value) -> float:
    """Return an amount in dollars, for a chart."""
    return 0.0 if value is None else to_usd(float(value))
