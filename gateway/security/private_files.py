"""Files and folders that only the gateway's user can read, whatever the umask.

They hold features of requests, answers, amounts and keys. Those that exist keep their modes.
"""

import os
from pathlib import Path

FILE_MODE = 0o600
_FOLDER_MODE = 0o700


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents; does nothing if it exists. Raises OSError."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(_FOLDER_MODE, exist_ok=True)


def make_file(path: Path) -> None:
    """Create an empty file, and its folder; does nothing if it exists. Raises OSError."""
    make_folder(path.parent)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))


def opener(path: str, flags: int) -> int:
    """Open a file for `open(opener=opener)`; a new one has FILE_MODE."""
    return os.open(path, flags, FILE_MODE)
