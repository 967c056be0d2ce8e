"""Saves what each route has learned to a snapshot file, and restores it at the start.

An operator may request that a route continue from another snapshot. The request is applied at the
next save or start, and becomes the newest snapshot.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson

from tollway.gateway.learning.demand import Demand
from tollway.gateway.routing.observer import EventSink
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.storage import retained_snapshots, snapshot_file

DAMAGED = (ValueError, KeyError, TypeError)

Parts = Mapping[str, bytes]


class StateStore:
    """The snapshots of the routes' learned state."""

    # The mutable state is the time of each route's last save, and what the routes have learned.

    def __init__(
        self,
        routes: Mapping[str, RoutePlan],
        demands: Mapping[str, Demand],
        folder: Path,
        *,
        events: EventSink,
        wall: Callable[[], float],
        learns: bool = True,
    ) -> None:
        """`demands`: each route's demand. `learns`: this worker learns for all workers; the others
        adopt only the state that is not tied to one worker.
        """
        self._routes = routes
        self._demands = demands
        self._folder = folder
        self._events = events
        self._wall = wall
        self._learns = learns
        self.saved_s: dict[str, float] = {}

    def oldest_saved_s(self) -> float:
        """Return the time up to which every route is saved; 0 until all are."""
        times = [self.saved_s.get(name, 0.0) for name in self._routes]
        return min(times, default=self._wall())

    def path(self, route: str) -> Path:
        """Return the path of a route's newest snapshot."""
        return retained_snapshots.newest(self._folder, route)

    def snapshot(self, name: str) -> bytes:
        """Return the data to save for a route; OSError if a regressor cannot be written."""
        route = self._routes[name]
        parts = {
            "policy": route.policy.save(),
            "estimator": route.estimator.save(),
            "features": route.features.save(),
            "auditor": orjson.dumps(route.auditor.save() if route.auditor else None),
            "demand": orjson.dumps(self._demands[name].save()),
            "influence": orjson.dumps(route.influence.save()),
            "traffic": orjson.dumps(route.traffic.save()),
            "trust": orjson.dumps(route.trust.save()),
            "signalled": orjson.dumps(route.signalled.save()),
        }
        return snapshot_file.pack(parts, self._wall())

    def restore(self) -> dict[str, float]:
        """Load the routes' snapshots and return the time of each valid one.

        A damaged snapshot is moved aside and reported; the route then relearns from its journal.
        """
        times = {}
        for name in self._routes:
            path = self.path(name)
            requested = retained_snapshots.restore(self._folder, name)
            if requested.exists() and self._learns:
                path = requested  # takes precedence over the saved state
            try:
                parts, time_s = snapshot_file.unpack(path.read_bytes())
                self._whole(name, parts, self._load)
                times[name] = time_s
                if self._learns:
                    self.saved_s[name] = time_s
                if path == requested:
                    requested.replace(self.path(name))
            except FileNotFoundError:
                continue
            except DAMAGED as exc:
                self._set_aside(name, path, exc)
        return times

    def _whole(
        self,
        name: str,
        parts: Parts,
        load: Callable[[str, Mapping[str, bytes]], None],
    ) -> None:
        """Load a snapshot, or leave the route as it is.

        A snapshot can be valid and still be rejected, by a part that another version wrote. What
        was loaded before that part must go: the route learns again from its journal, and would
        count those labels twice.
        """
        try:
            before, _ = snapshot_file.unpack(self.snapshot(name))
        except OSError:  # no regressor can be written at present, so there is no way back
            return load(name, parts)
        try:
            load(name, parts)
        except DAMAGED:
            load(name, before)
            raise

    def _load(self, name: str, parts: Parts) -> None:
        route = self._routes[name]
        load_policy = route.policy.load if self._learns else route.policy.adopt
        load_policy(parts["policy"])
        route.estimator.load(parts["estimator"])
        route.features.load(parts["features"])
        auditor = orjson.loads(parts["auditor"])
        self._demands[name].load(orjson.loads(parts.get("demand", b"{}")))
        # One worker's lease must not be handed to every worker.
        if self._learns and route.auditor is not None and auditor is not None:
            route.auditor.load(auditor)
        if self._learns and "influence" in parts:  # older snapshots have none
            route.influence.load(orjson.loads(parts["influence"]))
            route.traffic.load(orjson.loads(parts["traffic"]))
        if self._learns:
            _load_signals(route, parts)

    async def save(self) -> None:
        """Write the snapshots in a thread; report disk errors and retry at the next save."""
        for gone in self.saved_s.keys() - self._routes.keys():
            del self.saved_s[gone]
        for name in [*self._routes]:
            if name not in self._routes:  # removed by a reload since the loop began
                continue
            try:
                self._apply_requested(name)
                now_s = self._wall()  # before: what comes while it is written is not in it
                blob = self.snapshot(name)
                await asyncio.to_thread(snapshot_file.write, self.path(name), blob)
                self.saved_s[name] = now_s
                if retained_snapshots.due(self._folder, name, now_s):
                    await asyncio.to_thread(
                        retained_snapshots.keep, self._folder, name, blob, now_s
                    )
            except OSError as exc:
                self._events.add("snapshot_failed", name, f"the state was not saved: {exc}")

    def _apply_requested(self, name: str) -> None:
        """Load the snapshot that an operator requested, if there is one."""
        requested = retained_snapshots.restore(self._folder, name)
        try:
            parts, _ = snapshot_file.unpack(requested.read_bytes())
            self._whole(name, parts, self._load_learned)
            requested.replace(self.path(name))
        except FileNotFoundError:
            return
        except DAMAGED as exc:
            self._set_aside(name, requested, exc)
            return
        self._events.add(
            "policy_restored",
            name,
            "the route continues from the snapshot that an operator requested",
        )

    def _load_learned(self, name: str, parts: Parts) -> None:
        """Load what labels and signals have taught, and not what calls use."""
        route = self._routes[name]
        route.policy.load(parts["policy"])
        if "influence" in parts:
            route.influence.load(orjson.loads(parts["influence"]))
        _load_signals(route, parts)

    def _set_aside(self, name: str, path: Path, error: Exception) -> None:
        aside = snapshot_file.set_aside(path)
        self._events.add("snapshot_damaged", name, f"{error}; the file was moved to {aside}")


def _load_signals(route: RoutePlan, parts: Parts) -> None:
    """Load what is known of a route's signals; older snapshots have none of it, or a part."""
    if "trust" in parts:
        route.trust.load(orjson.loads(parts["trust"]))
    if "signalled" in parts:
        route.signalled.load(orjson.loads(parts["signalled"]))
