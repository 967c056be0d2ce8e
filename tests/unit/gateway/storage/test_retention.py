"""Old segments are removed, and never one that something still needs."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tollway.gateway.storage.journal import Journal, segments
from tollway.gateway.storage.retention import JournalRetention, Segment, excess

DAY_S = 86_400.0
NOW_S = time.time()


def journal_of(folder: Path, days_old: list[float]) -> tuple[Journal, list[str]]:
    """Return a journal with a closed segment of each age, and the id of a decision in each."""
    journal = Journal(folder, segment_bytes_max=100)
    ids = []
    for age in days_old:
        ids.append(journal.new_id())
        journal.append({"kind": "decision", "id": ids[-1], "time": NOW_S, "pad": "x" * 200})
        at_s = NOW_S - age * DAY_S
        os.utime(segment_of(folder, ids[-1]), (at_s, at_s))
    return journal, ids


def segment_of(folder: Path, decision: str) -> Path:
    return folder / f"journal-{decision.partition('.')[0]}.jsonl"


def retain(
    folder: Path,
    *,
    keep_days: float | None = None,
    bytes_max: float | None = None,
    saved_s: Callable[[], float] = lambda: NOW_S,
) -> tuple[JournalRetention, list[tuple[str, dict[str, Any]]]]:
    """Run retention once; return it and its events."""
    events: list[tuple[str, dict[str, Any]]] = []
    retention = JournalRetention(
        folder,
        keep_s=None if keep_days is None else keep_days * DAY_S,
        bytes_max=bytes_max,
        open_s=3600.0,
        saved_s=saved_s,
        report=lambda kind, about, text, **details: events.append((kind, details)),
        wall=lambda: NOW_S,
    )
    asyncio.run(retention.run())
    return retention, events


def left(folder: Path, ids: list[str]) -> list[bool]:
    return [segment_of(folder, decision).exists() for decision in ids]


def test_segments_with_older_rows_only_are_removed_reported_and_counted(tmp_path: Path) -> None:
    journal, ids = journal_of(tmp_path, [40.0, 31.0, 29.0, 0.5])
    journal.mark(ids[0])
    at_s = NOW_S - 39.0 * DAY_S
    os.utime(segment_of(tmp_path, ids[0]).with_suffix(".marks"), (at_s, at_s))
    retention, events = retain(tmp_path, keep_days=30.0)
    assert left(tmp_path, ids) == [False, False, True, True]
    assert not list(tmp_path.glob("*.marks"))
    assert retention.removed == 2
    ((kind, details),) = events
    assert kind == "journal_removed"
    assert details["segments"] == [segment_of(tmp_path, decision).name for decision in ids[:2]]
    assert journal.find(ids[0]) == []
    assert journal.lacks_segment(ids[0])
    assert not journal.lacks_segment(ids[2])
    assert journal.find(ids[2])


def test_above_the_size_the_oldest_are_removed(tmp_path: Path) -> None:
    _, ids = journal_of(tmp_path, [3.0, 2.0, 1.0])
    size = segment_of(tmp_path, ids[0]).stat().st_size
    retain(tmp_path, bytes_max=2.5 * size)
    assert left(tmp_path, ids) == [False, True, True]


def test_rows_of_calls_that_may_be_in_progress_are_kept_above_the_size(tmp_path: Path) -> None:
    _, ids = journal_of(tmp_path, [1.0, 0.01])
    retain(tmp_path, bytes_max=1.0)
    assert left(tmp_path, ids) == [False, True]


def test_nothing_is_removed_that_is_in_no_snapshot(tmp_path: Path) -> None:
    _, ids = journal_of(tmp_path, [40.0, 35.0])
    retain(tmp_path, keep_days=30.0, saved_s=lambda: 0.0)
    assert left(tmp_path, ids) == [True, True]
    retain(tmp_path, keep_days=30.0, saved_s=lambda: NOW_S - 36.0 * DAY_S)
    assert left(tmp_path, ids) == [False, True]


def test_a_label_that_is_in_no_snapshot_keeps_its_decision(tmp_path: Path) -> None:
    journal, ids = journal_of(tmp_path, [40.0, 40.0])
    journal.mark(ids[0])  # now, which is after the snapshot
    retain(tmp_path, keep_days=30.0, saved_s=lambda: NOW_S - DAY_S)
    assert left(tmp_path, ids) == [True, False]


def test_the_open_segment_of_any_worker_is_kept_however_old(tmp_path: Path) -> None:
    idle, busy = Journal(tmp_path), Journal(tmp_path)
    decision = idle.new_id()
    idle.append({"kind": "decision", "id": decision})
    for path in segments(tmp_path):
        os.utime(path, (NOW_S - 90 * DAY_S, NOW_S - 90 * DAY_S))
    retain(tmp_path, keep_days=30.0, bytes_max=1.0)
    assert len(segments(tmp_path)) == 2
    assert idle.find(decision)
    idle.close()
    busy.close()
    os.utime(segment_of(tmp_path, decision), (NOW_S - 90 * DAY_S, NOW_S - 90 * DAY_S))
    retain(tmp_path, keep_days=30.0)
    assert not segment_of(tmp_path, decision).exists()


@pytest.mark.parametrize("keep_s", [None, DAY_S])
def test_within_the_limits_there_is_no_excess(keep_s: float | None) -> None:
    listed = [Segment(Path(str(n)), 10, NOW_S - n, 0.0) for n in (3, 2, 1)]
    assert excess(listed, NOW_S, keep_s, None) == []
    assert excess(listed, NOW_S, keep_s, 30.0) == []
    assert excess(listed, NOW_S, keep_s, 29.0) == listed[:1]
