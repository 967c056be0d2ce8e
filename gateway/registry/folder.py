"""A folder as a registry: `DIR/MODEL/VERSION/`, as Triton lays out models.

    digits/1/metrics.json      what was measured of version 1: {"accuracy": 0.91}; may be missing
    digits/registry.json       {"aliases": {"champion": "1"}, "tags": {"1": {...}}}

A folder that is named like a version is one, as soon as it is there: rename a complete folder into
place. `registry.json` is replaced as a whole, under a lock, so an operator's script and several
gateways may write it.
"""

import asyncio
import fcntl
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tollway.gateway.registry.port import (
    VERSIONS_MAX,
    ModelVersion,
    RegisteredModel,
    RegistryUnavailable,
)
from tollway.gateway.security.private_files import FILE_MODE
from tollway.gateway.settings.registry.template import VERSION
from tollway.gateway.storage import snapshot_file

NAME = "registry.json"
_BYTES_MAX = 4 << 20
T = TypeVar("T")


class FolderRegistry:
    """The models in a folder. Files are read and written in threads."""

    # The mutable state is the folder's.

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def model(self, name: str) -> RegisteredModel:
        """Return a model with its newest versions."""
        return await self._in_thread(lambda: self._model(self._folder / name))

    async def metrics(self, name: str, version: ModelVersion) -> Mapping[str, float]:
        """Return the numbers of a version's `metrics.json`."""
        path = self._folder / name / version.version / "metrics.json"
        document = await self._in_thread(lambda: _read(path))
        return {
            key: float(value)
            for key, value in document.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }

    async def set_alias(self, name: str, alias: str, version: str | None) -> None:
        """Give an alias to a version, or to none."""

        def change(document: dict[str, Any]) -> None:
            aliases = _table(document, "aliases")
            if version is None:
                aliases.pop(alias, None)
            else:
                aliases[alias] = version

        await self._in_thread(lambda: _changed(self._folder / name, change))

    async def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Write tags of a version."""

        def change(document: dict[str, Any]) -> None:
            _table(_table(document, "tags"), version).update(tags)

        await self._in_thread(lambda: _changed(self._folder / name, change))

    async def aclose(self) -> None:
        """Do nothing: no file stays open."""

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (OSError, ValueError) as exc:
            raise RegistryUnavailable(str(exc)) from exc

    def _model(self, folder: Path) -> RegisteredModel:
        if not folder.is_dir():
            return RegisteredModel()
        document = _read(folder / NAME)
        tags, aliases = _table(document, "tags"), _table(document, "aliases")
        found = [
            ModelVersion(
                entry.name,
                created_s=entry.stat().st_mtime,
                tags={str(key): str(text) for key, text in _table(tags, entry.name).items()},
            )
            for entry in os.scandir(folder)
            if entry.is_dir() and VERSION.fullmatch(entry.name)
        ]
        found.sort(key=lambda one: (_number(one.version), one.created_s, one.version))
        return RegisteredModel(
            {str(alias): str(version) for alias, version in aliases.items()},
            tuple(found[-VERSIONS_MAX:]),
        )


def _number(version: str) -> int:
    """Return the number that a version is; those that are none stand before all numbers."""
    return int(version) if version.isascii() and version.isdigit() else -1


def _changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a model's document under a lock."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held for one small write
        document = _read(folder / NAME)
        change(document)
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        snapshot_file.write(folder / NAME, text + b"\n")
    finally:
        os.close(lock)


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object, an empty one if there is no file. ValueError if it is none."""
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    if len(content) > _BYTES_MAX:
        raise ValueError(f"{path} has more than {_BYTES_MAX} bytes")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        raise ValueError(f"{path} is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise ValueError(f"{path} is not a JSON object")
    return document


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the table under a key of a document, which then has one."""
    inner = document.get(key)
    if not isinstance(inner, dict):
        inner = document[key] = {}
    return inner
