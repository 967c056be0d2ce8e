"""`tollway report`: what it writes, and that all forms say the same."""

import csv
import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from tests.support.configs import two_backends
from tests.support.journals import NOON, Book
from tollway.gateway.cli.main import main

VALUE = 'value_per_correct_usd = 0.01\naccuracy_floor = 0.85\nobjective = "value"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tollway.toml").write_text(
        two_backends("http://127.0.0.1:1", "http://127.0.0.1:2", route=VALUE)
    )
    book = Book(tmp_path / ".tollway" / "journal")
    for n in range(10):
        tags = {"cost_center": "ads" if n % 2 else "search", "flight": f"f{n % 5}"}
        book.request(time_s=NOON + 36_000 * n, tags=tags, quality=float(n > 1))
    book.request("dear", 1_000_001, tenant="globex", reason="explore")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["report", *map(str, arguments)], {}) == 0
    return capsys.readouterr().out


def test_days_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "daily", folder)

    lines = [line.split()[:5] for line in text.splitlines()]
    assert ["2026-11-23", "3", "3", "3", "$0.001200001"] in lines
    assert ["all", "11", "11", "11", "$0.002000001"] in lines
    assert "By cost center" in text
    assert "By team" not in text  # no request has that tag
    assert "\n  globex  " in text


def test_every_form_has_the_same_money(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("tenants", folder, "--by", "flight")
    rows = list(csv.DictReader(told(capsys, *asked, "--format", "csv").splitlines()))
    told(capsys, *asked, "--out", folder / "out" / "t.parquet")
    frame = pl.read_parquet(folder / "out" / "t.parquet")
    document = json.loads(told(capsys, *asked, "--format", "json"))
    told(capsys, *asked, "--out", folder / "t.html")

    assert [row["tenant"] for row in rows] == ["acme"] * 5 + ["globex"]  # and no total
    assert sum(Decimal(row["cost_usd"]) for row in rows) == Decimal("0.002000001")
    assert frame["cost_usd"].to_list() == [Decimal(row["cost_usd"]) for row in rows]
    nano = [row["cost_nano"] for row in document["Spend by tenant"]]
    assert nano == [int(Decimal(row["cost_usd"]) * 10**9) for row in rows]
    page = (folder / "t.html").read_text()
    assert "<td class='n'>$0.001000001</td>" in page
    assert "<script" not in page


def test_return_on_what_was_spent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(told(capsys, "roi", folder / "tollway.toml", "--format", "json"))

    (row,) = document["Returns"]
    assert row["accuracy"] == 0.8
    assert row["cost_nano"] == 2_000_001
    assert row["cost_per_correct_nano"] == round(2_000_001 / 8.8)
    assert row["value_nano"] == 88_000_000  # 11 answers, 80 % of them right, a cent each
    assert row["net_nano"] == 88_000_000 - 2_000_001
    assert row["cost_per_value_dollar_nano"] == round(2_000_001 / 0.088)
    assert row["exploration_nano"] == 900_000
    cheap, dear = document["Savings against fixed backends"]
    assert (cheap["bar"], dear["bar"]) == ("", "reference, best fixed")
    assert (cheap["declared_accuracy"], dear["declared_accuracy"]) == (0.8, 0.99)
    assert dear["would_have_cost_nano"] == 11_000_000
    assert dear["saved_nano"] == 11_000_000 - 2_000_001
    assert dear["accuracy_gained"] == pytest.approx(0.8 - 0.99)  # beside what it saved
    assert dear["accuracy_gained_low"] < dear["accuracy_gained"] < dear["accuracy_gained_high"]
    assert (row["accuracy_high"] - 0.99) == pytest.approx(dear["accuracy_gained_high"])


def test_a_fixed_backend_that_would_have_done_better_is_said_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder / "tollway.toml"
    assert "would have been more accurate" not in told(capsys, "roi", source)  # cheap is at 80 %
    book = Book(folder / ".tollway" / "journal")
    for _ in range(40):
        book.request("dear", 1_000_001, quality=0.0)  # as dear as always dear, and wrong

    text = told(capsys, "roi", source)
    first = text.splitlines()[0]
    assert first.startswith("Route m: always cheap would have been more accurate by +")
    assert "(+" in first  # the interval excludes zero
    told(capsys, "roi", source, "--out", folder / "r.html")
    assert "always cheap would have been" in (folder / "r.html").read_text()
    assert main(["report", "roi", str(source), "--format", "json"], {}) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)
    assert "note: Route m: always cheap" in printed.err


