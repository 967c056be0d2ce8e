"""Minimal servers that the gateway is compared with: they do less than any gateway must.

    python benchmarks/floor.py uvicorn --port 8000
    python benchmarks/floor.py front   --port 8000
    python benchmarks/floor.py relay   --port 8000 --upstream http://127.0.0.1:9000

`uvicorn` and `front` return a fixed reply, the first from plain uvicorn, the second from our
listener; `relay` passes each request to the upstream over our transport and returns its reply.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from tollway.backends.http.factory import open_transport
from tollway.backends.ports import Transport
from tollway.backends.types import Call
from tollway.gateway.listener import server as front

REPLY = b'{"outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[7]}]}'
FIELDS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(REPLY))]
HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"host"))

App = Callable[[Any, Any, Any], Awaitable[None]]


async def body_of(receive: Any) -> bytes:
    """Return a request's whole body."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def lifespan(receive: Any, send: Any) -> None:
    """Acknowledge startup and shutdown."""
    for _ in range(2):
        message = await receive()
        await send({"type": message["type"] + ".complete"})


async def fixed(scope: Any, receive: Any, send: Any) -> None:
    """Return the same reply to every request."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await body_of(receive)
    await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
    await send({"type": "http.response.body", "body": REPLY})


def relay(upstream: str) -> App:
    """Return an application that passes every request to `upstream`."""
    transport: Transport = open_transport(upstream, connections=1000)
    loop: asyncio.AbstractEventLoop | None = None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal loop
        if scope["type"] == "lifespan":
            loop = asyncio.get_running_loop()
            return await lifespan(receive, send)
        assert loop is not None
        body = await body_of(receive)
        headers = [pair for pair in scope["headers"] if pair[0] not in HOP_BY_HOP]
        call = Call(scope["method"].encode(), scope["raw_path"], headers, body)
        reply = await transport.send(call, loop.time() + 30)
        headers = [pair for pair in reply.headers if pair[0] not in HOP_BY_HOP]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        async for chunk in reply.stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["uvicorn", "front", "relay"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream")
    args = parser.parse_args()
    if args.kind == "uvicorn":
        quiet = {"access_log": False, "log_level": "warning"}
        bare = {"date_header": False, "server_header": False}
        uvicorn.run(fixed, port=args.port, http="httptools", loop="uvloop", **quiet, **bare)
    else:
        app = relay(args.upstream) if args.kind == "relay" else fixed
        front.run(app, listen=f"127.0.0.1:{args.port}")


if __name__ == "__main__":
    main()
