"""The models that backends list themselves, for routes that serve all models of their servers.

The lists are asked for off the path, once a minute, and kept in memory: a server that does not
answer keeps its last list, and none delays a client. Only the first list waits a little, so that a
gateway that has just started has one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tollway.backends.documents import load_reply
from tollway.backends.errors import BackendError
from tollway.backends.types import Call, Headers
from tollway.gateway.routing.plan import EVERY, RoutePlan, Target

log = logging.getLogger(__name__)

REFRESH_S = 60.0
ASK_S = 10.0  # time for one list
FIRST_S = 2.0  # that the first request for a list waits for it
LIST_BYTES_MAX = 8 << 20  # the longest known, of OpenRouter, has a megabyte
MODELS_MAX = 10_000  # of one server
NAME_CHARS_MAX = 256
AT_ONCE = 8
ASKED: Mapping[str, tuple[bytes, Headers]] = {
    "openai": (b"/v1/models", []),
    "anthropic": (b"/v1/models?limit=1000", [(b"anthropic-version", b"2023-06-01")]),
    "gemini": (b"/v1beta/models?pageSize=1000", []),
}
"""The path of a server's list, by protocol, and the fields without which it is refused."""

Models = Mapping[str, Mapping[str, Any]]
"""What a server says of its models, by their ids."""


class ServerModels:
    """The lists of the backends of some routes."""

    # The mutable state is the last list of each backend, and the refresh in progress.

    def __init__(
        self, routes: Callable[[], Iterable[RoutePlan]], clock: Callable[[], float]
    ) -> None:
        """`routes` returns the present routes."""
        self._routes = routes
        self._clock = clock
        self._lists: dict[str, Models] = {}
        self._refresh: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Ask all backends for their lists; one that does not answer keeps its last one."""
        asked = {
            one.name: one
            for route in self._routes()
            if route.models == EVERY
            for one in route.unpriced.values()
            if not one.is_local
        }
        self._lists = {name: self._lists[name] for name in asked if name in self._lists}
        targets = list(asked.values())
        for at in range(0, len(targets), AT_ONCE):
            await asyncio.gather(*[self._ask(one) for one in targets[at : at + AT_ONCE]])

    async def of(self, routes: Iterable[RoutePlan]) -> dict[str, Mapping[str, Any]]:
        """Return the models of the routes that serve all models; of two of a name the first."""
        names = [name for route in routes if route.models == EVERY for name in route.backends]
        if any(name not in self._lists for name in names):
            await self._first()
        found: dict[str, Mapping[str, Any]] = {}
        for name in names:
            for model, entry in self._lists.get(name, {}).items():
                found.setdefault(model, entry)
        return found

    def holders(self, route: RoutePlan, model: str) -> frozenset[str]:
        """Return the backends of a route that serve a model; empty if no list has it.

        A backend that has its own name for the model serves it by whatever name.
        """
        listed = {name for name in route.backends if model in self._lists.get(name, ())}
        if not listed:
            return frozenset()
        renames = {name for name, one in route.backends.items() if one.model is not None}
        return frozenset(listed | renames)

    async def _first(self) -> None:
        """Wait a little for lists that are not there yet."""
        if self._refresh is None:
            self._refresh = asyncio.create_task(self.refresh())
        if not self._refresh.done():
            await asyncio.wait([self._refresh], timeout=FIRST_S)

    async def _ask(self, backend: Target) -> None:
        try:
            path, headers = ASKED.get(backend.protocol.name, ASKED["openai"])
            call = backend.address(Call(b"GET", path, list(headers)))
            reply = await backend.transport.send(call, self._clock() + ASK_S)
            body = await reply.read(LIST_BYTES_MAX)
            listed = _models(load_reply(body)) if reply.status == 200 else None
        except (BackendError, ValueError) as exc:
            log.info("backend %s does not list its models: %s", backend.name, exc)
            return
        if listed is not None:
            self._lists[backend.name] = listed


def _models(document: Any) -> Models | None:
    """Return the models of a list; None if it is none. Gemini's have a `name` in place of an id."""
    data = document
    if isinstance(document, dict):
        data = document.get("data", document.get("models"))
    if not isinstance(data, list):
        return None
    named = [
        (one.get("id") or str(one.get("name", "")).removeprefix("models/"), one)
        for one in data[:MODELS_MAX]
        if isinstance(one, dict)
    ]
    return {
        name: one
        for name, one in named
        if isinstance(name, str) and 0 < len(name) <= NAME_CHARS_MAX
    }
