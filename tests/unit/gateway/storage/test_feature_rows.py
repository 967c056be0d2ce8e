"""Features in the journal: the entities seen most, and values taken out of rows in place."""

import os
from pathlib import Path
from typing import Any

from tollway.gateway.storage.feature_rows import (
    ERASED,
    ValueRetention,
    erase,
    most_seen,
    older,
    pseudonymous,
    remaining,
    rows_with_features,
)
from tollway.gateway.storage.journal import Journal, segments
from tollway.gateway.storage.journal_format import rows


def decision(journal: Journal, entity: str, time_s: float = 1.0) -> str:
    identity = journal.new_id()
    part = {
        "mark": "fresh",
        "version": "v1",
        "entity": entity,
        "age_s": 1.25,
        "values": {"spend": 12.5, "tier": "gold"},
    }
    row: dict[str, Any] = {
        "kind": "decision",
        "id": identity,
        "time": time_s,
        "arm": "a",
        "dense": [0.25, -1.5],
        "sparse": [[17, 1.0]],
        "features": {"user": part},
    }
    attempt = {"kind": "attempt", "id": identity, "time": time_s, "cost_nano": 7}
    journal.record(identity, lambda: [row, attempt])
    return identity


def test_the_entities_seen_most_come_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for entity in ["a", "b", "b", "c", "c", "c"]:
        decision(journal, entity)
    journal.close()
    assert most_seen(tmp_path, 2) == {"user": ["c", "b"]}


def test_erasing_takes_out_values_and_context_and_moves_no_row(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    ids = [decision(journal, entity) for entity in ["a", "b", "a"]]
    size = segments(tmp_path)[0].stat().st_size
    wanted = pseudonymous({"user": "a"})
    done = erase(tmp_path, wanted)  # while the journal is open
    assert (done.rows_erased, done.rows_read, len(done.places)) == (2, 3, 2)
    assert remaining(tmp_path, wanted) == 0
    later = decision(journal, "a")
    assert segments(tmp_path)[0].stat().st_size > size
    for identity in ids:
        [row, attempt] = journal.find(identity)
        assert attempt["cost_nano"] == 7
        part = row["features"]["user"]
        if identity == ids[1]:
            assert (part["values"]["spend"], row["dense"]) == (12.5, [0.25, -1.5])
        else:
            assert part == {"mark": ERASED, "version": "v1"}
            assert (row["dense"], row["sparse"]) == ([0.0, 0.0], [])
    assert journal.find(later)[0]["features"]["user"]["entity"] == "a"
    journal.close()
    damaged: list[None] = []
    list(rows(segments(tmp_path)[0], lambda: damaged.append(None)))
    assert not damaged


def test_a_closed_segment_keeps_its_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    decision(journal, "a")
    journal.close()
    [path] = segments(tmp_path)
    before_ns = path.stat().st_mtime_ns
    erase(tmp_path, pseudonymous({"user": "a"}))
    assert path.stat().st_mtime_ns == before_ns


def test_erasing_twice_erases_nothing_more_and_the_proof_names_each_row(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for entity in ["a", "b"]:
        decision(journal, entity)
    journal.close()
    first = erase(tmp_path, pseudonymous({"user": "a"}))
    second = erase(tmp_path, pseudonymous({"user": "a"}))
    assert (first.rows_erased, second.rows_erased) == (1, 0)
    assert first.digest != second.digest


def test_retention_reads_a_segment_once_when_all_of_it_is_old(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    decision(journal, "a", time_s=10.0)
    journal.close()
    [path] = segments(tmp_path)
    os.utime(path, (20.0, 20.0))
    now = [50.0]
    kept = ValueRetention(tmp_path, wall=lambda: now[0])
    kept.revise({"user": 60.0})
    assert kept.erase().rows_erased == 0
    now[0] = 100.0
    assert (kept.erase().rows_erased, kept.erase().segments) == (1, 0)
    assert path.stat().st_mtime == 20.0
    assert kept.erase().rows_read == 0  # it is not opened again
    kept.revise({"user": 30.0})
    assert kept.erase().rows_read == 1


def test_values_are_kept_for_their_time_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for time_s in (10.0, 100.0):
        decision(journal, "a", time_s)
    journal.close()
    assert erase(tmp_path, older({"user": 50.0}, now_s=110.0)).rows_erased == 1
    [kept] = [row for row in rows_with_features(tmp_path) if row["features"]["user"].get("values")]
    assert kept["time"] == 100.0
