"""Lessons: what the one learning worker has learned, given to the others.

Every second, where something was learned, the learner writes each route's policy and the scales of
its features beside the workers' sockets, with a checksum, and renames it into place; the others
take it up. A lesson is whole or refused. What a worker learns by its own traffic alone (its pace,
what calls use) stays its own.
"""

from collections.abc import Mapping
from pathlib import Path

from gateway import snapshots
from gateway.events import Events
from gateway.route import Route


class Lessons:
    """Gives lessons, or takes them."""

    # The mutable state is, by route, the version last given and the file last taken.

    def __init__(self, folder: Path, routes: Mapping[str, Route], events: Events) -> None:
        self._folder = folder
        self._routes = routes
        self._events = events
        self._given: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    def give(self) -> None:
        """Write what is new since it was last given (about a millisecond a route)."""
        for name, route in self._routes.items():
            if self._given.get(name) != route.policy.version:
                parts = {"policy": route.policy.save(), "features": route.features.save()}
                snapshots.write(self._path(name), snapshots.pack(parts, 0.0), durable=False)
                self._given[name] = route.policy.version

    def take(self) -> None:
        """Load what is new since it was last taken; a damaged lesson is told of and left."""
        for name, route in self._routes.items():
            try:
                written = self._path(name).stat().st_mtime_ns
                if self._taken.get(name) == written:
                    continue
                self._taken[name] = written
                parts, _ = snapshots.unpack(self._path(name).read_bytes())
                route.policy.adopt(parts["policy"])
                route.features.load(parts["features"])
            except FileNotFoundError:
                continue
            except (ValueError, KeyError) as exc:
                self._events.add("lesson_damaged", name, f"not taken from the learner: {exc}")

    def _path(self, route: str) -> Path:
        return self._folder / f"{route}.lesson"
