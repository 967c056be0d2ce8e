"""Retained snapshots: what routes had learned in earlier hours, and requests to restore one.

The state folder contains:

- `ROUTE.snapshot`: the newest snapshot.
- `kept/ROUTE.SECONDS.snapshot`: hourly snapshots, named by their time.
- `ROUTE.restore`: the state that an operator wants the route to continue from. The gateway loads it
  at the next save or start and makes it the newest snapshot.
"""

from dataclasses import dataclass
from pathlib import Path

from tollway.gateway.storage import snapshot_file

KEPT_EVERY_S = 3600.0
KEPT_MAX = 48  # two days, hourly; at most two megabytes each


@dataclass(frozen=True, slots=True)
class Kept:
    """A route's retained snapshot on disk. `id` identifies it in commands."""

    id: str
    route: str
    time_s: float
    path: Path

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size


def newest(folder: Path, route: str) -> Path:
    """Return the path of a route's newest snapshot."""
    return folder / f"{route}.snapshot"


def restore(folder: Path, route: str) -> Path:
    """Return the path of the state that a route is to restore."""
    return folder / f"{route}.restore"


def listed(folder: Path, route: str) -> list[Kept]:
    """Return a route's retained snapshots, newest first; other files are ignored."""
    snapshots = []
    for path in (folder / "kept").glob(f"{route}.*.snapshot"):
        at = path.name[len(route) + 1 : -len(".snapshot")]
        if at.isdecimal():
            snapshots.append(Kept(f"{route}.{at}", route, float(at), path))
    return sorted(snapshots, key=lambda snapshot: -snapshot.time_s)


def due(folder: Path, route: str, now_s: float) -> bool:
    """Return whether an hour has passed since the last snapshot was retained."""
    before = listed(folder, route)
    return not before or now_s - before[0].time_s >= KEPT_EVERY_S


def keep(folder: Path, route: str, blob: bytes, now_s: float) -> Kept:
    """Retain a snapshot and delete the oldest beyond KEPT_MAX. Raises OSError."""
    path = folder / "kept" / f"{route}.{int(now_s)}.snapshot"
    snapshot_file.write(path, blob)
    for old in listed(folder, route)[KEPT_MAX:]:
        old.path.unlink(missing_ok=True)
    return Kept(f"{route}.{int(now_s)}", route, float(int(now_s)), path)


def ask_for(folder: Path, route: str, parts: dict[str, bytes], now_s: float) -> None:
    """Request that a route restore these parts, dated now: earlier labels are not replayed."""
    snapshot_file.write(restore(folder, route), snapshot_file.pack(parts, now_s))
