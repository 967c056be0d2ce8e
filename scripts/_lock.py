"""What uv.lock pins, for `sbom` and `vulnerabilities`."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "uv.lock"
PROJECT = "tollway"


@dataclass(frozen=True)
class Package:
    """A locked version. `files` are (URL, SHA-256) pairs.

    scope: `required` if Tollway always needs it, `optional` if one of its extras does, `excluded`
    if only its development does.
    """

    name: str
    version: str
    needs: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    scope: str


def normalized(name: str) -> str:
    """Return a package's name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def newest_upload(lock: Path = LOCK) -> str:
    """Return when the newest locked file was uploaded: a time that depends on the lock alone."""
    times = [file["upload-time"] for entry in _entries(lock) for file in _files(entry)]
    return max(times)


def packages(lock: Path = LOCK) -> list[Package]:
    """Return the locked packages, without the project itself; ValueError if one has no hash."""
    entries = {(entry["name"], entry.get("version", "")): entry for entry in _entries(lock)}
    [root] = [entry for (name, _), entry in entries.items() if name == PROJECT]
    required = _reached(entries, root.get("dependencies", []))
    extras = [one for many in root.get("optional-dependencies", {}).values() for one in many]
    optional = _reached(entries, extras)
    found = []
    for key, entry in sorted(entries.items()):
        if entry is root:
            continue
        files = tuple((file["url"], file.get("hash", "")) for file in _files(entry))
        if not files or not all(digest.startswith("sha256:") for _, digest in files):
            raise ValueError(f"{key[0]} {key[1]}: a file without a SHA-256 in {lock.name}")
        scope = "required" if key in required else "optional" if key in optional else "excluded"
        needs = tuple(sorted(_needs(entries, entry.get("dependencies", []))))
        pairs = tuple((url, digest.removeprefix("sha256:")) for url, digest in files)
        found.append(Package(*key, needs, pairs, scope))
    return found


def direct(scope: str, lock: Path = LOCK) -> list[tuple[str, str]]:
    """Return what the project itself needs: `required`, or with its extras `optional`."""
    entries = {(entry["name"], entry.get("version", "")): entry for entry in _entries(lock)}
    [root] = [entry for (name, _), entry in entries.items() if name == PROJECT]
    asked = list(root.get("dependencies", []))
    if scope == "optional":
        asked += [one for many in root.get("optional-dependencies", {}).values() for one in many]
    return sorted(set(_needs(entries, asked)))


Entries = dict[tuple[str, str], dict[str, Any]]


def _entries(lock: Path) -> list[dict[str, Any]]:
    return list(tomllib.loads(lock.read_text())["package"])


def _files(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [*([entry["sdist"]] if "sdist" in entry else []), *entry.get("wheels", [])]


def _needs(entries: Entries, asked: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the locked versions that dependencies may be, whatever their markers."""
    for one in asked:
        for name, version in entries:
            if name == one["name"] and one.get("version", version) == version:
                yield name, version


def _reached(entries: Entries, asked: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return all that dependencies need, through others and with the extras asked of each."""
    reached: set[tuple[tuple[str, str], str]] = set()
    waiting = list(asked)
    while waiting:
        one = waiting.pop()
        for key in _needs(entries, [one]):
            for extra in ("", *one.get("extra", [])):
                if (key, extra) not in reached:
                    reached.add((key, extra))
                    entry = entries[key]
                    waiting += entry.get("dependencies", [])
                    waiting += entry.get("optional-dependencies", {}).get(extra, [])
    return {key for key, _ in reached}
