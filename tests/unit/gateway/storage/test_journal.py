"""The journal keeps its rows, and an id leads to them."""

import asyncio
import fcntl
import json
import subprocess
import sys
import zlib
from pathlib import Path

import orjson
import polars
import pytest

import tollway
from tollway.gateway.storage.journal import Journal, is_open, segments
from tollway.gateway.storage.journal_format import Row, base36, rows, seal, unseal


def test_an_id_leads_back_to_all_rows_of_its_decision_and_to_no_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    ids = []
    for n in range(50):
        ids.append(journal.new_id())
        journal.append(
            {"kind": "decision", "id": ids[-1], "n": n}, {"kind": "attempt", "id": ids[-1]}
        )
    assert len(set(ids)) == 50
    for n, decision in enumerate(ids):
        found = journal.find(decision)
        assert [row["kind"] for row in found] == ["decision", "attempt"]
        assert found[0]["n"] == n


def test_an_id_is_good_after_a_restart_and_a_rotation(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes_max=100)
    first = journal.new_id()
    journal.append({"kind": "decision", "id": first, "pad": "x" * 200})
    second = journal.new_id()
    journal.append({"kind": "decision", "id": second})
    journal.close()
    again = Journal(tmp_path)
    assert first.split(".")[0] != second.split(".")[0]
    assert [row["id"] for row in again.find(first) + again.find(second)] == [first, second]


def test_rows_that_came_later_are_found_by_reading_on(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path, segment_bytes_max=500), Journal(tmp_path)
    decision = journal.new_id()
    journal.append({"kind": "decision", "id": decision, "time": 0.0})
    found = journal.find(decision)
    assert journal.follow(found) == []
    for n in range(20):  # over several segments, and in another worker's
        journal.append({"kind": "decision", "id": journal.new_id(), "time": 0.0, "n": n})
    journal.append({"kind": "attempt", "id": decision, "audit": 0.1})
    other.append({"kind": "feedback", "id": decision})
    journal.flush()
    later = journal.follow(found)
    assert {row["kind"] for row in later} == {"attempt", "feedback"}
    assert len(later) == 2


@pytest.mark.parametrize(
    "forged",
    ["", "x", "../../etc/passwd.0.aaaa", "zz.0.aaaa", "a.b.c", "a" * 500, "0.zzzzzzzzzzzz.0000"],
)
def test_an_id_that_was_never_given_leads_nowhere(tmp_path: Path, forged: str) -> None:
    assert Journal(tmp_path).find(forged) == []


def test_an_id_with_another_nonce_leads_nowhere(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    decision = journal.new_id()
    journal.append({"kind": "decision", "id": decision})
    guess = decision[:-4] + ("0000" if decision[-4:] != "0000" else "0001")
    assert journal.find(guess) == []


def test_a_decision_is_marked_once_over_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    ids = []
    for _ in range(20):
        ids.append(journal.new_id())
        journal.append({"kind": "decision", "id": ids[-1], "pad": "x" * 100})
    assert all(journal.mark(decision) for decision in ids)
    journal.close()
    assert not any(Journal(tmp_path).mark(decision) for decision in ids)


def test_damaged_rows_and_a_cut_tail_are_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for n in range(3):
        journal.append({"kind": "decision", "id": "x", "n": n})
    journal.close()
    path = segments(tmp_path)[0]
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"n":1', b'"n":7')[:-5])
    assert [row["n"] for row in rows(path)] == [0]


def test_rows_of_other_kinds_are_left_out_but_their_damage_is_not(tmp_path: Path) -> None:
    segment = tmp_path / "journal-a.jsonl"
    kinds = ("decision", "attempt", "attempted", "feedback")
    lines = [seal({"kind": kind, "n": 1}) for kind in kinds]
    lines += [lines[1].replace(b'"n":1', b'"n":7'), old_line({"kind": "attempt", "v": 3})]
    segment.write_bytes(b"".join(lines) + lines[1][:-5])
    damaged: list[None] = []
    found = rows(segment, lambda: damaged.append(None), without=("attempt", "settlement"))
    assert [row["kind"] for row in found] == ["decision", "attempted", "feedback"]
    assert len(damaged) == 2


def test_a_line_that_was_changed_is_not_believed() -> None:
    line = seal({"kind": "attempt", "cost_nano": 10})
    assert unseal(line) is not None
    assert unseal(line.replace(b"10", b"11")) is None


def old_line(row: Row) -> bytes:
    """Return a row as version 1 wrote it: without its version."""
    body = orjson.dumps(row)[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body))


