"""Fixed costs: in proportion to the span, exact to the nano-dollar, and part of the return."""

import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.support.configs import two_backends
from tests.support.journals import NOON, Book
from tollway.gateway import settings as config
from tollway.gateway.cli.main import main
from tollway.reports.fixed_costs import FixedCost, allocate, months
from tollway.reports.totals import Offers, Span, Totals

A, B = "http://127.0.0.1:1", "http://127.0.0.1:2"
NOVEMBER = ("--since", "2026-11-01", "--until", "2026-12-01")


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("2026-11-01", "2026-12-01", Fraction(1)),
        ("2026-11-01", "2026-11-02", Fraction(1, 30)),
        ("2026-02-15", "2026-03-01", Fraction(1, 2)),
        ("2026-10-31", "2026-12-02", Fraction(1, 31) + 1 + Fraction(1, 31)),
        ("2025-12-31", "2027-01-01", Fraction(1, 31) + 12),
        ("2026-11-05", "2026-11-05", Fraction(0)),
    ],
)
def test_months_in_a_span(since: str, until: str, expected: Fraction) -> None:
    assert months(at(since), at(until), UTC) == expected


def test_a_month_of_a_zone_with_summer_time_is_whole() -> None:
    berlin = "Europe/Berlin"
    since_s, until_s = at("2026-10-01", berlin), at("2026-11-01", berlin)
    assert months(since_s, until_s, ZoneInfo(berlin)) == 1
    assert months(since_s, until_s, UTC) != 1


def group(answered: int, *backends: str) -> Totals:
    return Totals(answered=answered, offers={name: Offers() for name in backends})


def test_parts_go_where_they_belong_and_add_up() -> None:
    lines = [
        FixedCost("all", 100),
        FixedCost("one", 10, route="a"),
        FixedCost("gpu", 7, backend="x"),
        FixedCost("nobody", 5, team="t"),
    ]
    groups = {("a", "-"): group(1, "x"), ("b", "-"): group(2, "x", "y"), ("c", "-"): group(0)}
    span = Span(at("2026-11-01"), at("2026-12-01"))
    allocation = allocate(lines, ("route", "team"), groups, span)

    assert allocation.costs == {"all": 100, "one": 10, "gpu": 7, "nobody": 5}
    assert [allocation.nano(line) for line in lines] == [100, 10, 7, 0]
    assert allocation.nano(lines[0], {("a", "-")}) == 33
    assert allocation.nano(lines[2], {("b", "-")}) == 5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    more = """
[[fixed_costs]]
name = "pipelines"
monthly_usd = 3.0

[[fixed_costs]]
name = "ads-only"
monthly_usd = 0.6
team = "ads"
"""
    path = tmp_path / "tollway.toml"
    path.write_text(two_backends(A, B, route="value_per_correct_usd = 1.0", more=more))
    book = Book(tmp_path / ".tollway" / "journal")
    for n in range(9):
        book.request(time_s=NOON + n, tags={"team": "ads" if n % 3 else "web"}, quality=1.0)
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, list[dict[str, int]]]:
    assert main(["report", "roi", *map(str, arguments), "--format", "json"], {}) == 0
    document: dict[str, list[dict[str, int]]] = json.loads(capsys.readouterr().out)
    return document


def test_the_return_is_whole(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = told(capsys, source, *NOVEMBER)
    (row,) = document["Returns"]
    assert row["cost_nano"] == 900_000
    assert row["fixed_cost_nano"] == 3_600_000_000
    assert row["net_nano"] == 9_000_000_000 - 3_600_900_000
    assert row["roi"] == row["net_nano"] / 3_600_900_000
    pipelines, ads = document["Fixed costs"]
    assert pipelines["cost_nano"] == pipelines["counted_nano"] == 3_000_000_000
    assert ads["belongs_to"] == "team ads"


def test_a_filter_bears_its_own_part(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fixed(*arguments: str) -> list[int]:
        rows = told(capsys, source, *NOVEMBER, *arguments)["Returns"]
        return [row["fixed_cost_nano"] for row in rows]

    assert fixed("--where", "team=ads") == [2_000_000_000 + 600_000_000]
    assert fixed("--where", "team=web") == [1_000_000_000]
    assert fixed("--by", "team") == [2_600_000_000, 1_000_000_000]
    assert fixed("--where", "team=none") == []


def test_a_report_without_dates_counts_from_the_first_to_the_last_request(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = told(capsys, source)["Returns"]
    expected = Fraction(3_600_000_000 * 8, 30 * 86_400)  # nine requests, a second apart
    assert row["fixed_cost_nano"] == pytest.approx(float(expected), abs=1)


def test_without_fixed_costs_nothing_is_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Book(tmp_path / "journal").request()
    document = told(capsys, tmp_path / "journal")
    assert "Fixed costs" not in document
    assert "fixed_cost_nano" not in document["Returns"][0]


@pytest.mark.parametrize(
    "asked", [("--until", "1960-01-01"), ("--since", "2030-01-01"), ("--where", "team=adz")]
)
def test_no_request_bears_nothing_and_is_said(
    source: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, str]
) -> None:
    assert main(["report", "roi", str(source), *asked], {}) == 0
    assert capsys.readouterr().out.startswith("No requests ")


@pytest.mark.parametrize("ends", [("0001-01-01", "9999-12-31"), ("9999-12-01", "9999-12-31")])
def test_a_span_without_measure_is_refused(
    source: Path, capsys: pytest.CaptureFixture[str], ends: tuple[str, str]
) -> None:
    Book(source.parent / ".tollway" / "journal").request(time_s=at("9999-12-02"))
    asked = ["report", "roi", str(source), "--since", ends[0], "--until", ends[1]]
    assert main(asked, {}) == 1
    assert "at most a century" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('monthly_usd = 1.0\nroute = "mm"', "fixed_costs[0].route"),
        ('monthly_usd = 1.0\nbackend = "chaep"', "did you mean 'cheap'?"),
        ("monthly_usd = 0", "monthly_usd"),
        ("", "monthly_usd"),
    ],
)
def test_lines_are_checked(line: str, why: str) -> None:
    text = two_backends(A, B, more=f'\n[[fixed_costs]]\nname = "x"\n{line}\n')
    with pytest.raises(config.ConfigError) as raised:
        config.parse(text, {})
    assert why in str(raised.value)
