"""A bill compared with the journal: differences are found, and their cause named."""

import json
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.journals import Book
from tollway.backends.pricing import Price
from tollway.gateway.cli.main import main
from tollway.reports.provider_bill import BillLine, read
from tollway.reports.reconciliation import Reconciliation, compare
from tollway.reports.tables import Unknowable
from tollway.reports.totals import Totals

PRICE = Price(input_token_nano=1000.0, cached_input_token_nano=100.0, output_token_nano=10_000.0)
CALLS, READ, WRITTEN = 1000, 800_000.0, 200_000.0
COST = int(READ * 1000 + WRITTEN * 10_000)  # $2.80
USED = {"requests": CALLS, "input_tokens": READ, "output_tokens": WRITTEN}


def totals(**more: Any) -> Totals:
    told = {"calls": CALLS, "cost_nano": COST, "input_tokens": READ, "output_tokens": WRITTEN}
    return Totals(**{**told, **more})


def judged(
    amount_nano: float, quantities: dict[str, float] | None = None, **charged: Any
) -> Reconciliation:
    line = BillLine("2026-11-23", "chat", round(amount_nano), quantities or {})
    (found,) = compare(
        [line], {("2026-11-23", "chat"): totals(**charged)}, {"chat": PRICE}, tolerance=0.005
    )
    return found


def more(**grown: float) -> dict[str, float]:
    return {name: count * grown.get(name, 1.0) for name, count in USED.items()}


@pytest.mark.parametrize(
    ("found", "cause", "note"),
    [
        (judged(COST), "agrees", ""),
        (judged(COST * 1.004), "agrees", ""),
        (judged(COST * 1.1, more(), calls=CALLS), "price", "at 1.1 times the configured price"),
        (
            judged(COST * 1.2, more(requests=1.2, input_tokens=1.2, output_tokens=1.2)),
            "calls",
            "200 more calls than in the journal: not made through this gateway",
        ),
        (
            judged(COST * 0.9, more(requests=0.9, input_tokens=0.9, output_tokens=0.9)),
            "calls",
            "100 fewer calls",
        ),
        (
            judged(COST + WRITTEN * 0.5 * 10_000, more(output_tokens=1.5)),
            "usage",
            "counted differently: output tokens x1.500",
        ),
        (
            judged(COST, cached_input_tokens=400_000.0, cost_nano=COST - 400_000 * 900),
            "cached tokens",
            "400,000 cached tokens were billed at the full price",
        ),
        (judged(COST * 1.05, calls=1050, refused_calls=50), "failed calls", "50 calls assumed"),
        (judged(COST * 1.3, estimated_nano=COST), "estimates", "100% of the charged amount"),
        (judged(COST * 1.3), "unexplained", "the bill has no quantities"),
        (judged(COST * 2, more(requests=1.2)), "unexplained", "partly: 200 more calls"),
    ],
)
def test_the_cause_of_a_drift_is_named(found: Reconciliation, cause: str, note: str) -> None:
    assert (found.cause, note in found.note) == (cause, True), found


def test_lines_that_only_one_side_has_are_reported() -> None:
    bill = [BillLine("", "chat", COST, {}), BillLine("", "other", 10_000_000, {})]

    found = compare(bill, {("", "chat"): totals(), ("", "rules"): totals()}, {}, 0.005)

    assert [(d.backend, d.cause) for d in found] == [
        ("chat", "agrees"),
        ("other", "not in journal"),
        ("rules", "not billed"),
    ]


def test_one_factor_on_all_lines_is_a_tax() -> None:
    bill = [BillLine("", name, round(COST * n * 1.19), {}) for n, name in enumerate("abc", 1)]
    charged = {("", name): totals(cost_nano=COST * n) for n, name in enumerate("abc", 1)}

    found = compare(bill, charged, {}, 0.005)

    assert {d.cause for d in found} == {"factor"}
    assert "every line is 1.19 times the charged amount" in found[0].note


