"""The journal of a simulation: decisions in memory as long as somebody will ask for them.

Ids and rows are those of production, in the order they came and without chance in them, so that the
same seed writes the same bytes. With a folder, what the gateway would have written is written there
as well, and `tollway simulate replay` and all else that reads journals can read it.
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.journal_format import Row, base36, seal

BUFFER_BYTES = 1 << 20


class Records(Journal):
    """Keeps what was appended last; never waits for a disk."""

    # The mutable state is what makes the rows of each decision, their order, and the buffer.

    def __init__(self, tag: str, folder: Path | None = None, *, keep: int = 200_000) -> None:
        """`keep` decisions are remembered; feedback that comes later still finds nothing."""
        self._tag = tag
        self._keep = keep
        self._kept: dict[str, Callable[[], list[Row]]] = {}
        self._order: deque[str] = deque()
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._number = 0
        self._size = 0
        self._file = None
        self.rows_written = 0
        self.rows_dropped = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / f"journal-{tag}.jsonl").open("wb")

    def write_in_turns(self) -> None:
        """Do nothing: time stands still while rows are written."""

    def new_id(self) -> str:
        """Return the id of the request whose rows are appended next."""
        self._number += 1
        at = self._size if self._file is not None else self._number
        return f"{self._tag}.{base36(at)}.0000"

    def record(self, decision: str, made: Callable[[], list[Row]]) -> None:
        """Keep a decision; its rows are made when they are written, or asked for."""
        if self._file is not None:
            found = made()
            self.append(*found)
            made = found.copy
        self._kept[decision] = made
        self._order.append(decision)
        if len(self._order) > self._keep:
            self._kept.pop(self._order.popleft(), None)

    def append(self, *appended: Row) -> None:
        """Write rows."""
        self.rows_written += len(appended)
        if self._file is not None:
            for row in appended:
                self._write(seal(row))

    def _write(self, line: bytes) -> None:
        self._size += len(line)
        self._buffered_bytes += len(line)
        self._buffer.append(line)
        if self._buffered_bytes >= BUFFER_BYTES:
            self.flush()

    @property
    def waiting_bytes(self) -> int:
        """Return 0: nothing waits for anything."""
        return 0

    def find(self, decision: str) -> list[Row]:
        """Return the rows of a decision that is remembered."""
        made = self._kept.get(decision)
        return made() if made is not None else []

    def put(self, row: Row) -> bool:
        """Write a row; nothing refuses it."""
        self.append(row)
        return True

    def marked(self, decision: str) -> bool:
        """Whether a decision had its feedback, or is forgotten."""
        return decision not in self._kept

    def mark(self, decision: str) -> bool:
        """Forget a decision, for it has had its feedback; False where there is none to forget."""
        return self._kept.pop(decision, None) is not None

    def forget(self, decision: str) -> None:
        """Forget a decision that nobody will ask for."""
        self._kept.pop(decision, None)

    def flush(self) -> None:
        """Write what was kept back."""
        if self._file is not None and self._buffer:
            self._file.write(b"".join(self._buffer))
        self._buffer.clear()
        self._buffered_bytes = 0

    def sync(self) -> None:
        """Do nothing: no power fails here."""

    def close(self) -> None:
        """Write everything."""
        self.flush()
        if self._file is not None:
            self._file.close()
