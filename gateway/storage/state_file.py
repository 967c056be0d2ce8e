"""A state file: state of the gateway as a whole that is to survive a restart, in one snapshot."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from tollway.gateway.storage import snapshot_file


class Stateful(Protocol):
    """State that can be saved and loaded."""

    def save(self) -> bytes:
        """Return the state."""

    def load(self, state: bytes) -> None:
        """Load saved state. Raises ValueError or KeyError if it is damaged."""


class StateFile:
    """Saves parts of state to a file, and restores them from it."""

    # The mutable state is the parts' own, and the file.

    def __init__(
        self,
        path: Path,
        parts: Mapping[str, Stateful],
        *,
        report: Callable[[str, str, str], None],
        wall: Callable[[], float],
    ) -> None:
        """`report` receives a kind of event, its subject and a text for each failure."""
        self._path = path
        self._parts = parts
        self._report = report
        self._wall = wall

    def restore(self) -> None:
        """Load the parts, if they were saved. A damaged file is moved aside and reported."""
        try:
            saved, _ = snapshot_file.unpack(self._path.read_bytes())
            for name, part in self._parts.items():
                part.load(saved[name])
        except FileNotFoundError:
            return
        except (ValueError, KeyError) as exc:
            aside = snapshot_file.set_aside(self._path)
            self._report(
                "snapshot_damaged", self._path.stem, f"{exc}; the file was moved to {aside}"
            )

    async def save(self) -> None:
        """Write the parts, in a thread: they may have many megabytes. A disk error is reported."""
        parts = {name: part.save() for name, part in self._parts.items()}
        try:
            await asyncio.to_thread(self._write, parts, self._wall())
        except OSError as exc:
            self._report("snapshot_failed", self._path.stem, f"the state was not saved: {exc}")

    def _write(self, parts: dict[str, bytes], time_s: float) -> None:
        snapshot_file.write(self._path, snapshot_file.pack(parts, time_s))
