"""The FOCUS export, checked by an independent validator."""

import csv
import json
from decimal import Decimal
from pathlib import Path

import polars as pl
from focus_data_toolkit.model.validator import lint_focus_1_4_structure, load_model

from tests.support.journals import NOON, Book
from tollway.gateway.cli.main import main

MANDATORY = {
    name
    for name, told in load_model()["datasets"]["Cost and Usage"]["columns"].items()
    if told["feature_level"] == "Mandatory"
}


def exported(folder: Path, *arguments: str) -> list[dict[str, str]]:
    out = folder / "focus.csv"
    assert main(["report", "focus", str(folder), "--out", str(out), *arguments], {}) == 0
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def journal(folder: Path) -> Book:
    book = Book(folder)
    for _ in range(3):
        book.request(cost_nano=100_001, tags={"cost_center": "ads", "team": 'a, "b"'})
    book.request("dear", 7, tenant="globex", output_tokens=5.0, input_tokens=2.0)
    stream = book.request("dear", 0, provenance="pending")
    book.later("settlement", stream, 900, device_s=0.25, provenance="estimated", backend="dear")
    book.request(time_s=NOON + 86_400 * 8)  # in December
    return book


def test_the_export_passes_a_validator(tmp_path: Path) -> None:
    journal(tmp_path)

    rows = exported(tmp_path)

    report = lint_focus_1_4_structure("Cost and Usage", rows)
    assert not report.violations
    assert len(MANDATORY) == 21
    assert rows[0].keys() >= MANDATORY


def test_the_validator_reports_injected_faults(tmp_path: Path) -> None:
    journal(tmp_path)
    (row, *_) = exported(tmp_path)

    for wrong in ({"BilledCost": ""}, {"BillingCurrency": "dollars"}, {"ChargePeriodEnd": "now"}):
        assert lint_focus_1_4_structure("Cost and Usage", [{**row, **wrong}]).violations


def test_rows_are_the_journals_money(tmp_path: Path) -> None:
    journal(tmp_path)

    rows = exported(tmp_path, "--issuer", "ML platform")

    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.000400910")
    (ads,) = [row for row in rows if row["Tags"] != "{}"]
    assert json.loads(ads["Tags"]) == {"cost_center": "ads", "team": 'a, "b"'}
    assert ads["EffectiveCost"] == ads["ListCost"] == ads["ContractedCost"] == "0.000300003"
    assert (ads["PricingQuantity"], ads["PricingUnit"], ads["ConsumedUnit"]) == (
        "3",
        "Requests",
        "Requests",
    )
    assert ads["InvoiceIssuerName"] == "ML platform"
    assert ads["ChargeClass"] == ""
    assert (ads["ChargePeriodStart"], ads["ChargePeriodEnd"]) == (
        "2026-11-23T00:00:00Z",
        "2026-11-24T00:00:00Z",
    )
    (stream,) = [row for row in rows if row["x_Provenance"] == "estimated"]
    assert (stream["ConsumedQuantity"], stream["ConsumedUnit"]) == ("0.25", "Seconds")
    (tokens,) = [row for row in rows if row["SubAccountId"] == "globex"]
    assert (tokens["ConsumedQuantity"], tokens["ServiceSubcategory"]) == ("7.0", "Generative AI")
    months = {(row["BillingPeriodStart"], row["BillingPeriodEnd"]) for row in rows}
    assert months == {
        ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
    }


def test_hours_and_parquet(tmp_path: Path) -> None:
    journal(tmp_path)
    (row, *_) = exported(tmp_path, "--period", "hour", "--timezone", "Europe/Berlin")
    out = tmp_path / "focus.parquet"
    assert main(["report", "focus", str(tmp_path), "--out", str(out)], {}) == 0
    frame = pl.read_parquet(out)

    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == (
        "2026-11-23T12:00:00Z",
        "2026-11-23T13:00:00Z",
    )
    assert frame["BilledCost"].sum() == Decimal("0.000400910")
    assert frame["ChargeClass"].null_count() == len(frame)
