"""Free paths: what a server answers without work, such as its health, by method and path.

A path is compared decoded and normalised: percent-encoding, empty segments and a slash at the end
make no difference. What is not plainly one of the paths is a call, and is paid for.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

READS = frozenset((b"GET", b"HEAD"))
_WRITTEN = re.compile(r"(?:([A-Z]+) )?(/[!-~]*)")
_UNUSUAL = re.compile(rb"[\x00-\x1f\x7f\\;]")


class FreePaths:
    """The free paths of a route."""

    def __init__(self, written: Iterable[str]) -> None:
        """Take `/health`, `/docs/*`, `POST /tokenize`; raises ValueError for anything else."""
        self._exact: set[tuple[bytes, bytes]] = set()
        self._below: list[tuple[bytes, bytes]] = []
        for entry in written:
            method, path = parse(entry)
            for one in READS if not method else (method.encode(),):
                if path.endswith("/*"):
                    self._below.append((one, path[:-1].encode()))
                self._exact.add((one, path.removesuffix("/*").encode() or b"/"))

    def has(self, method: bytes, target: bytes) -> bool:
        """Return whether a request is free (0.5 us)."""
        path = target.partition(b"?")[0]
        if (method, path) in self._exact:
            return True
        if b"%" in path:
            path = unquote_to_bytes(path)
        if b"%" in path or _UNUSUAL.search(path):
            return False
        segments = [one for one in path.split(b"/") if one]
        if b"." in segments or b".." in segments:
            return False
        path = b"/" + b"/".join(segments)
        if (method, path) in self._exact:
            return True
        return any(method == one and path.startswith(below) for one, below in self._below)


def parse(entry: str) -> tuple[str, str]:
    """Return the method (empty for GET and HEAD) and path of an entry; ValueError if invalid."""
    match = _WRITTEN.fullmatch(entry)
    if match is None or "?" in entry or "#" in entry or "*" in match[2].removesuffix("/*"):
        raise ValueError(f"{entry!r} is not a path; write it like /health, /docs/* or POST /decode")
    return match[1] or "", match[2]


def below(base: str, entry: str) -> str:
    """Return an entry with its path below a base path."""
    method, path = parse(entry)
    return f"{method} {base}{path}" if method else base + path
