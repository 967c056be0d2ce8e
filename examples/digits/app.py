"""A model as an ASGI application that speaks Open Inference Protocol v2.

Inferences run one at a time in the event loop's thread, because there is a single device; further
requests wait in a queue.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from . import oip
from .model import Model

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

VERSION = "1"
BODY_BYTES_MAX = 8 << 20  # a batch of 4096 images in JSON is about 2 MB


class App:
    """Serves one model under its own name and under `aliases`.

    `delay_s` is waited before each inference, to simulate a distant or busy server; `fail_every`
    answers every n-th inference with a 500 without running it. Both are for experiments.
    """

    def __init__(
        self,
        model: Model,
        *,
        aliases: tuple[str, ...] = (),
        delay_s: float = 0.0,
        fail_every: int = 0,
    ) -> None:
        # The mutable state of a server is its counters, and whether it is about to end.
        self._model = model
        self._names = (model.name, *aliases)
        self._delay_s = delay_s
        self._fail_every = fail_every
        self.is_draining = False
        self.asked = self.calls = self.images = 0
        self.device_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = tuple(part for part in scope["path"].split("/") if part)
        if path[:2] == ("v2", "models") and path[-1] == "infer":
            await self._infer(scope, path, receive, send)
        else:
            status, document = self._describe(scope["method"], path)
            await _reply(send, status, json.dumps(document).encode())

    def _describe(self, method: str, path: tuple[str, ...]) -> tuple[int, dict[str, Any]]:
        """Answer what is not an inference."""
        if method not in ("GET", "HEAD"):
            return 405, {"error": f"{method} is not allowed on this path"}
        document: dict[str, Any] | None = None
        match path:
            case ("stats",):
                document = self.stats()
            case ("v2",):
                document = {"name": "tollway-digits", "version": VERSION}
                document["extensions"] = oip.EXTENSIONS
            case ("v2", "health", "ready") if self.is_draining:
                return 503, {"ready": False}
            case ("v2", "health", "live" | "ready" as what):
                document = {what: True}
            case ("v2", "models", name, *rest) if self._knows(name, rest):
                if rest[-1:] == ["ready"]:
                    document = {"name": name, "ready": True}
                elif rest in ([], ["versions", VERSION]):
                    document = oip.metadata(name, VERSION, self._model.platform)
        if document is None:
            return 404, {"error": f"there is nothing at /{'/'.join(path)}"}
        return 200, document

    def stats(self) -> dict[str, Any]:
        """Return what was served so far."""
        return {
            "model": self._model.name,
            "device": self._model.device,
            "calls": self.calls,
            "images": self.images,
            "device_s": self.device_s,
        }

    def _knows(self, name: str, rest: list[str]) -> bool:
        return name in self._names and (rest[:1] != ["versions"] or rest[1:2] == [VERSION])

    async def _infer(
        self, scope: Scope, path: tuple[str, ...], receive: Receive, send: Send
    ) -> None:
        name, rest = path[2], list(path[3:-1])
        if scope["method"] != "POST":
            return await _error(send, 405, "inference requests use POST")
        if not self._knows(name, rest) or rest not in ([], ["versions", VERSION]):
            return await _error(send, 404, f"there is no model {name!r} here")
        headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
        body = await _body(receive)
        if body is None:
            return await _error(send, 413, f"the request has more than {BODY_BYTES_MAX} bytes")
        try:
            request = oip.parse(body, headers.get("inference-header-content-length"))
        except oip.BadRequest as exc:
            return await _error(send, 400, str(exc))
        self.asked += 1
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if self._fail_every and self.asked % self._fail_every == 0:
            return await _error(send, 500, "failed as requested by --fail-every")
        reading = self._model.read(request.images)
        self.calls += 1
        self.images += len(request.images)
        self.device_s += reading.device_s
        reply, json_bytes = oip.render(name, VERSION, request, reading.probabilities)
        more = [(b"x-device-seconds", b"%.9f" % reading.device_s)]
        if json_bytes is not None:
            more.append((b"inference-header-content-length", b"%d" % json_bytes))
        return await _reply(send, 200, reply, more, json_only=json_bytes is None)


async def _body(receive: Receive) -> bytes | None:
    """Return the request's body; None where it is too large."""
    chunks, size = [], 0
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > BODY_BYTES_MAX:
            return None
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _error(send: Send, status: int, why: str) -> None:
    await _reply(send, status, json.dumps({"error": why}).encode())


async def _reply(
    send: Send,
    status: int,
    body: bytes,
    headers: list[tuple[bytes, bytes]] | None = None,
    *,
    json_only: bool = True,
) -> None:
    kind = b"application/json" if json_only else b"application/octet-stream"
    head = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
