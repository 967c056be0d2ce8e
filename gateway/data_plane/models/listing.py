"""The model list: the routes that a key may call, by name.

A client that lists models sends the chosen name back as `model`. In the gateway that choice is a
route, listed under the names in its `models` or else under its own name; with `models = "*"` it is
a model of a server, listed as that server does. Each backend has its own name for the model.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from tollway.gateway.data_plane.models.shapes import ModelShape, Query
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.routing.plan import EVERY, RoutePlan

_ENDS = (
    *("/chat/completions", "/completions", "/embeddings", "/responses", "/moderations", "/rerank"),
    *("/audio/speech", "/audio/transcriptions", "/audio/translations"),
    *("/images/generations", "/images/edits", "/images/variations", "/*"),
)
_VERSION = re.compile(r"/(?:v\d\w*|\{[^}]*\})$")

Listed = Mapping[str, Mapping[str, Any]]
"""What backends say of their models, by name."""


def listed_at(protocol: str, path: str) -> str | None:
    """Return the path of the model list for a route at `path`; None if its API has none there."""
    if protocol == "openai":
        ends: tuple[str, ...] = _ENDS
    elif protocol == "anthropic":
        ends = ("/messages", "/*")
    elif protocol == "gemini":
        ends = ("/models/*", "/*")
    else:
        return None
    for end in ends:
        if path.endswith(end):
            base = path[: -len(end)]
            # Their clients write the version themselves, below whatever address they are given.
            has_version = end != "/*" or protocol == "openai" or _VERSION.search(base)
            return base + ("/models" if has_version else "/{version}/models")
    return None


def one(routes: Iterable[RoutePlan], listed: Listed, shape: ModelShape, name: str) -> bytes:
    """Return the description of one model; HttpProblem 404 if none of `routes` has the name."""
    names = _names(routes, listed)
    if name not in names:
        raise unknown(name)
    return orjson.dumps(shape.entry(name, names[name]))


def every(routes: Iterable[RoutePlan], listed: Listed, shape: ModelShape, query: Query) -> bytes:
    """Return the page that is asked for of the list of `routes` and their backends' models."""
    entries = [shape.entry(name, told) for name, told in _names(routes, listed).items()]
    return orjson.dumps(shape.page(entries, query))


def unknown(name: str) -> HttpProblem:
    """Return a 404: no route that this key may call has a model of that name."""
    return HttpProblem(
        404, "Model not found", f"the model {name!r} does not exist, or this key may not call it"
    )


def _names(routes: Iterable[RoutePlan], listed: Listed) -> dict[str, Mapping[str, Any] | None]:
    """Return the distinct models by name, with what a server says of each; None: nothing.

    One name may serve both chat and embeddings. A name that the configuration gives comes before a
    server's model of that name.
    """
    ours = [
        name for route in routes if route.models != EVERY for name in route.models or (route.name,)
    ]
    return {**listed, **dict.fromkeys(ours)}