def test_a_predicted_accuracy_chooses_a_baseline_and_is_not_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollway.reports.returns.KNOWN_LABELS", 7)  # as many as the book has
    document = json.loads(told(capsys, "roi", folder, "--format", "json"))
    cheap, dear = document["Savings against fixed backends"]
    assert cheap["declared_accuracy"] is dear["declared_accuracy"] is None
    assert dear["bar"].startswith("reference")
    assert dear["bar"].endswith("(predicted)")


def test_filters_and_spans(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cost(*arguments: object) -> int:
        document = json.loads(told(capsys, "daily", folder, "--format", "json", *arguments))
        return sum(row["cost_nano"] for row in document["Spend by day"])

    assert cost("--where", "tenant=globex") == 1_000_001
    assert cost("--where", "cost_center=ads", "--where", "tenant=acme") == 500_000
    assert cost("--since", "2026-11-24", "--until", "2026-11-26") == 400_000
    assert cost("--since", "2030-01-01") == 0


def test_what_a_gateway_left_open_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Book(folder / ".tollway" / "journal").request(cost_nano=0, provenance="pending")
    assert main(["report", "daily", str(folder)], {}) == 0
    assert "1 streams have no end in the journal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["daily", "/nowhere"], "no journal at /nowhere"),
        (["daily", "FOLDER", "--timezone", "Mars/Olympus"], "is not a time zone"),
        (["daily", "FOLDER", "--since", "yesterday"], "is not a date"),
        (["daily", "FOLDER", "--where", "acme"], "is not NAME=VALUE"),
        (["daily", "FOLDER", "--format", "parquet"], "add --out FILE"),
        (["daily", "FOLDER", "--out", "report.xlsx"], "use one of .csv, .json, .jsonl, .parquet"),
        (["daily", "FOLDER", "--out", "report"], "names no form"),
        (["daily", "FOLDER", "--by", "fligth"], "did you mean 'flight'?"),
        (["tenants", "FOLDER", "--by", "zzz"], "use one of backend, cost_center, day"),
        (["daily", "FOLDER", "--where", "fligth=f1"], "did you mean 'flight'?"),
        (["roi", "FOLDER", "--where", "backend=dear"], "remove them from --where"),
        (["roi", "FOLDER", "--by", "backend"], "requests cannot be grouped by backend"),
    ],
)
def test_what_cannot_be_computed_is_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    asked = [str(folder) if one == "FOLDER" else one for one in arguments]
    assert main(["report", *asked], {}) == 1
    assert why in capsys.readouterr().err


def test_a_suffix_chooses_the_form(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("t.csv", "t.json", "t.jsonl", "t.md", "t.TXT", "t.htm"):
        assert told(capsys, "tenants", folder, "--out", folder / name) == ""
    rows = [json.loads(line) for line in (folder / "t.jsonl").read_text().splitlines()]

    assert rows == json.loads((folder / "t.json").read_text())["Spend by tenant"]
    assert (folder / "t.csv").read_text().startswith("tenant,requests,")
    assert (folder / "t.md").read_text().startswith("# Spend by tenant\n")
    assert (folder / "t.TXT").read_text().startswith("Spend by tenant\n  TENANT ")
    assert (folder / "t.htm").read_text().startswith("<!doctype html>")
    told(capsys, "tenants", folder, "--out", folder / "named", "--format", "csv")
    assert (folder / "named").read_text() == (folder / "t.csv").read_text()


def test_a_thousand_requests_and_intervals(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(told(capsys, "tenants", folder, "--format", "json"))

    acme, globex = document["Spend by tenant"]
    assert acme["cost_per_1000_nano"] == 100_000_000
    assert acme["accuracy_low"] < acme["accuracy"] == 0.8 < acme["accuracy_high"]
    assert globex["accuracy_low"] is globex["accuracy_high"] is None


def test_nothing_found_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--where", "route=n", "--since", "2026-11-01", "--until", "2026-12-01")
    text = told(capsys, "daily", folder, *asked)
    assert text == (
        "No requests of route n from 2026-11-01 00:00:00 until 2026-12-01 00:00:00; "
        "there is route m\n"
    )
    assert main(["report", "daily", str(folder), *asked, "--format", "csv"], {}) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("day,requests")  # and a program still gets its columns
    assert "note: No requests of route n" in printed.err


def test_a_filter_by_backend_selects_calls(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("daily", folder, "--where", "backend=dear", "--format", "json")
    (day,) = json.loads(told(capsys, *asked))["Spend by day"]
    assert (day["calls"], day["requests"], day["cost_nano"]) == (1, 0, 1_000_001)
