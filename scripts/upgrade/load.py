"""Model servers that count what they bill, and clients that send requests and labels."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from tests.support.http_client import http_client
from upgrade.trees import PATH, Gateway

CHEAP_NANO, DEAR_NANO = 100_000, 1_000_000
DECLINED = 402
PATIENCE_S = 30.0


class Models:
    """Two models on one address, `small` and `large`, that count their answers."""

    # The mutable state is the count, under its lock.

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.url = ""

    @property
    def billed_nano(self) -> int:
        """What the models bill."""
        with self.lock:
            return self.answers["small"] * CHEAP_NANO + self.answers["large"] * DEAR_NANO

    @contextmanager
    def serving(self) -> Iterator["Models"]:
        """Serve on a free port of loopback."""
        models = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                name = self.path.split("/")[3]
                label = 2 if name == "large" else random.choice((1, 2))
                body = (
                    f'{{"model_name":"{name}","outputs":[{{"name":"label","shape":[1],'
                    f'"datatype":"INT64","data":[{label}]}}]}}'
                ).encode()
                with models.lock:
                    models.answers[name] += 1
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: object) -> None:
                """Say nothing of gateways that were killed."""

        server = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@dataclass(slots=True)
class Seen:
    """What clients saw. `moved`: sent again to another gateway, or later to the same."""

    answered: int = 0
    declined: int = 0
    moved: int = 0
    lost: int = 0
    unknown: int = 0
    others: Counter[int] = field(default_factory=Counter)


class Clients:
    """Clients of some gateways, which another task may replace while they send."""

    # The mutable state is the list of gateways, what was seen, and whether it is over.

    def __init__(self, gateways: Sequence[Gateway], count: int) -> None:
        self.gateways = [*gateways]
        self.seen = Seen()
        self._count = count
        self._over = asyncio.Event()

    async def for_s(self, seconds: float) -> Seen:
        """Send for some seconds; return what was seen."""
        tasks = self.started()
        await asyncio.sleep(seconds)
        return await self.stop(tasks)

    def started(self) -> list[asyncio.Task[None]]:
        """Start to send."""
        return [asyncio.create_task(self._client()) for _ in range(self._count)]

    async def stop(self, tasks: list[asyncio.Task[None]]) -> Seen:
        """Stop once each request has its answer."""
        self._over.set()
        await asyncio.gather(*tasks)
        return self.seen

    async def _client(self) -> None:
        async with http_client(timeout=20) as http:
            while not self._over.is_set():
                await self._ask(http)

    async def _ask(self, http: httpx.AsyncClient) -> None:
        """Send a request until it is answered, at most PATIENCE_S, and its label."""
        seen, loop = self.seen, asyncio.get_running_loop()
        end_s = loop.time() + PATIENCE_S
        while loop.time() < end_s:
            gateway = random.choice(self.gateways)
            try:
                reply = await http.post(gateway.url + PATH, json=request())
            except httpx.TransportError:
                seen.moved += 1
                await asyncio.sleep(0.02)
                continue
            if reply.status_code == 503:
                seen.moved += 1
                await asyncio.sleep(0.02)
                continue
            if reply.status_code == DECLINED:
                seen.declined += 1
                await asyncio.sleep(0.02)
                return
            if reply.status_code != 200:
                seen.others[reply.status_code] += 1
                return
            seen.answered += 1
            await self._label(http, gateway, reply.headers["x-tollway-decision"])
            return
        seen.lost += 1

    async def _label(self, http: httpx.AsyncClient, gateway: Gateway, decision: str) -> None:
        told = {"decision": decision, "label": 2}
        try:
            reply = await http.post(f"{gateway.url}/_tollway/feedback", json=told)
        except httpx.TransportError:
            return
        self.seen.unknown += reply.json().get("result") == "unknown"


def request() -> dict[str, object]:
    """Return a request with a random feature."""
    value = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [random.random()]}
    return {"inputs": [value]}
