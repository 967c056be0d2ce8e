"""The list of models, as OpenAI's clients ask for it: the routes that a key may call, by name.

A client that lists models to offer a choice sends the name back as `model`. Here the path decides
the route and each backend has its own name of the model, so what is listed are routes.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from gateway.errors import Refused
from gateway.route import Route

_ENDS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/*")


def listed_at(path: str) -> str | None:
    """Return where the models of a route at `path` are listed; None where it is no API's path."""
    for end in _ENDS:
        if path.endswith(end):
            return path[: -len(end)] + "/models"
    return None


def one(routes: Iterable[Route], name: str) -> bytes:
    """Return what is told of one model; Refused (404) where none of `routes` has that name."""
    for route in routes:
        if route.name == name:
            return orjson.dumps(_model(route))
    raise Refused(404, "Model not found", f"the model {name!r} does not exist or is not yours")


def every(routes: Iterable[Route]) -> bytes:
    """Return the list of `routes` as models."""
    return orjson.dumps({"object": "list", "data": [_model(route) for route in routes]})


def _model(route: Route) -> dict[str, Any]:
    # 0: nobody can say when a mix of models was made, and clients want a number.
    return {"id": route.name, "object": "model", "created": 0, "owned_by": "tollway"}
