"""Makes a report: one self-contained HTML page with tables and charts, for screen and print.

It fetches nothing and runs no script, so a page opens from a mail or a build artefact and stays
readable for years. The same values give the same bytes.

    write(path, page("A day", section("Quality", figure(chart(...), "What the chart shows."))))
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tollway.simulations.report.charts import (
    NOTHING,
    Axis,
    Bar,
    Mark,
    Series,
    bars,
    chart,
    legend,
    number,
)

__all__ = ["Axis", "Bar", "Mark", "Series", "figure", "number", "page", "plot", "plot_bars"]
__all__ += ["section", "table", "text", "tiles", "write"]

Cell = str | float | int | None


def page(title: str, *parts: str, lead: str = "", foot: str = "") -> str:
    """Return a page of `parts`, which are HTML; `lead` and `foot` are plain text."""
    intro = f"<p class='lead'>{escape(lead)}</p>" if lead else ""
    end = f"<footer>{escape(foot)}</footer>" if foot else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>{intro}\n{chr(10).join(parts)}\n{end}</main></body>"
        "</html>\n"
    )


def write(path: Path, html: str) -> None:
    """Write a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def section(title: str, *parts: str) -> str:
    """Return a section of a page with its own heading."""
    return f"<section><h2>{escape(title)}</h2>\n{chr(10).join(parts)}</section>"


def text(words: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(words)}</p>"


def figure(picture: str, caption: str) -> str:
    """Return a picture (its HTML) with its caption."""
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def plot(
    series: Sequence[Series], x: Axis, y: Axis, caption: str, marks: Sequence[Mark] = ()
) -> str:
    """Return a chart of points with its legend and its caption."""
    names, dashed = [one.name for one in series], [one.dashed for one in series]
    key = legend(names, dashed) if len(names) > 1 else ""
    return figure(key + chart(series, x, y, marks), caption)


def plot_bars(values: Sequence[Bar], x: Axis, caption: str, marks: Sequence[Mark] = ()) -> str:
    """Return bars with their caption."""
    return figure(bars(values, x, marks), caption)


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> str:
    """Return a table; numbers have three significant digits and are aligned right."""
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f"<div class='scroll'><table>{named}<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Return the headline figures, each as (label, value, note)."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in figures
    )
    return f"<dl class='tiles'>{cells}</dl>"


def _cell(value: Cell) -> str:
    if value is None:
        return f"<td class='n'>{NOTHING}</td>"
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f"<td class='n'>{number(value)}</td>"


# Okabe and Ito's palette, safe for most colour-blind readers; darker on white.
_LIGHT = ("#0067a5", "#c8500a", "#00805e", "#a8407f", "#8a6d00", "#3b8fc4", "#6b6b6b", "#5a3fa0")
_DARK = ("#5ab4f0", "#f59a4a", "#3ecfa0", "#e58fc0", "#e6c84a", "#9bd2f5", "#b5b5b5", "#b59cf0")


def _palette(colours: Sequence[str]) -> str:
    return "".join(f"--c{at}:{colour};" for at, colour in enumerate(colours))


_LIGHT_STYLE = (
    "--ink:#1c2024;--soft:#5c646c;--rule:#dfe3e6;--paper:#fff;--tile:#f5f7f8;"
    f"{_palette(_LIGHT)}color-scheme:light"
)
_DARK_STYLE = (
    "--ink:#e8eaec;--soft:#a0a8b0;--rule:#353b41;--paper:#15181b;--tile:#1e2226;"
    f"{_palette(_DARK)}color-scheme:dark"
)
_COLOURED = "".join(f".c{at}{{--c:var(--c{at})}}" for at in range(len(_LIGHT)))
_STYLE = f"""
:root{{{_LIGHT_STYLE}}}
@media screen and (prefers-color-scheme:dark){{:root{{{_DARK_STYLE}}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}}
main{{max-width:60rem;margin:0 auto;padding:2rem 1.25rem 3rem}}
h1{{font-size:1.75rem;line-height:1.2;margin:0 0 .5rem}}
h2{{font-size:1.2rem;margin:2.25rem 0 .75rem}}
.lead{{color:var(--soft);max-width:46rem;margin:0 0 1.25rem}}
p{{max-width:46rem}}
.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}}
caption{{text-align:left;color:var(--soft);padding-bottom:.4rem}}
th,td{{text-align:left;padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--rule);
vertical-align:top;white-space:nowrap}}
th{{font-weight:600;color:var(--soft)}}
td.n{{text-align:right}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:0}}
.tiles div{{background:var(--tile);border-radius:.5rem;padding:.7rem .9rem}}
.tiles dt{{color:var(--soft);font-size:.8rem}}
.tiles dd{{margin:0;font-size:1.45rem;font-weight:600;line-height:1.3}}
.tiles small{{display:block;font-size:.78rem;font-weight:400;color:var(--soft)}}
figure{{margin:1rem 0 1.75rem}}
figcaption{{color:var(--soft);font-size:.875rem;max-width:46rem;margin-top:.35rem}}
.chart{{display:block;width:100%;height:auto;overflow:visible}}
.legend{{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:0 0 .3rem;padding:0;
font-size:.875rem}}
.key{{width:22px;height:8px;margin-right:.4rem;vertical-align:middle}}
{_COLOURED}
.line{{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}}
.dashed{{stroke-dasharray:6 4}}
.dot{{fill:var(--c)}}
.band{{fill:var(--c);opacity:.16;stroke:none}}
.bar{{fill:var(--c)}}
.whisker{{stroke:var(--c);stroke-width:1.6;fill:none}}
.ink{{stroke:var(--ink)}}
.grid{{stroke:var(--rule);stroke-width:1;fill:none}}
.mark{{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3;fill:none}}
.tick{{fill:var(--soft);font-size:12px;text-anchor:middle}}
.end{{text-anchor:end}}.begin{{text-anchor:start}}
.axis{{fill:var(--ink);font-size:12.5px;text-anchor:middle}}
footer{{margin-top:2.5rem;color:var(--soft);font-size:.8rem;border-top:1px solid var(--rule);
padding-top:.75rem;overflow-wrap:anywhere}}
@media print{{body{{font-size:11pt}}main{{max-width:none;padding:0}}
.scroll{{overflow:visible}}th,td{{white-space:normal}}
figure,table,.tiles{{break-inside:avoid}}h2{{break-after:avoid}}}}
"""
