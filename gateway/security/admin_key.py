"""The admin key that a gateway makes for itself if none is configured.

It is kept in a file that only the gateway's user can read, so that restarts, all workers and the
commands on this machine use the same one. To replace it, delete the file and restart.
"""

import os
import tempfile
from pathlib import Path

from tollway.gateway.security.keys import is_key, new_key
from tollway.gateway.security.private_files import make_folder

NAME = "admin.key"
"""The file's name in the state directory."""

_OTHERS = 0o077


def make(folder: Path) -> bool:
    """Make the key unless the folder has one; return whether one was made. Raises OSError."""
    path = folder / NAME
    if path.exists():
        return False
    make_folder(folder)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f"{NAME}.") as file:
        file.write(f"{new_key()}\n")  # the file has mode 600
        file.flush()
        try:
            os.link(file.name, path)  # whole or not at all, if several gateways start at once
        except FileExistsError:
            return False
    return True


def stored(folder: Path, name: str = NAME) -> str | None:
    """Return the key in the folder's file; None if there is none.

    Raises ValueError, with the remedy, if other users can read it or if it is not a key.
    """
    path = folder / name
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(256).strip()
    except FileNotFoundError:
        return None
    if mode & _OTHERS:
        raise ValueError(f"other users can read {path}; delete it, and a new key is made at start")
    if not is_key(text):
        raise ValueError(f"{path} is not an admin key; delete it, and a new one is made at start")
    return text
