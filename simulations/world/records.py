"""The journal of a simulation: keeps decisions in memory for as long as they are needed.

Ids and rows are those of production, in order of arrival and without randomness, so the same seed
writes the same bytes. With a folder, the gateway's journal is written there too, and
`tollway simulate replay` and other readers of journals can read it.
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.journal_format import Row, base36, seal

BUFFER_BYTES = 1 << 20


class Records(Journal):
    """Keeps the latest rows; never waits for a disk."""

    # The mutable state is the row factory of each decision, their order, and the buffer.

    def __init__(self, tag: str, folder: Path | None = None, *, keep: int = 200_000) -> None:
        """Keep the last `keep` decisions; feedback for older ones finds nothing."""
        self._tag = tag
        self._keep = keep
        self._retained: dict[str, Callable[[], list[Row]]] = {}
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
        """Do nothing: virtual time does not advance while rows are written."""

    def new_id(self) -> str:
        """Return the id of the request whose rows are appended next."""
        self._number += 1
        at = self._size if self._file is not None else self._number
        return f"{self._tag}.{base36(at)}.0000"

    def record(self, decision: str, made: Callable[[], list[Row]]) -> None:
        """Keep a decision; its rows are built when they are written or read."""
        if self._file is not None:
            rows = made()
            self.append(*rows)
            made = rows.copy
        self._retained[decision] = made
        self._order.append(decision)
        if len(self._order) > self._keep:
            self._retained.pop(self._order.popleft(), None)

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
        """Return 0: nothing waits."""
        return 0

    def find(self, decision: str) -> list[Row]:
        """Return the rows of a kept decision."""
        made = self._retained.get(decision)
        return made() if made is not None else []

    def put(self, row: Row) -> bool:
        """Write a row; it is never refused."""
        self.append(row)
        return True

    def marked(self, decision: str) -> bool:
        """Whether a decision has had its feedback or is no longer kept."""
        return decision not in self._retained

    def mark(self, decision: str) -> bool:
        """Drop a decision that has had its feedback; return False if it is not kept."""
        return self._retained.pop(decision, None) is not None

    def forget(self, decision: str) -> None:
        """Drop a decision that is no longer needed."""
        self._retained.pop(decision, None)

    def flush(self) -> None:
        """Write the buffer."""
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
