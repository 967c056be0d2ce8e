"""A secret outside the configuration: in an environment variable or in a file.

Error messages never contain any part of the secret. This includes the configured name or path,
where a key may have been pasted by mistake.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FILE_BYTES_MAX = 64 << 10  # tokens of identity providers have a few KB; request heads end at 32
_LOOKS_LIKE_A_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

Stamp = tuple[int, int, int]
"""Identifies a version of a file: its inode, its size and its modification time (ns)."""


@dataclass(frozen=True, slots=True)
class EnvironmentSecret:
    """The value of an environment variable."""

    variable: str

    def read(self, environ: Mapping[str, str]) -> str:
        """Return the secret; ValueError states the problem and its remedy."""
        shown = "the environment variable that it names"
        if _LOOKS_LIKE_A_VARIABLE.fullmatch(self.variable):
            shown = f"the environment variable {self.variable}"
        text = environ.get(self.variable)
        if text is None:
            raise ValueError(
                f"{shown} is not set; set it where the gateway is started, and do not write "
                "the key itself here"
            )
        try:
            return sound(text)
        except ValueError as exc:
            raise ValueError(f"{shown} {exc}; set it to the key and nothing else") from None


@dataclass(frozen=True, slots=True)
class FileSecret:
    """The content of a file."""

    path: Path

    def read(self, environ: Mapping[str, str]) -> str:
        """Return the secret; ValueError states the problem and its remedy."""
        return self.read_with_stamp()[0]

    def read_with_stamp(self) -> tuple[str, Stamp]:
        """Return the secret and the file's stamp from before the read."""
        instead = "write the path of a file that contains only the key"
        try:
            with self.path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                content = file.read(_FILE_BYTES_MAX + 1)
        except OSError as exc:
            why = exc.strerror or type(exc).__name__
            raise ValueError(f"the file cannot be read: {why}; {instead}") from None
        if len(content) > _FILE_BYTES_MAX:
            raise ValueError(f"the file is larger than {_FILE_BYTES_MAX} bytes; {instead}")
        try:
            return sound(content.decode("utf-8-sig")), stamp  # some editors write a byte order mark
        except UnicodeDecodeError:
            raise ValueError(f"the file is not UTF-8 text; {instead}") from None
        except ValueError as exc:
            raise ValueError(f"the file {exc}; {instead}") from None

    def stamp(self) -> Stamp | None:
        """Return the file's stamp (2 us); None if the file does not exist."""
        try:
            return _stamp(self.path.stat())
        except OSError:
            return None


Secret = EnvironmentSecret | FileSecret


def sound(text: str) -> str:
    """Return a secret without surrounding spaces; ValueError if it is invalid in a header field."""
    text = text.strip()
    if not text:
        raise ValueError("is empty")
    check_field_value(text)
    return text


def check_field_value(text: str) -> None:
    """Raise ValueError unless a text can be the value of a header field (RFC 9110 5.5)."""
    if any(not (c == "\t" or " " <= c <= "~" or "\xa0" <= c <= "\xff") for c in text):
        raise ValueError(
            "contains a line break or another character that is invalid in a header field"
        )


def _stamp(stat: os.stat_result) -> Stamp:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
