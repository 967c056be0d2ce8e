"""A disk is reported before it is full, once, and again when it has room."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from tollway.gateway.storage import disk_space
from tollway.gateway.storage.disk_space import LOOK_S, Disk, DiskSpace

GIB = 1 << 30


class Machine:
    """Disks, a journal and a clock that a test sets."""

    def __init__(self, journal_bytes_max: float = math.inf) -> None:
        self.free = {"journal": 50 * GIB, "state": 50 * GIB}
        self.devices = {"journal": 1, "state": 1}
        self.journal = 0
        self.now_s = 0.0
        self.events: list[tuple[str, str, str]] = []
        self.broken = ""
        self.space = DiskSpace(
            {"journal": Path("journal"), "state": Path("state")},
            report=self.report,
            clock=lambda: self.now_s,
            journal_bytes_max=journal_bytes_max,
            measure=self.measure,
            journal_bytes=lambda folder: self.journal,
        )

    def report(self, kind: str, about: str, text: str, **details: Any) -> None:
        self.events.append((kind, about, text))

    def measure(self, folder: Path) -> Disk:
        if folder.name == self.broken:
            raise OSError("stale handle")
        return Disk(self.devices[folder.name], 100 * GIB, self.free[folder.name])

    def look(self, times: int = 1, grows: int = 0) -> list[str]:
        """Look, the journal growing by `grows` bytes before each; return the kinds of events."""
        before = len(self.events)
        for _ in range(times):
            self.now_s += LOOK_S
            self.journal += grows
            asyncio.run(self.space.look())
        return [kind for kind, *_ in self.events[before:]]


def test_a_disk_with_little_room_is_reported_once_and_again_when_it_has_room() -> None:
    machine = Machine()
    assert machine.look() == []
    machine.free = {"journal": GIB - 1, "state": GIB - 1}
    assert machine.look(3) == ["disk_low"]
    assert machine.events[-1][1] == "journal, state"
    assert machine.events[-1][2].startswith("1.0% of the disk is free: 1.1 GB of 107.4 GB")
    machine.free = {"journal": GIB + 1, "state": GIB + 1}  # at the limit: no second report
    assert machine.look() == []
    assert machine.space.is_low("state")
    machine.free = {"journal": 2 * GIB, "state": 2 * GIB}
    assert machine.look(3) == ["disk_ok"]
    assert not machine.space.is_low("state")


def test_a_journal_that_fills_its_disk_within_a_day_is_reported_hours_before() -> None:
    machine = Machine()
    machine.devices["state"] = 2  # another disk, which the journal does not fill
    a_day = int(86_400 / LOOK_S)
    assert machine.look(60, grows=40 * GIB // a_day) == []
    assert machine.look(240, grows=60 * GIB // a_day) == ["disk_low"]
    _, about, text = machine.events[-1]
    assert about == "journal"
    assert "the journal fills the disk in 2" in text
    assert not machine.space.is_low("state")
    assert machine.look(240) == ["disk_ok"]  # it stands still


def test_a_journal_whose_limit_fits_on_the_disk_is_not_forecast_to_fill_it() -> None:
    a_day = int(86_400 / LOOK_S)
    assert Machine(40 * GIB).look(300, grows=60 * GIB // a_day) == []
    assert Machine(90 * GIB).look(300, grows=60 * GIB // a_day) == ["disk_low"]


def test_a_burst_is_no_trend() -> None:
    machine = Machine()
    assert machine.look(5, grows=GIB) == []  # two and a half minutes
    assert machine.look(235) == []


def test_on_a_small_disk_a_share_of_it_is_little() -> None:
    assert disk_space.shortage(Disk(1, 2 * GIB, GIB // 2), 0.0) == ""
    assert disk_space.shortage(Disk(1, 2 * GIB, GIB // 20), 0.0)


def test_a_disk_that_cannot_be_measured_hides_no_other() -> None:
    machine = Machine()
    machine.devices["state"] = 2
    machine.broken = "journal"
    machine.free["state"] = 1
    assert machine.look() == ["disk_low"]
    assert list(machine.space.disks) == ["state"]


def test_a_folder_that_does_not_exist_yet_is_on_the_disk_of_the_one_above(tmp_path: Path) -> None:
    disk = disk_space.measure(tmp_path / "not" / "yet")
    assert disk.device == tmp_path.stat().st_dev
    assert 0 <= disk.free_bytes <= disk.size_bytes


def test_the_size_of_a_journal_is_that_of_its_segments(tmp_path: Path) -> None:
    (tmp_path / "journal-a.jsonl").write_bytes(b"12345")
    (tmp_path / "journal-b.jsonl").write_bytes(b"123")
    (tmp_path / "journal-b.marks").write_bytes(b"1")
    (tmp_path / "audit.jsonl").write_bytes(b"1")
    assert disk_space.journal_bytes(tmp_path) == 8
    with pytest.raises(FileNotFoundError):
        disk_space.journal_bytes(tmp_path / "gone")
