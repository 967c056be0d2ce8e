"""Model servers inside a test that see every row, and calls to them."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from tollway.backends.errors import BackendError
from tollway.backends.protocols.oip.body import HEAD_LENGTH, split
from tollway.backends.protocols.registry import protocol
from tollway.backends.types import Call, Headers, HttpReply

OIP = protocol("oip")
TARGET = b"/v2/models/m/infer"


class Body:
    """A body of one piece."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        pass


def call(body: Any, *, tenant: str = "", wire: Any = OIP, **fields: bytes) -> Call:
    """Return a parsed call; `body` is a document or bytes, `fields` are header fields."""
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = [(b"content-type", b"application/json")]
    headers += [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
    target = TARGET if wire is OIP else b"/invocations"
    made = Call(b"POST", target, headers, text, tenant=tenant, caller=tenant)
    made.payload = wire.parse(made)
    return made


def tensor(rows: list[list[float]], **more: Any) -> dict[str, Any]:
    """Return a request with one tensor of numbers."""
    flat = [number for row in rows for number in row]
    shape = [len(rows), len(rows[0])]
    made = {"name": "x", "datatype": "FP64", "shape": shape, "data": flat}
    return {"inputs": [made], **more}


def echoed(request: Call) -> HttpReply:
    """Return a reply that has the inputs as its outputs."""
    text, rest = split(request.headers, request.body)
    document = orjson.loads(text)
    told = {"model_name": "m", "model_version": "1", "outputs": document["inputs"]}
    if "id" in document:
        told["id"] = document["id"]
    headers: Headers = [(b"content-type", b"application/json")]
    head = orjson.dumps(told)
    if rest is not None:
        headers.append((HEAD_LENGTH, b"%d" % len(head)))
    body = head + (rest or b"")
    return HttpReply(200, headers, Body(body))


def rows_of(request: Call) -> list[list[float]]:
    """Return the rows of the first JSON tensor of a request."""
    given = orjson.loads(request.body)["inputs"][0]
    width = given["shape"][1]
    data = given["data"]
    return [data[at : at + width] for at in range(0, len(data), width)]


def texts(values: list[bytes]) -> bytes:
    """Return raw elements of BYTES."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


@dataclass
class Model:
    """A transport to a model that takes `fixed_s` a call and `row_s` a row, in the loop's time."""

    answer: Callable[[Call], HttpReply] = echoed
    fixed_s: float = 0.010
    row_s: float = 0.001
    calls: list[Call] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    tells: bool = False
    cancelled: int = 0
    closed: bool = False
    busy: int = 0
    most: int = 0

    async def send(self, request: Call, deadline_s: float) -> HttpReply:
        self.calls.append(request)
        rows = orjson.loads(split(request.headers, request.body)[0])["inputs"][0]["shape"][0]
        self.sizes.append(rows)
        took_s = self.fixed_s + self.row_s * rows
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(took_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.busy -= 1
        reply = self.answer(request)
        if self.tells:
            reply.headers.append((b"x-device-seconds", repr(took_s).encode()))
        return reply

    async def aclose(self) -> None:
        self.closed = True


def failing(why: BackendError) -> Callable[[Call], HttpReply]:
    """Return what fails each call."""

    def fail(request: Call) -> HttpReply:
        raise why

    return fail


def refusing(status: int, body: bytes = b"{}") -> Callable[[Call], HttpReply]:
    """Return what refuses each call."""
    return lambda request: HttpReply(status, [(b"retry-after", b"7")], Body(body))
