"""Snapshots of what routes have learned: taken whole, or not at all."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson

from tollway.gateway.learning.state_store import StateStore
from tollway.gateway.storage import snapshot_file

PARTS = ("policy", "estimator", "features", "demand", "influence", "traffic", "trust", "signalled")
BYTES = PARTS[:3]
REJECTED = "from another version"


class Part:
    """A part of what a route has learned: a text, of which one is rejected once it is taken."""

    def __init__(self, of_bytes: bool) -> None:
        self.text = "blank"
        self._of_bytes = of_bytes

    def save(self) -> Any:
        return self.text.encode() if self._of_bytes else self.text

    def load(self, saved: Any) -> None:
        self.text = saved.decode() if self._of_bytes else saved
        if self.text == REJECTED:
            raise ValueError("a model with other settings")


class Store:
    """A store over one route, `m`, with parts that can be looked at."""

    def __init__(self, folder: Path) -> None:
        self.parts = {name: Part(name in BYTES) for name in PARTS}
        self.events: list[str] = []
        route = SimpleNamespace(auditor=None, **self.parts)
        sink = SimpleNamespace(add=lambda kind, about, text: self.events.append(kind))
        self.store = StateStore(
            {"m": cast(Any, route)},
            {"m": cast(Any, self.parts["demand"])},
            folder,
            events=cast(Any, sink),
            wall=lambda: 1000.0,
        )

    def texts(self) -> set[str]:
        return {part.text for part in self.parts.values()}


def saved(**texts: str) -> bytes:
    """Return a snapshot whose parts are `learned`, but for some."""
    parts = {"auditor": b"null"}
    for name in PARTS:
        text = texts.get(name, "learned")
        parts[name] = text.encode() if name in BYTES else orjson.dumps(text)
    return snapshot_file.pack(parts, 900.0)


def test_a_snapshot_is_taken_whole(tmp_path: Path) -> None:
    one = Store(tmp_path)
    snapshot_file.write(one.store.path("m"), saved())
    assert one.store.restore() == {"m": 900.0}
    assert one.texts() == {"learned"}


def test_of_a_snapshot_with_a_part_that_is_rejected_nothing_is_taken(tmp_path: Path) -> None:
    for part in PARTS:
        one = Store(tmp_path)
        path = one.store.path("m")
        snapshot_file.write(path, saved(**{part: REJECTED}))
        assert one.store.restore() == {}
        assert one.texts() == {"blank"}, part
        assert one.events == ["snapshot_damaged"]
        assert not path.exists() and path.with_suffix(".damaged").exists()