def test_days_in_another_time_zone_are_recognised_by_their_sum() -> None:
    days = [f"2026-11-{day}" for day in (21, 22, 23)]
    ours, billed = (COST, 2 * COST, COST), (1.5 * COST, 1.2 * COST, 1.3 * COST)
    bill = [BillLine(day, "chat", round(nano), {}) for day, nano in zip(days, billed, strict=True)]
    charged = {(d, "chat"): totals(cost_nano=n) for d, n in zip(days, ours, strict=True)}

    assert {d.cause for d in compare(bill, charged, {}, 0.005)} == {"days"}


def bill(folder: Path, text: str, **columns: str) -> list[BillLine]:
    path = folder / "bill.csv"
    path.write_text(text)
    return read(path, UTC, columns, {"gpt": "chat"})


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("date,model,num_model_requests,cost\n2026-11-23,gpt,3,$1.25\n", {}),
        (
            "ChargePeriodStart,ResourceId,PricingQuantity,BilledCost,BillingCurrency\n"
            "2026-11-23T00:00:00Z,gpt,1,0.25,USD\n2026-11-23T05:00:00Z,gpt,2,1.00,USD\n",
            {},
        ),
        ("start_time,line_item,calls,amount_value\n1795392000,gpt,3,1.25\n", {}),
        ('Tag;x\n"When",Was,calls,"Sum"\n', None),
        ("When,Was,calls,Sum\n2026-11-23,gpt,3,1.25\n", {"item": "Was"}),
    ],
)
def test_bills_are_read_by_the_names_of_their_columns(
    tmp_path: Path, text: str, columns: dict[str, str] | None
) -> None:
    if columns is None or columns:
        with pytest.raises(Unknowable, match="--column amount=NAME"):
            bill(tmp_path, text, **(columns or {}))
        if columns is None:
            return
        columns = {**columns, "amount": "sum", "date": "when"}
    assert bill(tmp_path, text, **columns) == [
        BillLine("2026-11-23", "chat", 1_250_000_000, {"requests": 3.0})
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("item,amount,currency\na,1,EUR\n", "line 2 of the bill is in EUR"),
        ("item,amount\na,NaN\n", "NaN is not an amount"),
        ("item,amount\na,one\n", "line 2 of the bill cannot be read"),
        ("item,amount,date\na,1,soon\n", "line 2 of the bill cannot be read"),
    ],
)
def test_a_bill_that_cannot_be_read_says_why(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(Unknowable, match=why):
        bill(tmp_path, text)


def test_a_bill_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = two_backends("http://127.0.0.1:1", "http://127.0.0.1:2")
    (tmp_path / "tollway.toml").write_text(config)
    book = Book(tmp_path / ".tollway" / "journal")
    for _ in range(10):
        book.request(cost_nano=10**9)
    (tmp_path / "bill.csv").write_text("model,requests,amount\nsmall,12,12.00\n")
    asked = ["report", "invoice", str(tmp_path / "tollway.toml"), "--format", "json"]

    assert main([*asked, "--bill", str(tmp_path / "bill.csv")], {}) == 0

    (line,) = json.loads(capsys.readouterr().out)["Bill and journal"]
    assert (line["backend"], line["drift_nano"], line["cause"]) == ("cheap", 2 * 10**9, "calls")
    assert line["note"].startswith("2 more calls than in the journal")


def test_our_own_focus_dataset_as_a_bill_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = Book(tmp_path)
    book.request(cost_nano=10**9)
    book.request("dear", 3 * 10**9, tags={"a": "b"})
    out = str(tmp_path / "focus.csv")
    assert main(["report", "focus", str(tmp_path), "--out", out], {}) == 0
    assert main(["report", "invoice", str(tmp_path), "--bill", out, "--format", "csv"], {}) == 0
    told = capsys.readouterr().out
    assert told.count(",agrees,") == 2
