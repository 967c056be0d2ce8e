"""Pages: self-contained, valid XML, the same bytes for the same values."""

import math
import re
import xml.etree.ElementTree as ET

from tollway.simulations.report import page as report
from tollway.simulations.report.charts import NOTHING, Axis, Bar, Mark, Series, bars, chart, number

X, Y = Axis("hours"), Axis("quality", percent=True)
ROWS = [
    Series("learned <1>", [0, 1, 2, 3], [0.8, 0.9, math.nan, 0.95], [0.7] * 4, [1.0] * 4),
    Series("fixed", [0, 3], [0.85, 0.86], style="step", dashed=True),
    Series("mixes", [1.0, 2.0], [0.5, 0.6], names=["a & b", "c"], style="dots"),
]
MARKS = [Mark("price cut", x=2.5), Mark("floor", y=0.9)]


def a_page() -> str:
    return report.page(
        "A day & a night",
        report.tiles([("regret", "1.2", "points")]),
        report.section("Quality", report.plot(ROWS, X, Y, "What is seen.", MARKS)),
        report.plot_bars([Bar("large", 0.9, 0.8, 0.95), Bar("none", math.nan)], Y, "Bars."),
        report.table(["arm", "cost"], [["large <b>", 0.00012345], ["small", None]], "Costs."),
        lead="All of it.",
        foot="tollway",
    )


def test_a_picture_is_sound_xml_with_every_series_in_it() -> None:
    root = ET.fromstring(chart(ROWS, X, Y, MARKS))
    assert root.attrib["role"] == "img"
    kinds = [part.attrib.get("class", "") for part in root.iter()]
    assert {"c0 line", "c0 band", "c1 line dashed", "c2 dot", "mark"} <= set(kinds)
    assert "price cut" in "".join(root.itertext())


def test_a_value_that_is_not_there_is_a_gap_in_its_line() -> None:
    path = re.search(r'class="c0 line" d="([^"]*)"', chart(ROWS, X, Y))
    assert path is not None
    assert path[1].count("M") == 2


def test_bars_show_their_intervals() -> None:
    root = ET.fromstring(bars([Bar("a", 2.0, 1.0, 3.0), Bar("b", -1.0)], Axis("points")))
    kinds = [part.attrib.get("class", "") for part in root.iter()]
    assert kinds.count("whisker ink") == 1
    assert kinds.count("c0 bar") == 2


def test_a_page_needs_nothing_from_anywhere() -> None:
    html = a_page()
    assert not re.search(r"<script|https?://|url\(|@import|<link", html)
    assert "prefers-color-scheme:dark" in html and "@media print" in html


def test_what_is_shown_is_escaped() -> None:
    html = a_page()
    assert "A day &amp; a night" in html
    assert "large &lt;b&gt;" in html
    assert "learned &lt;1&gt;" in html


def test_the_same_values_make_the_same_bytes() -> None:
    assert a_page() == a_page()


def test_a_line_of_a_million_points_stays_small() -> None:
    count = 1_000_000
    assert len(chart([Series("a", range(count), [0.5] * count)], X, Y)) < 100_000


def test_numbers_are_written_for_people() -> None:
    assert [number(v) for v in (0.0, 1234567.8, 0.123456, 0.00012, math.nan)] == [
        "0",
        "1,234,568",
        "0.123",
        "1.20e-4",
        NOTHING,
    ]
    assert number(0.9731, percent=True) == "97.3 %"


def test_axes_end_somewhere_for_constant_and_missing_values() -> None:
    for values in ([], [1.0], [0.0, 0.0], [math.nan]):
        for log in (False, True):
            ET.fromstring(chart([Series("a", range(len(values)), values)], X, Axis("y", log=log)))
