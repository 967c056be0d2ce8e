"""Pages: a report as one HTML file, in the look of the simulator's."""

from collections.abc import Sequence
from datetime import datetime
from html import escape

from gateway import console
from reports.tables import Kind, Table, dollars, shown
from reports.totals import Totals
from simulations import report

BARS_MAX = 30  # more are no picture any more; the table has them all


def page(title: str, lead: str, whole: Totals, tables: Sequence[Table]) -> str:
    """Return the page of a report; `whole` is what everything comes to."""
    parts = [report.tiles(_tiles(whole))]
    for at, one in enumerate(tables):
        picture = [_picture(one)] if at == 0 else []
        parts.append(report.section(one.title, *filter(None, picture), _table(one)))
    foot = f"Made by tollway report from the journal, {datetime.now().astimezone():%Y-%m-%d %H:%M}."
    return report.page(title, *parts, lead=lead, foot=foot)


def _tiles(whole: Totals) -> list[tuple[str, str, str]]:
    each, correct = whole.per(whole.answered), whole.per(whole.correct)
    found = [
        ("Cost", console.usd(whole.cost_nano), f"{whole.calls:,} calls"),
        ("Answered", f"{whole.answered:,}", f"of {whole.requests:,} requests"),
        ("Per answer", shown(each, Kind.MONEY), ""),
    ]
    if whole.accuracy is not None:
        found.append(("Accuracy", f"{whole.accuracy:.2%}", f"by {whole.labels:,} labels"))
        found.append(("Per right answer", shown(correct, Kind.MONEY), ""))
    return found


def _picture(table: Table) -> str:
    """Return bars of a table's cost, where it has some, by its first columns."""
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
    """Return a table's HTML; its figures are exact, so they are written as texts."""
    heads = "".join(f"<th>{escape(column.heading)}</th>" for column in table.columns)
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


_RIGHT = " class='n'"
