"""The model list of the OpenAI API: the routes that a key may call, by name.

A client that lists models sends the chosen name back as `model`. In the gateway that choice is a
route, listed under the names in its `models` or else under its own name. Each backend has its own
name for the model.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.routing.route import Route

_ENDS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/*")


def listed_at(path: str) -> str | None:
    """Return the path of the model list for a route at `path`; None if it is not an API path."""
    for end in _ENDS:
        if path.endswith(end):
            return path[: -len(end)] + "/models"
    return None


def one(routes: Iterable[Route], name: str) -> bytes:
    """Return the description of one model; HttpProblem 404 if none of `routes` has the name."""
    if name not in _names(routes):
        raise unknown(name)
    return orjson.dumps(_model(name))


def every(routes: Iterable[Route]) -> bytes:
    """Return the list of `routes` as models."""
    data = [_model(name) for name in _names(routes)]
    return orjson.dumps({"object": "list", "data": data})


def unknown(name: str) -> HttpProblem:
    """Return a 404: no route that this key may call has a model of that name."""
    return HttpProblem(404, "Model not found", f"the model {name!r} does not exist or is not yours")


def _names(routes: Iterable[Route]) -> list[str]:
    """Return the distinct model names: one name may serve both chat and embeddings."""
    return list(dict.fromkeys(name for route in routes for name in route.models or (route.name,)))


def _model(name: str) -> dict[str, Any]:
    # 0: a mix of models has no creation date, and clients expect a number.
    return {"id": name, "object": "model", "created": 0, "owned_by": "tollway"}
