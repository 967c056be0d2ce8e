"""Policy sync: distributes the state of the one learning worker to the others.

Every second, if something was learned, the learner writes each route's policy and feature scales
next to the workers' sockets, with a checksum, and renames the file into place. The other workers
load it. An update is loaded as a whole or refused. State that depends on a worker's own traffic
(its pacing, the usage of calls) is not shared. The other workers write the tenants of their recent
requests, so that the learner knows each tenant's share of all traffic.
"""

from collections.abc import Mapping
from pathlib import Path

import orjson

from tollway.gateway.features import traffic_shares
from tollway.gateway.observability.events import EventLog
from tollway.gateway.routing.route import Route
from tollway.gateway.storage import snapshot_file


class PolicySync:
    """Publishes or loads policy updates."""

    # The mutable state is, by route, the version last given and the file last taken.

    def __init__(
        self, folder: Path, routes: Mapping[str, Route], events: EventLog, index: int = 0
    ) -> None:
        """`index`: this worker's own index."""
        self._folder = folder
        self._index = index
        self._routes = routes
        self._events = events
        self._given: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    def give(self) -> None:
        """Write the changes since the last update (about a millisecond per route)."""
        self._hear()
        for name, route in self._routes.items():
            if self._given.get(name) != route.policy.version:
                parts = {"policy": route.policy.save(), "features": route.features.save()}
                snapshot_file.write(self._path(name), snapshot_file.pack(parts, 0.0), durable=False)
                self._given[name] = route.policy.version

    def take(self) -> None:
        """Load the updates since the last one; a damaged update is reported and skipped."""
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
        """Write the tenants of this worker's recent requests."""
        told = {name: route.traffic.save() for name, route in self._routes.items()}
        path = self._folder / f"{self._index}.traffic"
        snapshot_file.write(path, orjson.dumps(told), durable=False)

    def _hear(self) -> None:
        """Read the tenants of the other workers' recent requests."""
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
