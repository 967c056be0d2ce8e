"""`tollway journal erase`: a subject's rows are blanked wherever they are, and money stays."""

import json
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.configs import two_backends
from tests.support.journals import Book
from tollway.gateway.cli.main import main
from tollway.gateway.storage import audit_log, in_place
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows
from tollway.reports import journal_archive

PERSON = "ann@example.com"


class Killed(BaseException):
    """The process ends here."""


class Gateway:
    """The files of a gateway, with two requests of a person and two of others."""

    def __init__(self, folder: Path) -> None:
        self.toml = folder / "tollway.toml"
        self.toml.write_text(two_backends("http://127.0.0.1:9", "http://127.0.0.1:9"))
        self.journal = folder / ".tollway" / "journal"
        self.captures = folder / ".tollway" / "captures"
        self.audit = folder / ".tollway" / "state" / audit_log.NAME
        self.book = Book(self.journal)
        self.ids = [
            self.request(tags, tenant)
            for tags, tenant in [
                ({"user": PERSON, "team": "ads"}, "acme"),
                ({"user": "bob"}, "acme"),
                ({"user": PERSON}, "beta"),
                ({}, "acme"),
            ]
        ]
        self.captures.mkdir()
        lines = [
            orjson.dumps({"id": one, "tenant": "t", "tags": {}, "request": one}) + b"\n"
            for one in self.ids
        ]
        (self.captures / "capture-1000000-0.jsonl").write_bytes(b"".join(lines))

    def request(self, tags: dict[str, str], tenant: str) -> str:
        """Journal a request, its answer, and a label that names the id only."""
        journal, decision = self.book.journal, self.book.journal.new_id()
        head = {"id": decision, "time": 5.0, "route": "m", "tenant": tenant, "tags": tags}
        part = {"mark": "fresh", "version": "1", "entity": "e" * 32, "values": {"age": 44.0}}
        drawn = {"arms": ["cheap"], "pmf": [1.0], "arm": "cheap", "unit": 0.123}
        context = {"dense": [0.5, 1], "sparse": [[3, 1.0]], "reply": [0.25]}
        journal.append(
            {"kind": "decision", **head, **drawn, **context, "features": {"user": part}},
            {"kind": "attempt", **head, "attempt": 0, "cost_nano": 1_000_003, "answer": "secret"},
        )
        label = {"kind": "feedback", "id": decision, "time": 6.0, "route": "m", "tenant": tenant}
        journal.append({**label, "quality": 1.0, "known": {"cheap": 1.0}, "label": "secret"})
        return decision

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows; none may be damaged."""
        damaged: list[None] = []
        found = [
            row
            for path in segments(self.journal)
            for row in rows(path, lambda: damaged.append(None))
        ]
        assert not damaged
        return found

    def bytes(self) -> bytes:
        """Return what is in all files of the gateway, but its configuration."""
        found = [p for p in self.toml.parent.rglob("*") if p.is_file() and p != self.toml]
        return b"".join(path.read_bytes() for path in found)


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


def erase(gateway: Gateway, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    code = main(["journal", "erase", str(gateway.toml), *words, "--json"], {})
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    left = document["rows_left"] + document["captures_left"] + document["unreadable"]
    assert code == bool(left)
    return document


def test_a_persons_rows_are_blanked_and_money_and_propensities_stay(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    before = gateway.rows()
    sizes = [path.stat().st_size for path in segments(gateway.journal)]
    found = erase(gateway, capsys, "--tag", f"user={PERSON}", "--check")
    assert (found["rows_left"], found["captures_left"]) == (6, 2)
    assert gateway.rows() == before

    done = erase(gateway, capsys, "--tag", f"user={PERSON}", "--keep-tag", "team")
    assert (done["decisions"], done["rows"], done["captures"]) == (2, 6, 2)
    assert (done["cost_nano"], done["rows_left"]) == (2 * 1_000_003, 0)
    assert len(done["digest"]) == 64
    assert PERSON.encode() not in gateway.bytes()
    assert [path.stat().st_size for path in segments(gateway.journal)] == sizes

    after = gateway.rows()
    for old, new in zip(before, after, strict=True):
        if old["id"] not in {gateway.ids[0], gateway.ids[2]}:
            assert new == old
            continue
        kept = {"id", "kind", "time", "cost_nano", "pmf", "arm", "tenant", "quality", "known"}
        assert {k: v for k, v in new.items() if k in kept} == {
            k: v for k, v in old.items() if k in kept
        }
        assert "secret" not in json.dumps(new)
        if new["kind"] == "decision":
            assert (new["dense"], new["sparse"], new["reply"]) == ([0.0, 0], [], [0.0])
            assert new["features"] == {"user": {"mark": "erased", "version": "1"}}
            assert "unit" not in new
    assert after[0]["tags"] == {"team": "ads"}
    assert gateway.book.journal.find(gateway.ids[2])[1]["cost_nano"] == 1_000_003
    assert gateway.book.journal.marked(gateway.ids[0])
    assert not gateway.book.journal.marked(gateway.ids[1])

    again = erase(gateway, capsys, "--tag", f"user={PERSON}")
    assert (again["rows"], again["digest"]) == (0, "")
    assert erase(gateway, capsys, "--tag", f"user={PERSON}", "--check")["rows_left"] == 0


def test_the_audit_log_has_the_proof_and_no_name(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    done = erase(gateway, capsys, "--tag", f"user={PERSON}", "--why", "ticket 7")
    lines = gateway.audit.read_bytes().splitlines(keepends=True)
    assert not list(audit_log.broken(line.rstrip(b"\n") for line in lines))
    begun, ended = [json.loads(line) for line in lines]
    assert (begun["outcome"], ended["outcome"], ended["why"]) == ("begun", "done", "ticket 7")
    assert ended["about"] == done["subject"]
    assert (ended["after"]["rows"], ended["after"]["digest"]) == (6, done["digest"])
    assert PERSON.encode() not in gateway.audit.read_bytes()


@pytest.mark.parametrize(
    ("words", "hit"),
    [
        (["--tenant", "acme"], [0, 1, 3]),
        (["--tenant", "acme", "--tag", f"user={PERSON}"], [0]),
        (["--tag", f"user={PERSON}", "--tag", "team=ads"], [0]),
        (["--tenant", "nobody"], []),
        (["--tag", "user=ann"], []),
        (["--tag", "team=bob"], []),
    ],
)
def test_only_requests_with_all_that_is_given_are_erased(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], words: list[str], hit: list[int]
) -> None:
    before = {row["id"]: row for row in gateway.rows() if row["kind"] == "decision"}
    done = erase(gateway, capsys, *words)
    after = {row["id"]: row for row in gateway.rows() if row["kind"] == "decision"}
    changed = [n for n, one in enumerate(gateway.ids) if before[one] != after[one]]
    assert (changed, done["decisions"]) == (hit, len(hit))


def test_a_request_is_erased_by_its_id(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    other = erase(gateway, capsys, "--id", gateway.ids[3], "--tag", f"user={PERSON}")
    assert (other["decisions"], other["rows"], other["captures"]) == (0, 0, 0)
    done = erase(gateway, capsys, "--id", gateway.ids[3])
    assert (done["decisions"], done["rows"], done["captures"]) == (1, 3, 1)


def test_archives_are_erased_too_and_stay_restorable(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gateway.book.journal.close()
    out = tmp_path / "out"
    assert main(["journal", "archive", str(gateway.toml), "--out", str(out)], {}) == 0
    [path], [archive] = segments(gateway.journal), out.glob("*.parquet")
    whole, modified = path.read_bytes(), archive.stat().st_mtime_ns
    path.unlink()
    done = erase(gateway, capsys, "--tag", f"user={PERSON}", "--archives", str(out))
    assert (done["rows"], done["rows_left"], done["captures"]) == (6, 0, 2)
    assert archive.stat().st_mtime_ns == modified
    assert [one.name for one in out.iterdir()] == [archive.name]
    assert b"".join(line for batch in journal_archive.lines(archive) for line in batch) != whole
    assert main(["journal", "restore", str(gateway.toml), str(archive)], {}) == 0
    assert len(path.read_bytes()) == len(whole)
    assert sum(row.get("cost_nano", 0) for row in gateway.rows()) == 4 * 1_000_003
    assert PERSON.encode() not in path.read_bytes()


@pytest.mark.parametrize("at", range(8))
def test_a_run_that_is_killed_is_finished_by_the_next(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    left = [at]
    real = os.pwrite

    def killed(fd: int, data: bytes, offset: int) -> int:
        if len(data) > 1 and not left[0]:
            os.lseek(fd, offset, os.SEEK_SET)
            os.write(fd, data[: len(data) // 2])
            raise Killed
        left[0] -= len(data) > 1
        return real(fd, data, offset)

    monkeypatch.setattr(in_place, "BATCH_BYTES", 1)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, "pwrite", killed)
        main(["journal", "erase", str(gateway.toml), "--tag", f"user={PERSON}"], {})
    assert erase(gateway, capsys, "--tag", f"user={PERSON}")["rows_left"] == 0
    found = gateway.rows()
    assert len(found) == 12
    assert sum(row.get("cost_nano", 0) for row in found) == 4 * 1_000_003
    text = json.dumps([row for row in found if row["id"] in {gateway.ids[0], gateway.ids[2]}])
    assert "secret" not in text
    assert (
        gateway.ids[0].encode() not in (gateway.captures / "capture-1000000-0.jsonl").read_bytes()
    )


def test_a_damaged_line_that_names_the_subject_is_reported(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = segments(gateway.journal)
    with path.open("ab") as file:
        file.write(b'{"kind":"attempt","tags":{"user":"%b"},"v":2}\n' % PERSON.encode())
    assert erase(gateway, capsys, "--tag", f"user={PERSON}")["unreadable"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name the subject"),
        (["--tag", "user"], "write NAME=VALUE"),
        (["--tag", "user=1", "--tag", "user=2"], "erase each alone"),
        (["--id", "../x"], "not an id"),
        (["--tenant", ""], "name the subject"),
    ],
)
def test_a_subject_that_is_not_named_is_refused(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    before = gateway.bytes()
    assert main(["journal", "erase", str(gateway.toml), *words], {}) == 2
    assert said in capsys.readouterr().err
    assert gateway.bytes() == before
