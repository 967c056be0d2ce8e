"""A folder for spooled logs, which does not outlive its process."""

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

PREFIX = "tollway-replay-"
_YOUNG_S = 60.0  # between the creation of a folder and its lock lie microseconds


class Scratch:
    """A folder for spooled logs; it is deleted with this object or at process exit.

    A killed process leaves its folder, and with it its lock goes: the next Scratch deletes it.
    """

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()), time.time())
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        weakref.finalize(self, _end, self.path, _locked(self.path))


def _locked(folder: Path) -> int:
    """Return a descriptor with the folder's lock; BlockingIOError if another process has it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _end(folder: Path, fd: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(fd)


def _sweep(parent: Path, now_s: float) -> None:
    """Delete the folders of processes that were killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if now_s - folder.lstat().st_mtime > _YOUNG_S:
                _end(folder, _locked(folder))
        except OSError:  # in use, of another user, or already deleted
            continue
