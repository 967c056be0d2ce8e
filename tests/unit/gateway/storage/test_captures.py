"""Captures are redacted, bounded, deleted in time, and sealed if there is a key."""

import asyncio
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from tollway.gateway.security.sealing import Seal, Sealed
from tollway.gateway.storage.captures import (
    WAITING_BYTES_MAX,
    Captures,
    Record,
    read,
    redacted,
)

SEAL = Seal("0123456789abcdef0123456789abcdef", b"tests")
MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")
CARD = re.compile(r"\b\d{16}\b")


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def captures(folder: Path, clock: Clock, **more: Any) -> Captures:
    options: dict[str, Any] = {"bytes_max": 80_000, "keep_s": 86_400, "redact": [], "seal": None}
    return Captures(folder, wall=clock, **{**options, **more})


def write(kept: Captures, *records: Record) -> None:
    for record in records:
        kept.put(record, 100)
    asyncio.run(kept.write())


def held(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*"))


def test_what_matches_a_pattern_is_replaced_wherever_it_stands() -> None:
    document = {
        "to ann@example.com": ["mail bob@example.org, please", {"n": 4111111111111111}],
        "fine": [1, True, None, 2.5, "text"],
    }
    assert redacted(document, [MAIL, CARD]) == {
        "to [redacted]": ["mail [redacted], please", {"n": "[redacted]"}],
        "fine": [1, True, None, 2.5, "text"],
    }
    assert redacted(document, []) is document


def test_an_escaped_text_is_redacted_as_it_reads(tmp_path: Path) -> None:
    request = orjson.loads(b'{"text":"ann\\u0040example.com"}')
    write(captures(tmp_path, Clock(), redact=[MAIL]), {"request": request})
    assert [orjson.loads(line) for line in read(tmp_path, None)] == [
        {"request": {"text": "[redacted]"}}
    ]


def test_the_oldest_files_go_when_the_budget_is_used_up(tmp_path: Path) -> None:
    clock = Clock()
    kept = captures(tmp_path, clock)
    for number in range(200):
        write(kept, {"n": number, "text": "x" * 1000})
        clock.now_s += 1
        assert held(tmp_path) <= 80_000
    numbers = [orjson.loads(line)["n"] for line in read(tmp_path, None)]
    assert numbers == list(range(numbers[0], 200))
    assert len(numbers) > 50
    write(kept, {"text": "x" * 20_000})
    assert held(tmp_path) <= 80_000


def test_files_are_deleted_when_their_time_is_over_even_if_nothing_comes(tmp_path: Path) -> None:
    clock = Clock()
    kept = captures(tmp_path, clock)
    write(kept, {"n": 1})
    clock.now_s += 86_400
    write(kept)
    assert len(list(read(tmp_path, None))) == 1
    clock.now_s += 3601
    write(kept)
    assert not list(read(tmp_path, None))


def test_records_that_wait_are_bounded(tmp_path: Path) -> None:
    kept = captures(tmp_path, Clock())
    for _ in range(5):
        kept.put({"n": 1}, WAITING_BYTES_MAX // 4)
    assert kept.dropped == 1
    asyncio.run(kept.write())
    assert kept.written == 4


def test_a_disk_that_refuses_costs_captures_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    kept = captures(tmp_path / "file", Clock())
    write(kept, {"n": 1})
    assert (kept.written, kept.dropped) == (0, 1)


def test_sealed_captures_are_read_with_their_key_alone(tmp_path: Path) -> None:
    write(captures(tmp_path, Clock(), seal=SEAL), {"text": "a secret"}, {"n": 2})
    (file,) = tmp_path.iterdir()
    assert b"secret" not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    assert list(read(tmp_path, SEAL)) == [b'{"text":"a secret"}', b'{"n":2}']
    with pytest.raises(ValueError, match=r"set capture\.key"):
        list(read(tmp_path, None))
    with pytest.raises(Sealed):
        list(read(tmp_path, Seal("f" * 32, b"tests")))
    with pytest.raises(Sealed):
        list(read(tmp_path, Seal("0123456789abcdef0123456789abcdef", b"others")))
    file.write_bytes(file.read_bytes()[:-9] + b"AAAAAAAA\n")
    with pytest.raises(Sealed):
        list(read(tmp_path, SEAL))
