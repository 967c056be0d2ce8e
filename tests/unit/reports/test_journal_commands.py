"""`tollway journal`: segments are listed, archived and restored, byte for byte."""

import json
import os
import stat
import time
from pathlib import Path

import polars as pl
import pytest

from tests.support.configs import two_backends
from tollway.gateway.cli.main import main
from tollway.gateway.storage.journal import Journal
from tollway.reports import journal_archive


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "tollway.toml"
    path.write_text(two_backends("http://127.0.0.1:9", "http://127.0.0.1:9"))
    return path


def journal_of(toml: Path) -> Journal:
    return Journal(toml.parent / ".tollway" / "journal", segment_bytes_max=1000)


def fill(journal: Journal, count: int) -> list[str]:
    """Append rows over several segments; return the decisions' ids."""
    ids = []
    for n in range(count):
        ids.append(journal.new_id())
        journal.append(
            {"kind": "decision", "id": ids[-1], "time": float(n), "route": "m", "tenant": "é"},
            {"kind": "attempt", "id": ids[-1], "time": float(n), "cost_nano": 7, "pad": "x" * 100},
        )
    return ids


def asked(capsys: pytest.CaptureFixture[str], *words: str | Path) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["journal", *map(str, words), "--json"], {}) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_the_list_has_rows_and_bytes_and_says_which_segment_is_open(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = journal_of(toml)
    fill(journal, 20)
    listed = asked(capsys, "list", toml)
    assert sum(int(str(one["rows"])) for one in listed) == 40
    assert sum(bool(one["open"]) for one in listed) == 1
    journal.close()
    assert not any(one["open"] for one in asked(capsys, "list", toml))
    assert main(["journal", "list", str(toml)], {}) == 0
    assert capsys.readouterr().out.count(" closed ") == len(listed)


def test_a_restored_archive_is_the_segment_and_ids_lead_to_its_rows(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_archive, "BATCH_BYTES", 300)  # several batches a segment
    journal, out = journal_of(toml), tmp_path / "archive"
    ids = fill(journal, 20)
    folder = toml.parent / ".tollway" / "journal"
    archived = asked(capsys, "archive", toml, "--out", out)
    closed = [folder / f"{path.stem}.jsonl" for path in out.glob("*.parquet")]
    assert len(archived) == len(closed) == len(list(folder.glob("*.jsonl"))) - 1
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in closed}
    for path in closed:
        path.unlink()
    assert journal.find(ids[0]) == []
    asked(capsys, "restore", toml, *sorted(out.glob("*.parquet")))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in closed} == before
    assert [row["kind"] for row in journal.find(ids[0])] == ["decision", "attempt"]
    assert journal.marked(ids[0])  # a label from before is not learned again
    assert {stat.S_IMODE(path.stat().st_mode) for path in [*out.iterdir(), *closed]} == {0o600}
    assert main(["journal", "restore", str(toml), str(next(out.iterdir()))], {}) == 1
    assert "exists" in capsys.readouterr().err


def test_an_archive_can_be_queried(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, out = journal_of(toml), tmp_path / "archive"
    ids = fill(journal, 9)
    journal.close()
    asked(capsys, "archive", toml, "--out", out)
    table = pl.read_parquet(out / "*.parquet")
    assert table["cost_nano"].sum() == 9 * 7
    assert set(table["id"]) == set(ids)
    assert set(table["tenant"].drop_nulls()) == {"é"}


def test_only_segments_that_are_older_and_new_to_the_folder_are_archived(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, out = journal_of(toml), tmp_path / "archive"
    fill(journal, 20)
    journal.close()
    first = min((toml.parent / ".tollway" / "journal").glob("*.jsonl"))
    at_s = time.time() - 31 * 86_400.0
    os.utime(first, (at_s, at_s))
    archived = asked(capsys, "archive", toml, "--out", out, "--older", "30d")
    assert [one["archive"] for one in archived] == [str(out / f"{first.stem}.parquet")]
    assert asked(capsys, "archive", toml, "--out", out, "--older", "30d") == []


def test_damaged_lines_are_archived_as_they_are_and_counted(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, out = Journal(toml.parent / ".tollway" / "journal"), tmp_path / "archive"
    fill(journal, 2)
    journal.close()
    (segment,) = (toml.parent / ".tollway" / "journal").glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"kind":"decision","crc":"00000000"}\n\xff\xfe\n{"cut')
    (one,) = asked(capsys, "archive", toml, "--out", out)
    assert (one["rows"], one["damaged"]) == (7, 3)
    lines = pl.read_parquet(out / "*.parquet")["line"]
    assert b"".join(lines) == segment.read_bytes()


def test_a_file_that_is_no_archive_is_refused(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal_of(toml).close()
    folder = toml.parent / ".tollway" / "journal"
    before = sorted(folder.glob("journal-*"))
    other = tmp_path / "journal-other.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(other)
    cut = tmp_path / "journal-cut.parquet"
    cut.write_bytes(other.read_bytes()[:-20])
    for path in (other, cut):
        assert main(["journal", "restore", str(toml), str(path)], {}) == 1
        assert "is no archive of a segment" in capsys.readouterr().err
    assert sorted(folder.glob("journal-*")) == before


def test_without_polars_the_list_works_and_an_archive_says_what_to_install(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal_of(toml).close()
    monkeypatch.setattr("tollway.reports.journal_commands.find_spec", lambda name: None)
    assert len(asked(capsys, "list", toml)) == 1
    assert main(["journal", "archive", str(toml), "--out", str(tmp_path / "a")], {}) == 1
    assert "pip install '.[simulate]'" in capsys.readouterr().err
