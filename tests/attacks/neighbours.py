"""A gateway process with two tenants and a slow model server, and what an attacker sends to it."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.process import Process, free_port
from tollway.gateway.security import keys

LASTS_S = 180  # as long as a test may take
CHAT = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
REPLY = b'{"label":1}'
TENANTS = ("honest", "mallory")
KEYS = {name: keys.new_key() for name in TENANTS}

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
{server}

[ledger]
url = "sqlite:///{folder}/ledger.db"

[journal]
dir = "{folder}/journal"

{tenants}

[[backends]]
name = "one"
kind = "gpu"
protocol = "plain"
url = "http://127.0.0.1:{upstream}"
price = {{ per_request_usd = 0.0001 }}
{backend}

[[routes]]
name = "x"
path = "/x"
protocol = "plain"
backends = ["one"]
context = {{ numeric = ["data"], text = ["text"] }}

[[backends]]
name = "llm"
kind = "gpu"
protocol = "openai"
url = "http://127.0.0.1:{upstream}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["llm"]

[[budgets]]
name = "all"
limit_usd = 1000000
"""


@dataclass
class Model:
    """A model server that answers each request after a time, however many there are.

    A request for a completion is answered with the stream `events`.
    """

    takes_s: float = 0.0
    events: bytes = b""
    port: int = 0
    answered: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        ends = ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError
        with contextlib.suppress(*ends):
            async with asyncio.timeout(LASTS_S):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                    await reader.readexactly(int(length or 0))
                    await asyncio.sleep(self.takes_s)
                    self.answered += 1
                    kind, body = b"application/json", REPLY
                    if b"/completions " in head:
                        kind, body = b"text/event-stream", self.events
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
                        b"content-length: %d\r\n\r\n" % (kind, len(body))
                    )
                    writer.write(body)
                    await writer.drain()
        self.tasks.discard(task)
        await closed(writer)

    async def close(self) -> None:
        """End all connections."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@dataclass
class Stand:
    """The gateway, its model server, and the Unix socket that tells the longest pause."""

    port: int
    clock: Path
    model: Model

    async def pause_s(self) -> float:
        """Return the longest pause of the gateway's event loop since the last call."""
        reader, writer = await asyncio.open_unix_connection(str(self.clock))
        told = await reader.read()
        await closed(writer)
        return float(told)

    def request(self, tenant: str, body: bytes, path: str = "/x") -> bytes:
        """Return a tenant's request."""
        return (
            f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS[tenant]}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def read_stream(self, tenant: str) -> bytes:
        """Ask for a completion, on a connection of its own; return the stream."""
        reader, writer = await self.connect()
        try:
            request = self.request(tenant, CHAT, "/v1/chat/completions")
            writer.write(request.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
            async with asyncio.timeout(60):
                return await reader.read()
        finally:
            await closed(writer)

    async def ask(self, tenant: str, body: bytes) -> tuple[int, float]:
        """Send a request on a connection of its own; return the status and the seconds it took."""
        began_s = time.monotonic()
        reader, writer = await self.connect()
        try:
            writer.write(self.request(tenant, body))
            return await status_of(reader), time.monotonic() - began_s
        finally:
            await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever its other end has done."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def status_of(reader: asyncio.StreamReader) -> int:
    """Read a reply; return its status, 0 if there is none."""
    try:
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0
    return int(head[9:12])


@contextlib.asynccontextmanager
async def standing(
    folder: Path, *, server: str = "", backend: str = "", takes_s: float = 0.0
) -> AsyncIterator[Stand]:
    """Run the gateway as a process, and its model server in this one."""
    model = Model(takes_s)
    listening = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    model.port = listening.sockets[0].getsockname()[1]
    port, config = free_port(), folder / "tollway.toml"
    tenants = "".join(
        f'[[tenants]]\nname = "{name}"\nkey_hash = "{keys.hash_key(KEYS[name])}"\n'
        for name in TENANTS
    )
    config.write_text(
        CONFIG.format(
            port=port,
            folder=folder,
            upstream=model.port,
            tenants=tenants,
            server=server,
            backend=backend,
        )
    )
    with short_path() as clock:
        program = str(Path(__file__).with_name("ticking_gateway.py")), str(clock)
        process = Process(config, program=program)
        try:
            await process.ready(f"http://127.0.0.1:{port}")
            yield Stand(port, clock, model)
        finally:
            process.stop()
            listening.close()
            await model.close()


@contextlib.contextmanager
def short_path() -> Iterator[Path]:
    """Yield a path for a Unix socket, whose length is limited."""
    with tempfile.TemporaryDirectory(prefix="tick") as folder:
        yield Path(folder) / "clock"


async def hold(stand: Stand, tenant: str, body: bytes, count: int) -> list[asyncio.StreamWriter]:
    """Send as many requests at once as asked for, and read nothing."""
    writers = []
    for _ in range(count):
        _, writer = await stand.connect()
        writer.write(stand.request(tenant, body))
        writers.append(writer)
    for writer in writers:
        await writer.drain()
    return writers


def percentile(values: list[float], share: float) -> float:
    """Return a percentile."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