def test_readers_find_present_names_in_a_segment_of_the_first_version(tmp_path: Path) -> None:
    draw = {"kind": "decision", "id": "a.0.0000", "price_of_money": 3.5}
    lost = {"kind": "attempt", "id": "a.0.0000", "error": "outrun"}
    segment = tmp_path / "journal-a.jsonl"
    segment.write_bytes(old_line(draw) + old_line(lost))
    journal = Journal(tmp_path)
    for read in (
        journal.find("a.0.0000"),
        list(rows(segment)),
        list(tollway.read_journal(segment)),
    ):
        decision, attempt = read
        assert (decision["shadow_price"], attempt["error"]) == (3.5, "hedge_lost")
        assert "price_of_money" not in decision


def test_a_row_of_a_newer_version_is_rejected() -> None:
    assert unseal(old_line({"kind": "decision", "v": 3})) is None


def test_rows_are_written_once_per_turn_of_the_loop(tmp_path: Path) -> None:
    async def main() -> tuple[int, int]:
        journal = Journal(tmp_path)
        journal.write_in_turns()
        path = segments(tmp_path)[0]
        for _ in range(10):
            journal.append({"kind": "decision", "id": "x"})
        before = path.stat().st_size
        await asyncio.sleep(0)
        after = path.stat().st_size
        journal.close()
        return before, after

    before, after = asyncio.run(main())
    assert before == 0
    assert after == 10 * len(seal({"kind": "decision", "id": "x"}))


def test_rows_that_the_disk_refuses_wait_and_then_drop_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, waiting_bytes_max=200)
    refused = [True]
    write = __import__("os").write

    def full(fd: int, data: bytes) -> int:
        if refused[0]:
            raise OSError(28, "No space left on device")
        return int(write(fd, data))

    monkeypatch.setattr("tollway.gateway.storage.journal.os.write", full)
    for n in range(10):
        journal.append({"kind": "decision", "id": "x", "n": n})
    assert journal.rows_dropped > 0
    assert 0 < journal.waiting_bytes <= 200
    refused[0] = False
    journal.close()
    kept = [row["n"] for row in rows(segments(tmp_path)[0])]
    assert kept == list(range(10 - journal.rows_dropped))


def test_what_was_written_survives_sigkill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tollway.gateway.storage.journal import Journal\n"
        "j = Journal(Path(sys.argv[1]))\n"
        "for n in range(100): j.append({'kind': 'decision', 'id': 'x', 'n': n})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert died.returncode == -9
    assert [row["n"] for row in rows(segments(tmp_path)[0])] == list(range(100))


def test_the_journal_can_be_read_without_tollway(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(
        {"kind": "decision", "id": "a", "pmf": [0.5, 0.5]}, {"kind": "attempt", "cost_nano": 5}
    )
    journal.close()
    frame = polars.read_ndjson(segments(tmp_path)[0], infer_schema_length=None)
    assert frame["cost_nano"].sum() == 5
    lines = segments(tmp_path)[0].read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["decision", "attempt"]


def test_a_segment_has_its_name_once_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[list[Path]] = []
    lock = fcntl.flock

    def locked(fd: int, how: int) -> None:
        named.append(segments(tmp_path))
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", locked)
    journal = Journal(tmp_path)
    assert named == [[]]
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]
    assert is_open(segments(tmp_path)[0])
    journal.close()


def test_base36_counts_like_int() -> None:
    assert all(int(base36(n), 36) == n for n in (0, 1, 35, 36, 12345, 2**40))
