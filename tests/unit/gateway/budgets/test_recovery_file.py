"""Recovery files: what outlives a process, and which files are valid."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tollway.gateway.budgets import recovery_file as recovery_files
from tollway.gateway.budgets.local_lease import LocalLease
from tollway.gateway.budgets.model import LeaseKey
from tollway.gateway.budgets.protocol import RecoveryClaim
from tollway.gateway.budgets.recovery_file import (
    OPEN,
    SETTLED,
    SLOT_CELLS,
    RecoveryFile,
    orphaned_files,
)

KEY = LeaseKey("budget with a näme", 0, None, "h.1")


def read(folder: Path, ledger_id: str = "L") -> list[RecoveryClaim]:
    return [
        claim
        for recovery_file in orphaned_files(folder)
        for claim in recovery_file.claims(ledger_id)
    ]


def test_only_files_of_dead_processes_are_recovered(tmp_path: Path) -> None:
    recovery_file = RecoveryFile(tmp_path / "a.recovery", "L")
    lease = LocalLease(KEY, recovery_file.claim(KEY), 0.0)
    lease.room_nano = 500
    lease.hold(300)
    lease.hold(200)
    lease.settle(300, 120)
    assert read(tmp_path) == []
    recovery_file.abandon()
    assert read(tmp_path) == [RecoveryClaim(KEY, 120, 200, acknowledged=False)]


def test_a_file_of_another_ledger_or_another_boot_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery_file = RecoveryFile(tmp_path / "a.recovery", "L")
    recovery_file.claim(KEY)
    recovery_file.abandon()
    assert read(tmp_path, "another") == []
    assert len(read(tmp_path)) == 1
    monkeypatch.setattr(recovery_files, "boot", lambda: "after a power cut")
    assert read(tmp_path) == []


def test_a_freed_slot_is_not_claimed_and_is_used_again(tmp_path: Path) -> None:
    recovery_file = RecoveryFile(tmp_path / "a.recovery", "L")
    cells = recovery_file.claim(KEY)
    cells[SETTLED] = 7
    recovery_file.release(cells)
    again = recovery_file.claim(LeaseKey("c", 1, 2, "h.2"))
    assert again[SETTLED] == 0
    recovery_file.abandon()
    assert read(tmp_path) == [RecoveryClaim(LeaseKey("c", 1, 2, "h.2"), 0, 0, acknowledged=False)]


def test_it_grows_past_its_first_slots(tmp_path: Path) -> None:
    recovery_file = RecoveryFile(tmp_path / "a.recovery", "L")
    for number in range(300):
        recovery_file.claim(LeaseKey("b", 0, None, f"h.{number}"))[OPEN] = number
    recovery_file.abandon()
    assert [claim.open_nano for claim in read(tmp_path)] == list(range(300))


def test_a_damaged_or_empty_file_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.recovery").write_bytes(b"")
    (tmp_path / "noise.recovery").write_bytes(b"\x07" * 8 * SLOT_CELLS * 3)
    assert read(tmp_path) == []


class Recorder(list[int]):
    """Cells that record the order of writes, and so every state that a kill can leave."""

    def __init__(self) -> None:
        super().__init__([0] * 8)
        self.states: list[tuple[int, int]] = []

    def __setitem__(self, at: object, value: object) -> None:
        super().__setitem__(at, value)  # type: ignore[call-overload]
        self.states.append((self[SETTLED], self[OPEN]))


@pytest.mark.parametrize("cost_nano", [0, 60, 100, 130])
def test_a_kill_between_two_stores_never_loses_money(cost_nano: int) -> None:
    cells = Recorder()
    lease = LocalLease(KEY, cells, 0.0)
    lease.hold(100)
    assert cells.states == [(0, 100)]
    lease.settle(100, cost_nano)
    assert all(settled + opened >= cost_nano for settled, opened in cells.states[1:])
    assert cells.states[-1] == (cost_nano, 0)


SPENDER = """
import sys, time
from pathlib import Path
from tollway.gateway.budgets.local_lease import LocalLease
from tollway.gateway.budgets.recovery_file import RecoveryFile
from tollway.gateway.budgets.model import LeaseKey
file = RecoveryFile(Path(sys.argv[1]) / "x.recovery", "L")
key = LeaseKey("b", 0, None, "h.1")
lease = LocalLease(key, file.claim(key), 0.0)
print("go", flush=True)
while True:
    lease.hold(10)
    print("h", flush=True)   # the call is made
    lease.settle(10, 10)
    print("s", flush=True)   # its end was recorded
"""


@pytest.mark.integration
@pytest.mark.parametrize("attempt", range(5))
def test_sigkill_at_any_instant_loses_no_recorded_money(tmp_path: Path, attempt: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SPENDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[4],
    )
    assert process.stdout is not None
    for _ in range(2 + 997 * (attempt + 1)):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    told = process.stdout.read().decode().split()
    process.wait()
    process.stdout.close()
    lines = 1 + 997 * (attempt + 1) + len(told)  # without the first, `go`
    calls, ends = (lines + 1) // 2, lines // 2
    [claim] = read(tmp_path)
    assert claim.settled_nano >= 10 * ends
    assert claim.settled_nano + claim.open_nano >= 10 * calls
    assert claim.settled_nano + claim.open_nano <= 10 * (calls + 1) + 10
