"""Tables as text and Markdown."""

from tollway.reports import tables
from tollway.reports.tables import Column, Kind, Table

COLUMNS = (
    Column("route", "route"),
    Column("tag", "tag"),
    Column("requests", "requests", Kind.COUNT),
    Column("cost", "cost", Kind.MONEY),
    Column("accuracy", "accuracy", Kind.SHARE),
)
TABLE = Table(
    "Spend", COLUMNS, (("m", "a|b", 3, 1_000_001, 0.5), ("n", "c", 1, 2, None)), "A note of words."
)


def test_a_pipe_gets_every_column_on_one_line() -> None:
    lines = tables.text(TABLE)
    assert lines[1].split() == ["ROUTE", "TAG", "REQUESTS", "COST", "ACCURACY"]
    assert lines[2].split() == ["m", "a|b", "3", "$0.001000001", "50.00%"]
    assert len(lines) == 5


def test_a_narrow_terminal_gets_blocks_and_no_cut_column() -> None:
    lines = tables.text(TABLE, 30)
    assert [line.split() for line in lines if "ROUTE" in line] == [
        ["ROUTE", "TAG", "REQUESTS"],
        ["ROUTE", "TAG", "COST"],
        ["ROUTE", "TAG", "ACCURACY"],
    ]
    assert max(map(len, lines)) <= 30
    assert " ".join(lines).count("$0.001000001") == 1
    assert tables.text(TABLE, 80) == tables.text(TABLE)


def test_a_column_wider_than_the_terminal_is_whole() -> None:
    (line,) = [line for line in tables.text(TABLE, 5) if "$0.001000001" in line]
    assert line.split() == ["m", "a|b", "$0.001000001"]


def test_a_cell_of_markdown_is_no_markup() -> None:
    wild = Table("Tags", COLUMNS[:1], (("<b>|x\n*y*",),))
    text = tables.markdown("Report", "Time zone UTC", [wild])
    assert r"| \<b\>\|x \*y\* |" in text.splitlines()
    assert tables.markdown("R", "", [TABLE]).splitlines()[8] == (
        "| m | a\\|b | 3 | $0.001000001 | 50.00% |"
    )
