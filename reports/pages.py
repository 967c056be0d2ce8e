"""Pages: a report as one HTML file, in the style of the simulator's reports."""

from collections.abc import Sequence
from datetime import datetime
from html import escape

from tollway.gateway.budgets.model import NANO
from tollway.reports.tables import NOTHING, Kind, Table, dollars, shown
from tollway.reports.totals import Totals
from tollway.simulations.report import page as report

BARS_MAX = 30  # more bars are unreadable; the table has every row


def page(title: str, lead: str, whole: Totals, tables: Sequence[Table]) -> str:
    """Return the page of a report; `whole` is the grand total."""
    parts = [report.tiles(_tiles(whole))]
    for at, one in enumerate(tables):
        picture = [_picture(one)] if at == 0 else []
        parts.append(report.section(one.title, *filter(None, picture), _table(one)))
    foot = f"Made by tollway report from the journal, {datetime.now().astimezone():%Y-%m-%d %H:%M}."
    return report.page(title, *parts, lead=lead, foot=foot)


def _tiles(whole: Totals) -> list[tuple[str, str, str]]:
    """Return the headline figures, rounded. The tables have the exact values."""
    found = [
        ("Cost", _rounded(whole.cost_nano), f"{whole.calls:,} calls"),
        ("Answered", f"{whole.answered:,}", f"of {whole.requests:,} requests"),
        ("Per answer", _rounded(whole.per(whole.answered)), ""),
    ]
    if whole.accuracy is not None:
        found.append(("Accuracy", f"{whole.accuracy:.2%}", f"by {whole.labels:,} labels"))
        found.append(("Per right answer", _rounded(whole.per(whole.correct)), ""))
    return found


def _rounded(nano: int | None) -> str:
    """Return an amount with three significant digits; from one dollar up, with cents."""
    if nano is None:
        return NOTHING
    usd = nano / NANO
    return (
        f"${usd:,.2f}" if abs(usd) >= 1 else f"${float(f'{usd:.3g}'):.9f}".rstrip("0").ljust(5, "0")
    )


def _picture(table: Table) -> str:
    """Return a bar chart of a table's cost by its first columns, if it has a cost."""
    at = next((n for n, one in enumerate(table.columns) if one.name == "cost"), None)
    words = [n for n, one in enumerate(table.columns) if one.kind is Kind.TEXT]
    if at is None or not 1 < len(table.rows) <= BARS_MAX:
        return ""
    bars = [
        report.Bar(" ".join(str(row[n]) for n in words if row[n]), dollars(row[at]))
        for row in table.rows
    ]
    return report.plot_bars(bars, report.Axis("dollars"), "What each has cost.")


def _table(table: Table) -> str:
    """Return a table's HTML; figures are exact, so they are written as text."""
    heads = "".join(
        f"<th{'' if column.kind is Kind.TEXT else _HEAD}>{escape(column.heading)}</th>"
        for column in table.columns
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td{'' if column.kind is Kind.TEXT else _RIGHT}>"
            f"{escape(shown(value, column.kind))}</td>"
            for value, column in zip(row, table.columns, strict=True)
        )
        + "</tr>"
        for row in table.lines
    )
    note = report.text(table.note) if table.note else ""
    return (
        f"<div class='scroll'><table><thead><tr>{heads}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>{note}"
    )


_RIGHT, _HEAD = " class='n'", " style='text-align:right'"
