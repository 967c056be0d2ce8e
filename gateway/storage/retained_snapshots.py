"""Kept snapshots: what routes had learned some hours ago, and what is to be taken up instead.

In the folder of the state, `ROUTE.snapshot` is the newest; `kept/ROUTE.SECONDS.snapshot` are those
of earlier hours, named by their time; `ROUTE.restore` is what an operator wants a route to go on
with. The gateway takes that up when it next saves, or when it starts, and makes it the newest.
"""

from dataclasses import dataclass
from pathlib import Path

from tollway.gateway.storage import snapshot_file

KEPT_EVERY_S = 3600.0
KEPT_MAX = 48  # two days of hours; at most two megabytes each


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot of a route on the disk; `id` names it in commands."""

    id: str
    route: str
    time_s: float
    path: Path

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.path.stat().st_size


def newest(folder: Path, route: str) -> Path:
    """Return where a route's newest snapshot is."""
    return folder / f"{route}.snapshot"


def restore(folder: Path, route: str) -> Path:
    """Return where a route finds what it shall go on with."""
    return folder / f"{route}.restore"


def listed(folder: Path, route: str) -> list[Kept]:
    """Return a route's kept snapshots, newest first; other files are left out."""
    found = []
    for path in (folder / "kept").glob(f"{route}.*.snapshot"):
        at = path.name[len(route) + 1 : -len(".snapshot")]
        if at.isdecimal():
            found.append(Kept(f"{route}.{at}", route, float(at), path))
    return sorted(found, key=lambda kept: -kept.time_s)


def due(folder: Path, route: str, now_s: float) -> bool:
    """Whether an hour has gone since one was kept."""
    before = listed(folder, route)
    return not before or now_s - before[0].time_s >= KEPT_EVERY_S


def keep(folder: Path, route: str, blob: bytes, now_s: float) -> Kept:
    """Keep a snapshot, and remove the oldest beyond KEPT_MAX; OSError where the disk refuses."""
    path = folder / "kept" / f"{route}.{int(now_s)}.snapshot"
    snapshot_file.write(path, blob)
    for old in listed(folder, route)[KEPT_MAX:]:
        old.path.unlink(missing_ok=True)
    return Kept(f"{route}.{int(now_s)}", route, float(int(now_s)), path)


def ask_for(folder: Path, route: str, parts: dict[str, bytes], now_s: float) -> None:
    """Have a route go on with these parts, as of now: labels told before are not learned again."""
    snapshot_file.write(restore(folder, route), snapshot_file.pack(parts, now_s))
