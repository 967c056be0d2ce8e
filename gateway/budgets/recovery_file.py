"""The till: what one process has spent and reserved, in memory that outlives it.

Theory of operation. A gateway spends from its leases in memory and tells the ledger later. What it
has not told yet must survive SIGKILL, without a write on the path. So each lease has a slot in a
file that is mapped into memory: eight-byte cells `settled` and `open`. Storing into one costs tens
of nanoseconds, and a page of a shared mapping belongs to the kernel: it is there when the process
is not. (A machine that loses power loses it; see `boot`.)

A process dies between any two instructions, so the order of stores says what is believed:

    reserve     open += amount                          before the call is made
    settle      settled += cost, then open -= amount    killed in between: counted twice, not lost

A cell is stored by one eight-byte move (a memoryview of native 64-bit integers), never torn.

Whoever holds the lock on the file is alive. Whoever gets the lock of another's file may read what
its owner left, have the ledger reconcile it, and delete it. The kernel drops the lock when the
owner is gone, however it went.

Blocks of the disk are taken when the file grows: a page that finds none when it is first written to
would end the process (SIGBUS). Where the disk has none left a lease is kept in memory alone. Should
this process be killed nothing then proves what it did not spend of it, and all of it stays charged.

A till is believed only on the boot that wrote it: after a power cut the file may be older than
what was spent, so its leases stay charged until they are released by hand.
"""

import fcntl
import json
import logging
import mmap
import os
from collections.abc import Iterator, MutableSequence
from pathlib import Path
from typing import Self, TypeAlias

from tollway.gateway.budgets.model import MAX_LIMIT_NANO, LeaseKey
from tollway.gateway.budgets.protocol import RecoveryClaim

log = logging.getLogger("tollway.ledger")

Cells: TypeAlias = "MutableSequence[int] | memoryview[int]"

SLOT_CELLS = 64  # 512 bytes: the cells, and 472 bytes of JSON that says whose they are
CHUNK_CELLS = 4096  # 32 KiB: 64 slots, a multiple of any page size in use
USED, SETTLED, OPEN, HEARD, LENGTH, NAME = range(6)
MAGIC = int.from_bytes(b"tollway1", "little")


class RecoveryFile:
    """The slots of one process. The mutable state is its file and which slots are free."""

    def __init__(self, path: Path, ledger_id: str) -> None:
        """Create the file, locked from its first moment under its name."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._maps: list[mmap.mmap] = []
        self._free: list[Cells] = []
        self._grow()
        header = self._free.pop()
        _write_text(header, json.dumps({"ledger": ledger_id, "boot": boot()}))
        header[USED] = MAGIC
        new.rename(path)

    def claim(self, key: LeaseKey) -> Cells:
        """Return the cells of a lease, zero; in the file as long as the disk has room for them."""
        if not self._free:
            try:
                self._grow()
            except OSError as exc:
                log.warning("%s cannot grow (%s): a lease is in memory alone", self.path, exc)
                return [0] * LENGTH
        cells = self._free.pop()
        cells[SETTLED] = cells[OPEN] = cells[HEARD] = 0
        _write_text(
            cells, json.dumps([key.budget, key.window_start_s, key.window_end_s, key.lease])
        )
        cells[USED] = 1  # last: a slot that is in use is whole
        return cells

    def release(self, cells: Cells) -> None:
        """Free the cells of a lease that the ledger has closed."""
        cells[USED] = 0
        if isinstance(cells, memoryview):
            self._free.append(cells)

    def close(self) -> None:
        """Delete the file: there is nothing left to prove."""
        self.path.unlink(missing_ok=True)
        self._free.clear()
        os.close(self._fd)

    def abandon(self) -> None:
        """Let go as death would: the file stays, for others to read."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)  # the maps have descriptors of their own
        os.close(self._fd)

    def _grow(self) -> None:
        start = len(self._maps) * CHUNK_CELLS * 8
        os.posix_fallocate(self._fd, start, CHUNK_CELLS * 8)
        mapped = mmap.mmap(self._fd, CHUNK_CELLS * 8, offset=start)
        self._maps.append(mapped)
        cells = memoryview(mapped).cast("q")
        ats = range(0, CHUNK_CELLS, SLOT_CELLS)
        # Reversed, so that the first slot of the file is taken first.
        self._free.extend(cells[at : at + SLOT_CELLS] for at in reversed(ats))


class OrphanedFile:
    """A till whose owner is gone, ours to read and delete. A context manager: leaving lets go."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        size = os.fstat(fd).st_size // (SLOT_CELLS * 8) * SLOT_CELLS * 8
        data = os.pread(fd, size, 0)
        cells = memoryview(data).cast("q")
        self._slots = [cells[at : at + SLOT_CELLS] for at in range(0, len(cells), SLOT_CELLS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def claims(self, ledger_id: str) -> list[RecoveryClaim]:
        """Return what it proves to a ledger; nothing if it is another's, or of another boot."""
        if not self._slots or self._slots[0][USED] != MAGIC:
            return []
        header = json.loads(_read_text(self._slots[0]))
        if header != {"ledger": ledger_id, "boot": boot()}:
            return []
        return [
            RecoveryClaim(
                LeaseKey(*json.loads(_read_text(cells))),
                settled_nano=cells[SETTLED],
                open_nano=min(cells[OPEN], MAX_LIMIT_NANO),
                heard=cells[HEARD] != 0,
            )
            for cells in self._slots[1:]
            if cells[USED] == 1
        ]

    def delete(self) -> None:
        """Delete the file, once the ledger knows what it said."""
        self.path.unlink(missing_ok=True)


def dead_tills(folder: Path) -> Iterator[OrphanedFile]:
    """Yield each till in a folder whose owner is gone, locked."""
    for path in sorted(folder.glob("*.till")):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = os.fstat(fd).st_nlink == 0
        except BlockingIOError:
            gone = True
        if gone:  # alive, or another has reconciled it already
            os.close(fd)
            continue
        with OrphanedFile(path, fd) as recovery_file:
            yield recovery_file


def boot() -> str:
    """Return what names this boot of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _write_text(cells: Cells, text: str) -> None:
    data = text.encode()
    if len(data) > (SLOT_CELLS - NAME) * 8:
        raise ValueError(f"too long for a till: {text[:80]}...")
    cells[LENGTH] = len(data)
    padded = data.ljust((SLOT_CELLS - NAME) * 8, b"\0")
    for at in range(SLOT_CELLS - NAME):
        cells[NAME + at] = int.from_bytes(padded[8 * at : 8 * at + 8], "little", signed=True)


def _read_text(cells: Cells) -> str:
    data = b"".join(cell.to_bytes(8, "little", signed=True) for cell in cells[NAME:])
    return data[: cells[LENGTH]].decode()
