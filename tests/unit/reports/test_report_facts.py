"""Totals of journal rows."""

from pathlib import Path
from zoneinfo import ZoneInfo

from tests.support.journals import NOON, Book
from tollway.gateway.storage.journal_reader import files
from tollway.reports.facts import Damage, read
from tollway.reports.totals import Grouping, Span, Totals, add_up


def summed(
    folder: Path, *by: str, span: Span | None = None, damage: Damage | None = None
) -> dict[tuple[str, ...], Totals]:
    grouping = Grouping(by, span or Span())
    add_up(read(files([folder]), damage or Damage()), grouping)
    return grouping.groups


def test_a_streams_cost_is_its_settlements(tmp_path: Path) -> None:
    book, damage = Book(tmp_path), Damage()
    first = book.request(cost_nano=0, provenance="pending")
    book.request(cost_nano=0, provenance="pending")
    book.later("settlement", first, 700_001, output_tokens=50.0)

    (whole,) = summed(tmp_path, damage=damage).values()

    assert (whole.cost_nano, whole.calls, whole.answered) == (700_001, 1, 2)
    assert whole.output_tokens == 50
    assert len(damage.open) == 1
    assert set(summed(tmp_path, "provenance")) == {("usage",)}


def test_audits_cost_money_and_answer_no_request(tmp_path: Path) -> None:
    book = Book(tmp_path)
    answered = book.request()
    book.later("attempt", answered, 1_000_000, audit=0.01, backend="dear")
    failed = book.request(error="status 500", status=500)
    book.later("attempt", failed, 1_000_000, audit=0.01)

    (whole,) = summed(tmp_path).values()

    assert (whole.requests, whole.answered, whole.calls, whole.audits) == (2, 1, 4, 2)
    assert (whole.cost_nano, whole.audit_nano) == (2_200_000, 2_000_000)


def test_labels_from_audits_do_not_count_for_accuracy(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.feedback(book.request(), 0.0, probability=0.02)
    book.request(quality=1.0)
    book.request(quality=0.5)

    (whole,) = summed(tmp_path).values()

    assert (whole.labels, whole.accuracy) == (2, 0.75)
    assert whole.correct == 2.25


def test_days_begin_where_the_zone_says(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.request(time_s=NOON)
    book.request(time_s=NOON + 11.5 * 3600)  # half past midnight in Berlin

    assert set(summed(tmp_path, "day")) == {("2026-11-23",)}
    berlin = Span(zone=ZoneInfo("Europe/Berlin"))
    assert set(summed(tmp_path, "day", span=berlin)) == {("2026-11-23",), ("2026-11-24",)}
    kathmandu = Span(zone=ZoneInfo("Asia/Kathmandu"))  # 45 minutes beside the hours
    assert set(summed(tmp_path, "hour", span=kathmandu)) == {
        ("2026-11-23T17:00",),
        ("2026-11-24T05:00",),
    }


def test_a_span_has_its_beginning_and_not_its_end(tmp_path: Path) -> None:
    book = Book(tmp_path)
    for hours in range(3):
        book.request(time_s=NOON + 3600 * hours)

    (whole,) = summed(tmp_path, span=Span(NOON, NOON + 7200)).values()

    assert whole.requests == 2


def test_money_is_split_by_tags_and_untagged_money_is_shown(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.request(tags={"cost_center": "ads"})
    book.request(tags={"cost_center": "ads"}, backend="dear", cost_nano=1_000_000)
    book.request()

    found = summed(tmp_path, "cost_center", "backend")

    assert {key: totals.cost_nano for key, totals in found.items()} == {
        ("(none)", "cheap"): 100_000,
        ("ads", "cheap"): 100_000,
        ("ads", "dear"): 1_000_000,
    }


def test_exploration_is_what_it_was_expected_to_cost_beyond_the_best(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.request("dear", 1_000_000, reason="explore")
    book.request("dear", 1_000_000, reason="best")

    (whole,) = summed(tmp_path).values()

    assert whole.explored_nano == whole.learning_nano == 900_000


def test_damaged_rows_are_counted_and_passed_over(tmp_path: Path) -> None:
    book, damage = Book(tmp_path), Damage()
    book.request()
    book.request()
    (path,) = files([tmp_path])
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"cost_nano":100000', b'"cost_nano":900000', 1)[:-20])

    (whole,) = summed(tmp_path, damage=damage).values()

    assert (damage.lines, damage.bad) == (4, 2)
    assert whole.cost_nano == 0
