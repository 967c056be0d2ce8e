"""Lessons: what the one learning worker has learned, given to the others.

Every second, where something was learned, the learner writes each route's policy and the scales of
its features beside the workers' sockets, with a checksum, and renames it into place; the others
take it up. A lesson is whole or refused. What a worker learns by its own traffic alone (its pace,
what calls use) stays its own. The others write whose requests they had lately, for the learner to
know each tenant's share of all.
"""

from collections.abc import Mapping
from pathlib import Path

import orjson

from tollway.gateway.features import traffic_shares
from tollway.gateway.observability.events import EventLog
from tollway.gateway.routing.route import Route
from tollway.gateway.storage import snapshot_file


class PolicySync:
    """Gives lessons, or takes them."""

    # The mutable state is, by route, the version last given and the file last taken.

    def __init__(
        self, folder: Path, routes: Mapping[str, Route], events: EventLog, index: int = 0
    ) -> None:
        """`index`: the worker's own seat."""
        self._folder = folder
        self._index = index
        self._routes = routes
        self._events = events
        self._given: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    def give(self) -> None:
        """Write what is new since it was last given (about a millisecond a route)."""
        self._hear()
        for name, route in self._routes.items():
            if self._given.get(name) != route.policy.version:
                parts = {"policy": route.policy.save(), "features": route.features.save()}
                snapshot_file.write(self._path(name), snapshot_file.pack(parts, 0.0), durable=False)
                self._given[name] = route.policy.version

    def take(self) -> None:
        """Load what is new since it was last taken; a damaged lesson is told of and left."""
        for name, route in self._routes.items():
            try:
                written = self._path(name).stat().st_mtime_ns
                if self._taken.get(name) == written:
                    continue
                self._taken[name] = written
                parts, _ = snapshot_file.unpack(self._path(name).read_bytes())
                route.policy.adopt(parts["policy"])
                route.features.load(parts["features"])
            except FileNotFoundError:
                continue
            except (ValueError, KeyError) as exc:
                self._events.add("lesson_damaged", name, f"not taken from the learner: {exc}")

        self._say()

    def _say(self) -> None:
        """Write whose requests this worker had lately."""
        told = {name: route.traffic.save() for name, route in self._routes.items()}
        path = self._folder / f"{self._index}.traffic"
        snapshot_file.write(path, orjson.dumps(told), durable=False)

    def _hear(self) -> None:
        """Read whose requests the other workers had lately."""
        told = []
        for path in self._folder.glob("*.traffic"):
            try:
                document = orjson.loads(path.read_bytes())
                told.append(
                    {name: traffic_shares.read(counts) for name, counts in document.items()}
                )
            except (ValueError, TypeError, AttributeError) as exc:
                self._events.add("lesson_damaged", path.name, f"not read: {exc}")
        for name, route in self._routes.items():
            route.traffic.others = [one[name] for one in told if name in one]

    def _path(self, route: str) -> Path:
        return self._folder / f"{route}.lesson"
