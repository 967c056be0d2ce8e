"""The route table: maps a path to its route and to the operation requested.

Paths are compared as the bytes that the client sent, without decoding or normalizing, so that no
other spelling of a path is accepted, but for the protocols in `spellings.py`. Exact paths match
first, then patterns from the most to the least specific: `{model}` matches one segment, a trailing
`/*` everything below. What a pattern matches must pass `open_paths.py` too. A protocol may add
other `paths` to that of a route, such as those of a model's metadata; what they ask for is told by
its `operation`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tollway.backends.ports import INFER
from tollway.gateway.data_plane import open_paths
from tollway.gateway.data_plane.models.listing import listed_at
from tollway.gateway.data_plane.spellings import (
    FORGIVING,
    LENIENT,
    spellings,
    with_usual_slashes,
)
from tollway.gateway.routing.plan import EVERY, RoutePlan

_BELOW = b"[^?]*"
MODELS = "models"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")  # the order in an Allow field


@dataclass(frozen=True, slots=True)
class Match:
    """A route, and the operation (`what`).

    For MODELS, `route` is any route whose models are listed there, and `at` is the path of the
    list. If routes share a path, `shared` maps model names to them ("" for all others), and
    `route` is any of them. `path`: the usual spelling of the path, if the client had another.
    """

    route: RoutePlan
    what: str
    at: str = ""
    shared: Mapping[str, RoutePlan] | None = None
    path: bytes = b""

    @property
    def routes(self) -> list[RoutePlan]:
        """The routes at this path, each once."""
        sharing = (self.shared or {"": self.route}).values()
        return list({route.name: route for route in sharing}.values())

    def of_model(self, name: str) -> RoutePlan | None:
        """Return the route that a model name selects on a shared path; None if there is none."""
        shared = self.shared or {}
        return shared.get(name) or shared.get("")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A path with parts that vary. `is_written`: it is a route's own, not another of its paths."""

    path: str
    regex: re.Pattern[bytes]
    match: Match
    is_written: bool = True

    @property
    def weight(self) -> tuple[int, bool, bool]:
        """How specific it is: its literal length, whether its end is fixed, whether written."""
        literal = len(re.sub(r"\{[^}]*\}|\*", "", self.path))
        return literal, not self.path.endswith("/*"), self.is_written

    def serves(self, method: str, path: bytes) -> bool:
        """Return whether a request that it matches may be passed on."""
        if self.regex.fullmatch(path) is None:
            return False
        if not open_paths.may_pass(method, path, below=self.path.endswith("/*")):
            return False
        wire = self.match.route.protocol
        return wire.passes(method, path, self.path, is_written=self.is_written)


