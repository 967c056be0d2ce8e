"""A lock on a folder: two gateways that write to one would read each other's rows as their own.

The lock belongs to the process and the workers that it forks. The kernel releases it when the last
of them ends, however it ends, so a lock that is held is never stale.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tollway.gateway.security.private_files import FILE_MODE, make_folder

NAME = "gateway.lock"
WAIT_S = 5.0  # for a gateway that is just ending, as in a restart
POLL_S = 0.05

log = logging.getLogger(__name__)


class FolderInUse(Exception):  # noqa: N818 - reads as what happened
    """Another gateway uses a folder; the message says which one."""


@contextmanager
def held(folder: Path, *, wait_s: float | None = None) -> Iterator[None]:
    """Hold the lock of a folder, created if missing.

    FolderInUse if another process keeps it for `wait_s` more seconds, by default WAIT_S.
    """
    make_folder(folder)
    fd = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        _take(fd, folder, WAIT_S if wait_s is None else wait_s)
        with contextlib.suppress(OSError):  # it is for a message; a full disk must not stop a start
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(fd)


def _take(fd: int, folder: Path, wait_s: float) -> None:
    until_s, told = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            if time.monotonic() >= until_s:
                raise FolderInUse(f"another gateway (process {holder}) uses {folder}") from None
            if not told:
                told = True
                log.warning("waiting for process %s, which still uses %s", holder, folder)
            time.sleep(POLL_S)
        except OSError as exc:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s): no other gateway may use it", folder, exc)
            return
        else:
            return
