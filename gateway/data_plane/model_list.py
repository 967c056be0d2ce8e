"""The list of models, as OpenAI's clients ask for it: the routes that a key may call, by name.

A client that lists models to offer a choice sends the name back as `model`. Here a route is what it
can choose, by the names that its `models` are, or by its own; each backend has another name for it.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.routing.route import Route

_ENDS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/*")


def listed_at(path: str) -> str | None:
    """Return where the models of a route at `path` are listed; None where it is no API's path."""
    for end in _ENDS:
        if path.endswith(end):
            return path[: -len(end)] + "/models"
    return None


def one(routes: Iterable[Route], name: str) -> bytes:
    """Return what is told of one model; Refused (404) where none of `routes` has that name."""
    if name not in _names(routes):
        raise unknown(name)
    return orjson.dumps(_model(name))


def every(routes: Iterable[Route]) -> bytes:
    """Return the list of `routes` as models."""
    data = [_model(name) for name in _names(routes)]
    return orjson.dumps({"object": "list", "data": data})


def unknown(name: str) -> HttpProblem:
    """404: no route has a model of that name, or not for this key."""
    return HttpProblem(404, "Model not found", f"the model {name!r} does not exist or is not yours")


def _names(routes: Iterable[Route]) -> list[str]:
    """Return the models' names, once each: some serve chats and embeddings by one name."""
    return list(dict.fromkeys(name for route in routes for name in route.models or (route.name,)))


def _model(name: str) -> dict[str, Any]:
    # 0: nobody can say when a mix of models was made, and clients want a number.
    return {"id": name, "object": "model", "created": 0, "owned_by": "tollway"}
