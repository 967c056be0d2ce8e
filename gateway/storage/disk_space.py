"""Watches the free space of the disks that hold the gateway's files, and reports it while it lasts.

A disk is low when little of it is free, or when the journal would fill it within a day at the rate
of the last hour, if it still grows that fast. It is no longer low once it has a quarter more room
than that, so that a disk at the limit is reported once. Folders on the same disk are reported
together.
"""

import asyncio
import contextlib
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOK_S = 30.0  # between two looks
LOW_SHARE = 0.05
LOW_BYTES = 1 << 30  # of a large disk 5 % may be more than a journal writes in a year
AHEAD_S = 86_400.0  # time for a person to make room
RATE_S = 3600.0  # over which the journal's growth is measured
RATE_MIN_S = 1800.0  # no forecast from a shorter time
RECENT_S = 600.0  # in which it must still grow: a burst that is over is no trend
MARGIN = 1.25  # the room that ends the warning, as a multiple of the room that begins it

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk that holds a folder."""

    device: int
    size_bytes: int
    free_bytes: int


def measure(folder: Path) -> Disk:
    """Return the disk of a folder, or of the nearest one above it that exists. Raises OSError."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return Disk(folder.stat().st_dev, usage.total, usage.free)


def journal_bytes(folder: Path) -> int:
    """Return the size of a journal's segments together."""
    size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("journal-") and entry.name.endswith(".jsonl"):
                with contextlib.suppress(FileNotFoundError):  # removed by retention
                    size += entry.stat().st_size
    return size


def shortage(disk: Disk, growth_bytes_per_s: float, margin: float = 1.0) -> str:
    """Return why a disk is low, or nothing. `margin` multiplies the room that it must have."""
    if disk.free_bytes < margin * min(LOW_SHARE * disk.size_bytes, LOW_BYTES):
        return f"{disk.free_bytes / disk.size_bytes:.1%} of the disk is free"
    if disk.free_bytes < margin * AHEAD_S * growth_bytes_per_s:
        left_h = disk.free_bytes / growth_bytes_per_s / 3600.0
        return f"the journal fills the disk in {left_h:.1f} hours at the present rate"
    return ""


class DiskSpace:
    """The free space where the gateway writes."""

    # The mutable state: what was measured last, the journal's sizes of an hour, and the low disks.

    def __init__(
        self,
        folders: Mapping[str, Path],
        *,
        report: Report,
        clock: Callable[[], float],
        journal_bytes_max: float = math.inf,
        measure: Callable[[Path], Disk] = measure,
        journal_bytes: Callable[[Path], int] = journal_bytes,
    ) -> None:
        """`folders`: what is written where; the one named `journal` grows. `report` takes events.

        `clock` is monotonic, in seconds. Above `journal_bytes_max`, retention removes segments.
        """
        self._folders = dict(folders)
        self._report = report
        self._clock = clock
        self._journal_bytes_max = journal_bytes_max
        self._measure = measure
        self._journal_bytes = journal_bytes
        self._sizes: deque[tuple[float, int]] = deque()
        self._low: set[int] = set()
        self.disks: dict[str, Disk] = {}

    def is_low(self, folder: str) -> bool:
        """Return whether the disk of a measured folder is low."""
        return self.disks[folder].device in self._low

    async def look(self) -> None:
        """Measure the disks in a thread, because a disk that hangs must not stop the gateway."""
        self.disks, size = await asyncio.to_thread(self._measured)
        growth = self._growth(size)
        for device in {disk.device for disk in self.disks.values()}:
            self._judge(device, growth)

    def _measured(self) -> tuple[dict[str, Disk], int | None]:
        disks: dict[str, Disk] = {}
        for name, folder in self._folders.items():
            try:
                disks[name] = self._measure(folder)
            except OSError:  # such as a volume that is gone; writing to it has its own alerts
                continue
        try:
            return disks, self._journal_bytes(self._folders["journal"])
        except OSError:
            return disks, None

    def _growth(self, size: int | None) -> float:
        """Return the journal's growth in bytes per second, 0 until it is known."""
        now_s = self._clock()
        if size is not None:
            self._sizes.append((now_s, size))
        while self._sizes and now_s - self._sizes[0][0] > RATE_S:
            self._sizes.popleft()
        if size is None or now_s - self._sizes[0][0] < RATE_MIN_S:
            return 0.0
        recent = next(sample for sample in self._sizes if now_s - sample[0] <= RECENT_S)
        since = [sample for sample in (self._sizes[0], recent) if sample[0] < now_s]
        return max(0.0, min((size - before) / (now_s - then_s) for then_s, before in since))

    def _judge(self, device: int, growth: float) -> None:
        names = sorted(name for name, disk in self.disks.items() if disk.device == device)
        disk = self.disks[names[0]]
        was_low = device in self._low
        fits = self._sizes and self._journal_bytes_max - self._sizes[-1][1] <= disk.free_bytes
        grows = 0.0 if fits or "journal" not in names else growth
        why = shortage(disk, grows, MARGIN if was_low else 1.0)
        if bool(why) == was_low:
            return
        about = ", ".join(names)
        free = f"{disk.free_bytes / 1e9:,.1f} GB of {disk.size_bytes / 1e9:,.1f} GB are free"
        details: dict[str, Any] = {
            "free_bytes": disk.free_bytes,
            "size_bytes": disk.size_bytes,
            "journal_bytes_per_s": round(grows, 1),
        }
        if why:
            self._low.add(device)
            self._report("disk_low", about, f"{why}: {free}", **details)
        else:
            self._low.discard(device)
            self._report("disk_ok", about, free, **details)
