"""A whole gateway with its upstreams in one event loop, for tests that must see both sides."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import uvicorn

from tests.support.http_client import http_client
from tests.support.until import until
from tollway.gateway import settings as config
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows
from tollway.gateway.wiring import Gateway, build

GRACE_S = 2.0  # how long requests under way may take once a server stops


@dataclass
class Upstream:
    """A model server that gives scripted replies and counts its calls."""

    label: int | Callable[[Any], int] = 1
    confidence: float | Callable[[Any], float] = 0.9
    delay_s: float = 0.0
    status: int = 200
    body: bytes | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    calls: int = 0
    requests: list[tuple[str, bytes, dict[bytes, bytes], bytes]] = field(default_factory=list)
    url: str = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.calls += 1
        self.requests.append((scope["method"], scope["raw_path"], dict(scope["headers"]), body))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.hold is not None:
            await self.hold.wait()
        reply = self.body if self.body is not None else self.answer(body)
        headers = [(b"content-type", b"application/json"), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    def answer(self, body: bytes) -> bytes:
        document = orjson.loads(body) if body else {}
        label = self.label(document) if callable(self.label) else self.label
        p = self.confidence(document) if callable(self.confidence) else self.confidence
        rest = (1 - p) / 9
        return orjson.dumps(
            {
                "model_name": "m",
                "id": document.get("id"),
                "outputs": [
                    {"name": "label", "shape": [1], "datatype": "INT64", "data": [label]},
                    {
                        "name": "probabilities",
                        "shape": [1, 10],
                        "datatype": "FP32",
                        "data": [p if n == label else rest for n in range(10)],
                    },
                ],
            }
        )


class Server(uvicorn.Server):
    """uvicorn's server, stopped by an event; uvicorn itself polls ten times a second.

    Starting and stopping a gateway and two upstreams took half a second of each test.
    """

    def __init__(self, settings: uvicorn.Config) -> None:
        super().__init__(settings)
        self.over = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until `over` is set, or a signal has come; renew the date once a second."""
        while not await self.on_tick(0) and not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let open requests end within the grace period, and cancel the rest."""
        for listener in (*self.servers, *(sockets or [])):
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        try:
            await until(lambda: not state.connections and not state.tasks, within_s=GRACE_S)
        except AssertionError:
            for task in state.tasks:
                task.cancel()
        await self.lifespan.shutdown()


@contextlib.asynccontextmanager
async def serving(app: Any, lifespan: str = "off", **options: Any) -> AsyncIterator[str]:
    """Serve an ASGI app on a free port of loopback; yield its URL."""
    # Said to be TCP, so that asyncio turns Nagle's algorithm off: see
    # tollway.gateway.listener.server.bind.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        server = Server(uvicorn.Config(app, log_level="error", lifespan=lifespan, **options))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started or task.done())
        if task.done():
            task.result()
            raise RuntimeError("the server did not start")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.over.set()
            await task


@dataclass
class Running:
    gateway: Gateway
    url: str
    client: httpx.AsyncClient

    async def infer(
        self, value: float = 0.0, path: str = "/v2/models/m/infer", **headers: str
    ) -> Any:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return await self.client.post(self.url + path, json=inference(value), headers=named)

    async def feedback(self, document: Any, **headers: str) -> Any:
        return await self.client.post(
            f"{self.url}/_tollway/feedback", json=document, headers=headers
        )

    async def get(self, path: str) -> Any:
        return (await self.client.get(self.url + path)).json()

    def journalled(self, kind: str) -> list[dict[str, Any]]:
        """Return the rows of a kind in the journal, once it has written all that it was given."""
        self.gateway.journal.flush()
        folder = self.gateway.settings.journal.dir
        return [row for path in segments(folder) for row in rows(path) if row["kind"] == kind]


def inference(value: float = 0.0) -> dict[str, Any]:
    return {
        "id": "q",
        "inputs": [
            {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [value, 1, 0, -value]}
        ],
    }


@contextlib.asynccontextmanager
async def running(toml: str, folder: Path, seed: int = 0, **options: Any) -> AsyncIterator[Running]:
    """Serve the gateway that a configuration describes; `options` are uvicorn's."""
    settings = config.parse(toml, {}, folder=folder)
    gateway = build(settings, rng=random.Random(seed))
    async with serving(gateway.app, lifespan="on", **options) as url:
        limits = httpx.Limits(max_connections=None)
        async with http_client(timeout=30, limits=limits) as client:
            yield Running(gateway, url, client)


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]