class RouteTable:
    """Finds the route of a path."""

    def __init__(self, routes: Iterable[tuple[str, RoutePlan]]) -> None:
        """Take (path, route) pairs."""
        self._exact: dict[bytes, Match] = {}
        self._by_usual_slashes: dict[bytes, Match] = {}
        self._lists: list[tuple[re.Pattern[bytes], Match]] = []
        patterns: list[Pattern] = []
        self._listed: dict[str, list[RoutePlan]] = {}
        pairs = list(routes)
        paths: dict[str, list[RoutePlan]] = {}
        for path, route in pairs:
            paths.setdefault(path, []).append(route)
        for path, sharing in paths.items():
            match = Match(sharing[0], INFER, shared=_by_model(sharing))
            if _varies(path):
                patterns.append(Pattern(path, _compile(path), match))
            else:
                self._exact[path.encode()] = match
                if match.route.protocol.name in FORGIVING:
                    usual = with_usual_slashes(path.encode())
                    self._by_usual_slashes.setdefault(usual, replace(match, path=path.encode()))
            for other in sharing[0].protocol.paths(path):
                patterns.append(Pattern(other, _compile(other), match, is_written=False))
        self._pairs = pairs
        self._protocols = frozenset(route.protocol.name for _, route in pairs)
        self._patterns = sorted(patterns, key=lambda one: one.weight, reverse=True)
        self._is_lenient = not LENIENT.isdisjoint(self._protocols)
        for path, route in pairs:
            self._list(path, route)

    def _list(self, path: str, route: RoutePlan) -> None:
        """List a route as a model, where clients of its API look for models."""
        at = listed_at(route.protocol.name, path)
        if at is None:
            return
        if at not in self._listed:
            match, compiled = Match(route, MODELS, at), _compile(at).pattern
            if not _varies(at):
                self._exact.setdefault(at.encode(), match)
            # Gemini's names have no slash; what is below them, such as operations, is a server's.
            name = b"[^/:]+" if route.protocol.name == "gemini" else b".+"
            self._lists.append((re.compile(compiled + b"(?:/%b)?" % name), match))
        self._listed.setdefault(at, []).append(route)

    def listed(self, path: bytes) -> list[RoutePlan]:
        """Return the routes that are listed as models where a path is, or is below."""
        others = spellings(path) if self._is_lenient else []
        found = [
            match.at
            for pattern, match in self._lists
            if pattern.fullmatch(path)
            or (match.route.protocol.name in LENIENT and any(map(pattern.fullmatch, others)))
        ]
        return [route for at in found for route in self._listed[at]]

    def named(self, protocol: str) -> Iterable[tuple[str, RoutePlan]]:
        """Return (path, route) of each route of a protocol."""
        return [pair for pair in self._pairs if pair[1].protocol.name == protocol]

    def match(self, path: bytes, method: str = "GET") -> Match | None:
        """Return the match of a raw path; None if no route has it, or not for this method."""
        if path in self._exact:
            return self._exact[path]
        listing = self._listing(path)
        # A model's own path is also where Gemini's clients call it: POST /v1/models/NAME:METHOD.
        is_call = listing is not None and method not in open_paths.READS
        if listing is not None and not is_call:
            return listing
        others = spellings(path) if self._is_lenient else []
        for other in others:
            found = self._exact.get(other) or (None if is_call else self._listing(other))
            if found is not None and found.route.protocol.name in LENIENT:
                return replace(found, path=other)
        for pattern in self._patterns:
            if is_call and pattern.match.route.protocol.name == "openai":
                continue
            lenient = pattern.match.route.protocol.name in LENIENT
            for one in others if lenient else (path,):
                if pattern.serves(method, one):
                    match = _operation(pattern.match, path)
                    return match if one == path else replace(match, path=one)
        return listing or self._by_usual_slashes.get(with_usual_slashes(path))

    def methods(self, path: bytes) -> list[tuple[RoutePlan, list[str]]]:
        """Return the routes that have a path for some methods, with those methods.

        Only for a path that `match` does not know. Wildcards are left out: what is below them is
        not known to exist.
        """
        found = [
            (pattern.match, [method for method in _METHODS if pattern.serves(method, path)])
            for pattern in self._patterns
            if not pattern.path.endswith("/*")
        ]
        return [(route, methods) for match, methods in found if methods for route in match.routes]

    def _listing(self, path: bytes) -> Match | None:
        for pattern, match in self._lists:
            if pattern.fullmatch(path):
                return match
        return None


def _varies(path: str) -> bool:
    return "{" in path or path.endswith("/*")


def _operation(match: Match, path: bytes) -> Match:
    """Return a match with what a path asks for."""
    what = match.route.protocol.operation(path)
    return match if what == match.what else replace(match, what=what)


def _by_model(sharing: list[RoutePlan]) -> dict[str, RoutePlan] | None:
    """Return the routes of one path by model name; None if no route declares models."""
    if all(route.models in ((), EVERY) for route in sharing):
        return None
    return {
        "" if name == "*" else name: route for route in sharing for name in route.models or ("",)
    }


def _compile(path: str) -> re.Pattern[bytes]:
    """Return a pattern's regular expression."""
    below = path.endswith("/*")
    pieces = re.split(r"\{[^}]*\}", path[:-1] if below else path)
    pattern = "[^/]+".join(map(re.escape, pieces)).encode() + (_BELOW if below else b"")
    return re.compile(pattern)
