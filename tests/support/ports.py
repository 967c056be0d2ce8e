"""Ports of loopback that no other process takes between their choice and their use.

A port of the kernel's ephemeral range (32768 and above) may become any connection's at any time; so
these are below it, and each is claimed for as long as the process that chose it lives: a server may
stop and start again on its port, and no test beside it chooses the same.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

FIRST, END = 12_000, 22_000
BUS = 10_000
"""How much higher a node's port for a cluster's own traffic is than its port for clients."""

_TRIES = 1000
_MINE: set[int] = set()
"""The ports that this process has claimed."""
# One file, whose byte N is locked by the process that claimed port N; the kernel drops the locks
# when the process ends. It is open from the start, so no test is seen to leave a file open.
_CLAIMS = os.open(
    Path(tempfile.gettempdir()) / f"tollway-ports-{os.getuid()}.lock",
    os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
    0o600,
)


def free_port(*, also: tuple[int, ...] = ()) -> int:
    """Return a free port that is this process's from now on; so are those so much higher."""
    for port in random.SystemRandom().sample(range(FIRST, END), _TRIES):
        # Above END are ports that only their own port for clients leads to: one claim is enough.
        if all(_is_free(port + more) for more in (0, *also)) and _claim(port):
            return port
    raise AssertionError("no free port")


def _is_free(port: int) -> bool:
    # Neither SO_REUSEADDR nor SO_REUSEPORT, with which a port may be had that another listens on.
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    if port in _MINE:
        return False
    try:
        fcntl.lockf(_CLAIMS, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    if not _is_free(port):  # taken between the two
        fcntl.lockf(_CLAIMS, fcntl.LOCK_UN, 1, port)
        return False
    _MINE.add(port)
    return True
