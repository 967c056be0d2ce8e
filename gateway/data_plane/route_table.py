"""The route table: maps a path to its route and to the operation requested.

Paths are compared as the bytes that the client sent, without decoding or normalizing, so that no
other spelling of a path is accepted. Exact paths match first, then patterns from the most to the
least specific: `{model}` matches one segment, a trailing `/*` everything below.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tollway.gateway.data_plane.model_list import listed_at
from tollway.gateway.routing.route import Route

INFER, METADATA, READY, MODELS = "infer", "metadata", "ready", "models"


@dataclass(frozen=True, slots=True)
class Match:
    """A route, the operation (`what`), and the model name in the path (empty if it has none).

    For MODELS, `route` is any route of the API whose models are requested, and `model` is the path
    of the list. If routes share a path, `shared` maps model names to them ("" for all others), and
    `route` is any of them.
    """

    route: Route
    what: str
    model: str = ""
    shared: Mapping[str, Route] | None = None

    def of_model(self, name: str) -> Route | None:
        """Return the route that a model name selects on a shared path; None if there is none."""
        shared = self.shared or {}
        return shared.get(name) or shared.get("")


class RouteTable:
    """Finds the route of a path."""

    def __init__(self, routes: Iterable[tuple[str, Route]]) -> None:
        """Take (path, route) pairs."""
        self._exact: dict[bytes, Match] = {}
        self._versions: list[tuple[re.Pattern[bytes], Match]] = []
        patterns: list[tuple[tuple[int, bool], re.Pattern[bytes], Match]] = []
        self._listed: dict[bytes, list[Route]] = {}
        pairs = list(routes)
        paths: dict[str, list[Route]] = {}
        for path, route in pairs:
            paths.setdefault(path, []).append(route)
        for path, sharing in paths.items():
            match = Match(sharing[0], INFER, shared=_by_model(sharing))
            if "{" in path or path.endswith("/*"):
                patterns.append((_weight(path), _compile(path), match))
            else:
                self._add(path, match)
        self._protocols = frozenset(route.protocol.name for _, route in pairs)
        self._patterns = [
            (pattern, match)
            for _, pattern, match in sorted(patterns, key=lambda p: p[0], reverse=True)
        ]
        for path, route in pairs:
            self._list(path, route)

    def _list(self, path: str, route: Route) -> None:
        """List a route of the OpenAI API as a model of that API."""
        at = listed_at(path) if route.protocol.name == "openai" else None
        if at is None:
            return
        if at.encode() not in self._listed:
            match = Match(route, MODELS, at)
            self._exact.setdefault(at.encode(), match)
            self._versions.append((re.compile(re.escape(at.encode()) + b"/.+"), match))
        self._listed.setdefault(at.encode(), []).append(route)

    def listed(self, at: str) -> list[Route]:
        """Return the routes that are listed as models at a path."""
        return self._listed[at.encode()]

    def _add(self, path: str, match: Match) -> None:
        route = match.route
        base, infer, _ = path.rpartition("/infer")
        if route.protocol.name != "oip" or not infer:
            self._exact[path.encode()] = match
            return
        model = base.rpartition("/")[2]
        self._exact[path.encode()] = Match(route, INFER, model)
        self._exact.setdefault(base.encode(), Match(route, METADATA, model))
        self._exact.setdefault(f"{base}/ready".encode(), Match(route, READY, model))
        # The protocol also allows a version in the path of a model.
        for tail, what in (("/infer", INFER), ("", METADATA), ("/ready", READY)):
            pattern = re.compile(re.escape(base.encode()) + rb"/versions/[^/]+" + tail.encode())
            self._versions.append((pattern, Match(route, what, model)))

    def speaks(self, protocol: str) -> bool:
        """Return whether any route uses a protocol."""
        return protocol in self._protocols

    def match(self, path: bytes) -> Match | None:
        """Return the match of a raw path; None if no route has it."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        for pattern, match in self._versions:
            if pattern.fullmatch(path):
                return match
        for pattern, match in self._patterns:
            if pattern.fullmatch(path):
                return match
        return None


def _by_model(sharing: list[Route]) -> dict[str, Route] | None:
    """Return the routes of one path by model name; None if no route declares models."""
    if not any(route.models for route in sharing):
        return None
    return {name: route for route in sharing for name in route.models or ("",)}


def _weight(path: str) -> tuple[int, bool]:
    """Return how specific a pattern is: its literal length, then whether its end is fixed."""
    return len(re.sub(r"\{[^}]*\}|\*", "", path)), not path.endswith("/*")


def _compile(path: str) -> re.Pattern[bytes]:
    """Return a pattern's regular expression."""
    below = path.endswith("/*")
    pieces = re.split(r"\{[^}]*\}", path[:-1] if below else path)
    pattern = "[^/]+".join(map(re.escape, pieces)) + ("[^?]*" if below else "")
    return re.compile(pattern.encode())
