"""A server that gives scripted replies, byte for byte, and keeps the requests that it got."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return orjson.loads(self.body) if self.body else None


@dataclass
class Said:
    """A reply: its parts are sent one by one; after the first, `gate` is waited for.

    `cut`: the connection breaks off after the last part.
    """

    parts: Sequence[bytes]
    status: int = 200
    kind: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()
    gate: asyncio.Event | None = None
    cut: bool = False


def document(body: Any, status: int = 200, **more: Any) -> Said:
    return Said([orjson.dumps(body)], status, **more)


def events(*parts: bytes, **more: Any) -> Said:
    return Said(parts, kind="text/event-stream", **more)


@dataclass
class Scripted:
    """Answers with what `answer` returns for a request."""

    answer: Callable[[Asked], Said]
    asked: list[Asked] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        target = scope["raw_path"].decode()
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        asked = Asked(scope["method"], target, headers, body)
        self.asked.append(asked)
        said = self.answer(asked)
        fields = [(b"content-type", said.kind.encode())]
        fields += [(name.encode(), value.encode()) for name, value in said.headers]
        await send({"type": "http.response.start", "status": said.status, "headers": fields})
        leaving = asyncio.ensure_future(receive())
        try:
            for number, part in enumerate(said.parts):
                if number == 1 and said.gate is not None:
                    going = asyncio.ensure_future(said.gate.wait())
                    await asyncio.wait({going, leaving}, return_when=asyncio.FIRST_COMPLETED)
                    going.cancel()
                if leaving.done():
                    self.left.set()
                    return
                await send({"type": "http.response.body", "body": part, "more_body": True})
            if said.cut:
                raise ConnectionAbortedError("as scripted")
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
