"""The audit log: every change of its file is found, whoever appends to it, and whatever fails."""

import errno
import fcntl
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tollway.gateway.storage import audit_log
from tollway.gateway.storage.audit_log import BEGUN, DONE, Actor, AuditLog

ANN = Actor("ann", "admin key", "10.0.0.7")


def log_of(folder: Path, acts: int = 0) -> AuditLog:
    log = AuditLog(folder / "state" / audit_log.NAME, wall=lambda: 12.5)
    for act in range(acts):
        log.write("budget limit", ANN, DONE, about=f"b{act}", before={"x": act}, after={"x": 9})
    return log


def lines(folder: Path) -> list[bytes]:
    return (folder / "state" / audit_log.NAME).read_bytes().splitlines()


def test_an_act_is_returned_as_it_was_written(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    number = log.write("budget limit", ANN, DONE, about="day", why="launch", after={"x": 1})
    (act,) = log.newest(10)
    assert number == act["n"] == 1
    assert (act["who"], act["by"], act["client"]) == ("ann", "admin key", "10.0.0.7")
    assert (act["time"], act["why"], act["before"], act["after"]) == (12.5, "launch", {}, {"x": 1})


def test_its_file_is_the_users_alone(tmp_path: Path) -> None:
    log_of(tmp_path, 1)
    mode = (tmp_path / "state" / audit_log.NAME).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_log_without_a_path_writes_nothing() -> None:
    log = AuditLog(None)
    assert log.write("start", ANN, DONE) == 0
    assert log.newest(10) == []


def test_a_whole_chain_has_no_break(tmp_path: Path) -> None:
    log_of(tmp_path, 5)
    assert list(audit_log.broken(lines(tmp_path))) == []


@pytest.mark.parametrize(
    ("tampered", "said"),
    [
        (lambda rows: [*rows[:2], *rows[3:]], ["line 3 is entry 4, but entry 3 should be there"]),
        (lambda rows: rows[1:], ["line 1 is entry 2, but entry 1 should be there"]),
        (lambda rows: [rows[0], rows[1].replace(b"ann", b"bob"), *rows[2:]], ["line 2 (entry 2)"]),
        (lambda rows: [*rows[:4], rows[4].replace(b"ann", b"bob")], ["line 5 (entry 5)"]),
        (lambda rows: [*rows[:2], rows[2][:-9], *rows[3:]], ["line 3 is not", "line 4 is entry"]),
        (lambda rows: [*rows[:2], rows[1], *rows[2:]], ["line 3 is entry 2"]),
    ],
    ids=["removed", "first removed", "changed", "last changed", "cut", "repeated"],
)
def test_a_change_of_the_file_is_found_and_placed(
    tmp_path: Path, tampered: Any, said: list[str]
) -> None:
    log_of(tmp_path, 5)
    rows = tampered(lines(tmp_path))
    problems = list(audit_log.broken(rows))
    assert problems
    assert problems[0].startswith(said[0])
    assert any(problem.startswith(said[-1]) for problem in problems)


def test_a_line_with_a_new_checksum_breaks_the_next(tmp_path: Path) -> None:
    log_of(tmp_path, 3)
    forged = log_of(tmp_path / "elsewhere")
    forged.write("budget limit", Actor("mallory"), DONE)
    rows = lines(tmp_path)
    rows[0] = lines(tmp_path / "elsewhere")[0]
    (problem,) = audit_log.broken(rows)
    assert problem.startswith("line 2 (entry 2)")


def test_a_line_that_a_crash_cut_short_is_followed_by_a_whole_one(tmp_path: Path) -> None:
    log = log_of(tmp_path, 2)
    with (tmp_path / "state" / audit_log.NAME).open("ab") as file:
        file.write(b'{"n":3,"time":1')
    log.write("start", ANN, DONE)
    assert [act["n"] for act in log.newest(10)] == [3, 2, 1]
    (problem,) = audit_log.broken(lines(tmp_path))
    assert problem.startswith("line 3 is not a whole entry")


def test_an_outcome_replaces_what_was_begun(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    first = log.write("budget limit", ANN, BEGUN)
    second = log.write("budget limit", ANN, BEGUN)
    log.write("budget limit", ANN, DONE, begun=first)
    assert [(act["n"], act["outcome"]) for act in log.newest(10)] == [(3, DONE), (second, BEGUN)]


def test_a_recorded_act_is_written_before_it_is_done_and_after(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    with log.recorded("policy rollback", ANN, about="m"):
        assert [act["outcome"] for act in log.newest(10)] == [BEGUN]
    assert [act["outcome"] for act in log.newest(10)] == [DONE]
    with pytest.raises(ValueError, match="odd"), log.recorded("policy rollback", ANN, about="m"):
        raise ValueError("odd")
    act = log.newest(1)[0]
    assert (act["outcome"], act["why"]) == ("unknown", "odd")


def append_many(path: Path, name: str, count: int) -> None:
    log = AuditLog(path)
    for _ in range(count):
        log.write("start", Actor(name), DONE)


def test_processes_that_append_at_once_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "state" / audit_log.NAME
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=append_many, args=(path, f"w{number}", 20)) for number in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    rows = lines(tmp_path)
    assert list(audit_log.broken(rows)) == []
    names = [act["who"] for act in audit_log.acts(rows)]
    assert sorted(names) == sorted(["w0", "w1", "w2"] * 20)


def test_a_lock_that_is_not_released_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "LOCK_WAIT_S", 0.0)
    log = log_of(tmp_path, 1)
    with (tmp_path / "state" / audit_log.NAME).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="locked by another process"):
            log.write("start", ANN, DONE)
    log.write("start", ANN, DONE)
    assert len(lines(tmp_path)) == 2


def test_a_failed_write_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(tmp_path, 2)
    before = lines(tmp_path)
    write = os.write

    def short(fd: int, data: bytes) -> int:
        return write(fd, data[:10])

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name, fails in (("write", short), ("fsync", full)):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, fails)
            with pytest.raises(OSError, match=r"in part only|No space left"):
                log.write("start", ANN, DONE)
        assert lines(tmp_path) == before


def test_texts_and_values_are_bounded(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    long = "\U0001f600" * 10_000
    values = {f"{long}{number}": long for number in range(1000)}
    many = {f"key{number}{long}": long for number in range(1000)}
    log.write("reload", Actor(long, client=long), DONE, why=long, before=many, after=many)
    log.write("reload", ANN, DONE, after=values)
    assert list(audit_log.broken(lines(tmp_path))) == []
    assert len(lines(tmp_path)[0]) < audit_log._TAIL_BYTES
    newest, first = log.newest(10)
    assert first["after"]["..."] == "960 more"
    assert newest["n"] == 2


def test_the_newest_acts_are_read_from_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(tmp_path, 30)
    monkeypatch.setattr(audit_log, "_TAIL_BYTES", 700)
    assert [act["about"] for act in log.newest(4)] == ["b29", "b28", "b27", "b26"]
    assert len(log.newest(100)) == 30
