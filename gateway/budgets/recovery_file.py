"""The recovery file: what one process has spent and reserved, in memory that outlives it.

Theory of operation. A gateway spends from its leases in memory and reports to the ledger later.
What is not yet reported must survive SIGKILL, without a write on the request path. Each lease
therefore has a slot in a memory-mapped file, with the eight-byte cells `settled` and `open`. A
store to a cell takes tens of nanoseconds. A page of a shared mapping belongs to the kernel, so it
survives the process. (It does not survive a power loss; see `boot`.)

A process can die between any two instructions, so the order of stores is chosen to lose nothing:

    reserve     open += amount                          before the call is made
    settle      settled += cost, then open -= amount    killed in between: counted twice, not lost

A cell is written by one eight-byte store (a memoryview of native 64-bit integers) and is never
torn.

A live process holds the lock on its file. A process that acquires the lock of another's file may
read it, have the ledger reconcile it, and delete it. The kernel releases the lock when the owner
ends, however it ends.

Disk blocks are allocated when the file grows, because a first write to a page without a block would
end the process (SIGBUS). If the disk is full, a lease is kept in memory only. If the process is
then killed, nothing proves what it left unspent, and the whole lease stays charged.

A recovery file is valid only on the boot that wrote it. After a power loss the file may be older
than the spending, so its leases stay charged until an operator releases them.
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
from tollway.gateway.security.private_files import FILE_MODE, make_folder

log = logging.getLogger(__name__)

Cells: TypeAlias = "MutableSequence[int] | memoryview[int]"

SLOT_CELLS = 64  # 512 bytes: the cells, and 472 bytes of JSON that identify the lease
CHUNK_CELLS = 4096  # 32 KiB: 64 slots, a multiple of any page size in use
USED, SETTLED, OPEN, ACKNOWLEDGED, LENGTH, NAME = range(6)
MAGIC = int.from_bytes(b"tollway1", "little")


class RecoveryFile:
    """The slots of one process. The mutable state is the file and the list of free slots."""

    def __init__(self, path: Path, ledger_id: str) -> None:
        """Create the file. It is already locked when it appears under its final name."""
        self.path = path
        make_folder(path.parent)
        new = path.with_suffix(".new")
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._maps: list[mmap.mmap] = []
        self._free: list[Cells] = []
        self._grow()
        header = self._free.pop()
        _write_text(header, json.dumps({"ledger": ledger_id, "boot": boot()}))
        header[USED] = MAGIC
        new.rename(path)

    def claim(self, key: LeaseKey) -> Cells:
        """Return zeroed cells for a lease, in the file unless the disk is full."""
        if not self._free:
            try:
                self._grow()
            except OSError as exc:
                log.warning("%s cannot grow (%s): keeping a lease in memory only", self.path, exc)
                return [0] * LENGTH
        cells = self._free.pop()
        cells[SETTLED] = cells[OPEN] = cells[ACKNOWLEDGED] = 0
        _write_text(
            cells, json.dumps([key.budget, key.window_start_s, key.window_end_s, key.lease])
        )
        cells[USED] = 1  # last, so that a slot in use is complete
        return cells

    def release(self, cells: Cells) -> None:
        """Free the cells of a closed lease."""
        cells[USED] = 0
        if isinstance(cells, memoryview):
            self._free.append(cells)

    def close(self) -> None:
        """Delete the file: everything in it has been reported."""
        self.path.unlink(missing_ok=True)
        self._free.clear()
        os.close(self._fd)

    def abandon(self) -> None:
        """Unlock the file as a crash would, and leave it for other processes to read."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)  # the maps have their own descriptors
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
    """A dead process's recovery file, locked for reading and deletion. Exiting unlocks it."""

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
        """Return the file's claims; none if it is for another ledger or from another boot."""
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
                acknowledged=cells[ACKNOWLEDGED] != 0,
            )
            for cells in self._slots[1:]
            if cells[USED] == 1
        ]

    def delete(self) -> None:
        """Delete the file after the ledger has reconciled it."""
        self.path.unlink(missing_ok=True)


def orphaned_files(folder: Path) -> Iterator[OrphanedFile]:
    """Yield, locked, each recovery file in a folder whose owner has ended."""
    for path in sorted(folder.glob("*.recovery")):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = os.fstat(fd).st_nlink == 0
        except BlockingIOError:
            gone = True
        if gone:  # the owner is alive, or another process has already reconciled the file
            os.close(fd)
            continue
        with OrphanedFile(path, fd) as recovery_file:
            yield recovery_file


def boot() -> str:
    """Return the machine's boot id; empty if the system does not provide one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _write_text(cells: Cells, text: str) -> None:
    data = text.encode()
    if len(data) > (SLOT_CELLS - NAME) * 8:
        raise ValueError(f"too long for a recovery file: {text[:80]}...")
    cells[LENGTH] = len(data)
    padded = data.ljust((SLOT_CELLS - NAME) * 8, b"\0")
    for at in range(SLOT_CELLS - NAME):
        cells[NAME + at] = int.from_bytes(padded[8 * at : 8 * at + 8], "little", signed=True)


def _read_text(cells: Cells) -> str:
    data = b"".join(cell.to_bytes(8, "little", signed=True) for cell in cells[NAME:])
    return data[: cells[LENGTH]].decode()
