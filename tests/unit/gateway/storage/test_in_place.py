"""Lines are overwritten in place: as long, whole whenever the process is killed, one at a time."""

import os
import threading
import zlib
from pathlib import Path

import pytest

from tollway.gateway.storage import in_place
from tollway.gateway.storage.journal import Journal, segments
from tollway.gateway.storage.journal_format import rows, seal, unseal


def written(folder: Path, count: int = 3) -> Path:
    journal = Journal(folder)
    for n in range(count):
        journal.append({"kind": "attempt", "id": journal.new_id(), "n": n, "secret": "x" * 50})
    journal.close()
    [path] = segments(folder)
    os.utime(path, (100.0, 100.0))
    return path


def blanked(place: int, line: bytes) -> bytes | None:
    row = unseal(line)
    assert row is not None
    if "secret" not in row:
        return None
    del row["secret"]
    return in_place.as_long(row, len(line))


def secrets_in(path: Path) -> int:
    damaged: list[None] = []
    count = sum("secret" in row for row in rows(path, lambda: damaged.append(None)))
    assert not damaged
    return count


def test_a_row_is_as_long_and_keeps_its_other_members() -> None:
    row = {"kind": "attempt", "cost_nano": 7, "answer": "é" * 9}
    line = seal(row)
    new = in_place.as_long({**row, "answer": ""}, len(line))
    assert len(new) == len(line)
    assert unseal(new) == {**row, "answer": "", "v": 2, "crc": new[-11:-3].decode()}
    with pytest.raises(ValueError, match="no room"):
        in_place.as_long({**row, "more": 1}, len(line))


def test_all_batches_are_written_and_a_closed_file_keeps_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "BATCH_BYTES", 150)
    path = written(tmp_path, 9)
    size = path.stat().st_size
    with in_place.exclusive(tmp_path):
        in_place.overwrite(path, blanked)
    assert (secrets_in(path), path.stat().st_size, path.stat().st_mtime) == (0, size, 100.0)
    assert not list(tmp_path.glob("*.redo"))


def test_a_segment_that_is_closed_meanwhile_is_not_dated_back(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    journal.append({"kind": "attempt", "id": journal.new_id(), "secret": "x" * 50})
    [path] = segments(tmp_path)
    os.utime(path, (100.0, 100.0))

    def change(place: int, line: bytes) -> bytes | None:
        if place == 0:
            journal.append({"kind": "attempt", "id": journal.new_id()})
            journal.close()
        return blanked(place, line)

    with in_place.exclusive(tmp_path):
        in_place.overwrite(path, change)
    assert secrets_in(path) == 0
    assert path.stat().st_mtime > 100.0


def test_what_a_killed_process_began_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)

    def torn(fd: int, data: bytes, offset: int) -> int:
        os.lseek(fd, offset, os.SEEK_SET)
        os.write(fd, data[:20])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", torn)
        with pytest.raises(KeyboardInterrupt), in_place.exclusive(tmp_path):
            in_place.overwrite(path, blanked)
    assert b"x" * 50 not in path.with_suffix(".redo").read_bytes()
    with in_place.exclusive(tmp_path):
        pass
    assert (secrets_in(path), path.stat().st_mtime) == (0, 100.0)
    assert not list(tmp_path.glob("*.redo"))


@pytest.mark.parametrize("cut", [0, 5, 40, 200])
def test_a_plan_that_is_cut_short_is_dropped(
    tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    before = path.read_bytes()

    def stop(redo: Path, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(in_place, "_redo", stop)
        with pytest.raises(KeyboardInterrupt), in_place.exclusive(tmp_path):
            in_place.overwrite(path, blanked)
    redo = path.with_suffix(".redo")
    assert cut < redo.stat().st_size
    os.truncate(redo, cut)
    with in_place.exclusive(tmp_path):
        pass
    assert path.read_bytes() == before
    assert not redo.exists()


def test_a_plan_for_a_segment_that_was_removed_is_dropped(tmp_path: Path) -> None:
    data = b"5\n0:gone\n"
    (tmp_path / "journal-a.redo").write_bytes(data + b"end:%08x\n" % zlib.crc32(data))
    with in_place.exclusive(tmp_path):
        pass
    assert [one.name for one in tmp_path.iterdir()] == [in_place.LOCK]


def test_one_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    entered = threading.Event()

    def other() -> None:
        with in_place.exclusive(tmp_path):
            entered.set()

    thread = threading.Thread(target=other)
    with in_place.exclusive(tmp_path):
        thread.start()
        assert not entered.wait(0.02)
    thread.join(30)
    assert entered.is_set()


def test_a_line_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    with path.open("ab") as file:
        file.write(b'{"kind":"attempt","sec')
    asked: list[bytes] = []

    def change(place: int, line: bytes) -> bytes | None:
        asked.append(line)
        return None

    with in_place.exclusive(tmp_path):
        in_place.overwrite(path, change)
    assert len(asked) == 1
