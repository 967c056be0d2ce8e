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
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.storage import snapshot_file


class PolicySync:
    """Publishes or loads policy updates."""

    # The mutable state is, by route, the last version written and the last file loaded.

    def __init__(
        self, folder: Path, routes: Mapping[str, RoutePlan], events: EventLog, index: int = 0
    ) -> None:
        """`index`: this worker's own index."""
        self._folder = folder
        self._index = index
        self._routes = routes
        self._events = events
        self._published: dict[str, int] = {}
        self._loaded: dict[str, int] = {}

    def publish(self) -> None:
        """Write what was learned since the last update (about a millisecond per route)."""
        self._read_traffic()
        for name, route in self._routes.items():
            if self._published.get(name) != route.policy.version:
                parts = {"policy": route.policy.save(), "features": route.features.save()}
                snapshot_file.write(self._path(name), snapshot_file.pack(parts, 0.0), durable=False)
                self._published[name] = route.policy.version

    def load_updates(self) -> None:
        """Load the updates since the last one; a damaged update is reported and skipped."""
        for name, route in self._routes.items():
            try:
                written = self._path(name).stat().st_mtime_ns
                if self._loaded.get(name) == written:
                    continue
                self._loaded[name] = written
                parts, _ = snapshot_file.unpack(self._path(name).read_bytes())
                route.policy.adopt(parts["policy"])
                route.features.load(parts["features"])
            except FileNotFoundError:
                continue
            except (ValueError, KeyError) as exc:
                self._events.add(
                    "policy_update_damaged",
                    name,
                    f"the update of the learning worker was not loaded: {exc}",
                )

        self._write_traffic()

    def _write_traffic(self) -> None:
        """Write the tenants of this worker's recent requests."""
        shares = {name: route.traffic.save() for name, route in self._routes.items()}
        path = self._folder / f"{self._index}.traffic"
        snapshot_file.write(path, orjson.dumps(shares), durable=False)

    def _read_traffic(self) -> None:
        """Read the tenants of the other workers' recent requests."""
        reports = []
        for path in self._folder.glob("*.traffic"):
            try:
                document = orjson.loads(path.read_bytes())
                reports.append(
                    {name: traffic_shares.read(counts) for name, counts in document.items()}
                )
            except (ValueError, TypeError, AttributeError) as exc:
                self._events.add(
                    "policy_update_damaged",
                    path.name,
                    f"the traffic of another worker was not read: {exc}",
                )
        for name, route in self._routes.items():
            route.traffic.others = [one[name] for one in reports if name in one]

    def _path(self, route: str) -> Path:
        return self._folder / f"{route}.policy"
