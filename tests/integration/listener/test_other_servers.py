"""The ASGI application answers alike under `tollway serve`, uvicorn, Hypercorn and Granian."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.support.harness import Upstream, serving
from tests.support.parrot import Parrot
from tests.support.process import free_port
from tests.support.until import until
from tollway.gateway.security.keys import hash_key

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
OURS = "tollway"
# The module, the configuration of Hypercorn and the commands are those of the page.
SECTION = (ROOT / "docs" / "http.md").read_text().partition("## Under another server")[2]
FILES = dict(
    zip(
        ("app.py", "hypercorn.toml"),
        re.findall(r"```(?:python|toml)\n(.*?)```", SECTION, re.DOTALL),
        strict=True,
    )
)
SHELL = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)[0]
SERVERS = {OURS: "tollway serve tollway.toml --listen 127.0.0.1:8080"} | {
    command.split()[0]: command for command in SHELL.splitlines()
}
CONFIG = """
[server]
admin_key_hash = "{admin}"
max_body_bytes = 20000
[ledger]
url = "memory://"
[journal]
dir = "{folder}/journal"
[state]
dir = "{folder}/state"

[[tenants]]
name = "rich"
key_hash = "{rich}"
[[tenants]]
name = "poor"
key_hash = "{poor}"

[[backends]]
name = "server"
kind = "cpu"
protocol = "oip"
url = "{upstream}"
price = {{ per_request_usd = 0.1 }}
[[backends]]
name = "chat"
kind = "gpu"
protocol = "openai"
url = "{parrot}/v1"
model = "parrot"
price = {{ per_request_usd = 0.01 }}

[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["server"]
[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["chat"]

[[budgets]]
name = "all"
limit_usd = 1000
window = "lifetime"
[[budgets]]
name = "poor"
scope = {{ tenant = "poor" }}
limit_usd = 0.05
window = "lifetime"
"""
KEYS = {name: f"tw_{name}" for name in ("admin", "rich", "poor")}

INFER, CHAT = "/v2/models/m/infer", "/v1/chat/completions"
TENSOR = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
).encode()
HELLO = json.dumps(
    {"model": "any", "messages": [{"role": "user", "content": "a few words"}]}
).encode()
STREAM = json.dumps({**json.loads(HELLO), "stream": True}).encode()


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and the status of its reply."""

    status: int
    method: str
    path: str
    key: str = ""
    body: bytes = b""
    chunked: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Its header fields."""
        key = {"authorization": f"Bearer {KEYS[self.key]}"} if self.key else {}
        return {**key, "content-type": "application/json"} if self.body else key


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it was received; field names in lower case."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Return the values of a field."""
        return [value for known, value in self.fields if known == name]

    def comparable(self) -> tuple[list[tuple[str, bytes]], bytes]:
        """Return its fields and body without what differs between any two replies."""
        own = {*CONNECTION, "content-length"} if b"held_nano" in self.body else CONNECTION
        kept = sorted(pair for pair in self.fields if pair[0] not in own)
        fields = [(name, VARYING.sub(b"*", value.encode())) for name, value in kept]
        return fields, VARYING.sub(b"*", self.body)


REQUESTS = {
    "a call": Request(200, "POST", INFER, "rich", TENSOR),
    "a call in chunks": Request(200, "POST", INFER, "rich", TENSOR, chunked=True),
    "a chat": Request(200, "POST", CHAT, "rich", HELLO),
    "a stream": Request(200, "POST", CHAT, "rich", STREAM),
    "no key": Request(401, "POST", INFER, "", TENSOR),
    "no money": Request(402, "POST", INFER, "poor", TENSOR),
    "not JSON": Request(400, "POST", INFER, "rich", b"{"),
    "no route": Request(404, "POST", "/nowhere", "rich", TENSOR),
    "OPTIONS": Request(204, "OPTIONS", INFER),
    "HEAD": Request(200, "HEAD", "/readyz"),
    "health": Request(200, "GET", "/readyz"),
    "health of OIP": Request(200, "GET", "/v2/health/ready"),
    "models": Request(200, "GET", "/v1/models", "rich"),
    "budgets": Request(200, "GET", "/_tollway/budgets", "admin"),
    "budgets without a key": Request(401, "GET", "/_tollway/budgets"),
    "feedback on nothing": Request(
        404,
        "POST",
        "/_tollway/feedback",
        "admin",
        b'{"decision": "homw9klky030.0.24a0", "correct": true}',
    ),
    "metrics": Request(200, "GET", "/metrics"),
    "too large a body": Request(413, "POST", INFER, "rich", b" " * 30_000),
}
# Fields of the connection.
CONNECTION = {"connection", "date", "keep-alive", "server", "transfer-encoding"}
# What no two replies share: ids of decisions, the gateway's name in Via, times.
VARYING = re.compile(
    rb"[0-9a-z]{12}\.\w+\.[0-9a-f]{4}|tollway-[0-9a-f]{8}|dur=[0-9.]+"
    # What a budget has lent follows the rate of spending, and so the time.
    rb'|(?<="held_nano":)\d+|(?<="free_nano":)\d+|(?<="held_usd":)[0-9.]+|(?<="free_usd":)[0-9.]+'
)
# The metrics count seconds. Our listener refuses a large body itself, in other words.
ITS_OWN = {"metrics", "too large a body"}


def ask(connection: http.client.HTTPConnection, request: Request) -> Reply:
    """Send a request and return its reply."""
    connection.request(
        request.method,
        request.path,
        body=iter([request.body[:9], request.body[9:]]) if request.chunked else request.body,
        headers=request.headers,
        encode_chunked=request.chunked,
    )
    with connection.getresponse() as response:
        fields = [(name.lower(), value) for name, value in response.getheaders()]
        return Reply(response.status, fields, response.read())


def ask_all(port: int) -> dict[str, Reply]:
    """Send every request, on a connection that is kept as long as the server keeps it."""
    replies = {}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as one:
        for name, request in REQUESTS.items():
            try:
                replies[name] = ask(one, request)
            except ConnectionError:  # Hypercorn closes if a body comes after its early reply
                one.close()
                replies[name] = ask(one, request)
    return replies


def start(server: str, port: int, folder: Path) -> "subprocess.Popen[bytes]":
    """Start a server in a folder; its output goes to the file `log` there."""
    command = [sys.executable, "-m", *SERVERS[server].replace("8080", str(port)).split()]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,  # Granian serves in a process of its own
        )


@contextlib.asynccontextmanager
async def running(server: str, folder: Path, upstream: str, parrot: str) -> AsyncIterator[int]:
    """Run a gateway under a server as a process; yield its port. It ends by SIGTERM."""
    hashes = {name: hash_key(key) for name, key in KEYS.items()}
    text = CONFIG.format(folder=folder, upstream=upstream, parrot=parrot, **hashes)
    for name, content in {**FILES, "tollway.toml": text}.items():
        (folder / name).write_text(content)
    port = free_port()
    process = start(server, port, folder)

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with contextlib.closing(connection):
                return ask(connection, REQUESTS["health"]).status == 200
        except OSError:
            return False

    try:
        await until(partial(asyncio.to_thread, is_ready), within_s=90, every_s=0.05)
        yield port
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def leave(port: int, parrot: Parrot, body: bytes, after: bytes) -> None:
    """Send a chat, and disconnect once `after` has been received; nothing if that is empty."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (CHAT.encode(), KEYS["rich"].encode(), len(body), body)
    )
    calls = parrot.calls
    await until(lambda: parrot.calls > calls)
    if after:
        await reader.readuntil(after)
    writer.close()


async def held_usd(port: int) -> float:
    """Return what the budget of all calls holds for calls in progress."""

    def read() -> float:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            listed = json.loads(ask(connection, REQUESTS["budgets"]).body)["budgets"]
        return float(next(one["held_usd"] for one in listed if one["name"] == "all"))

    return await asyncio.to_thread(read)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a gateway under one server.

    stream_left: whether the backend of a stream noticed that the client had left. held_usd: what
    the budget still held in the end. saved: the files of the state after the server has ended.
    """

    replies: dict[str, Reply]
    stream_left: bool
    held_usd: float
    saved: set[str]


async def observe(server: str, folder: Path) -> Seen:
    """Run a gateway under a server, and ask it everything."""
    parrot = Parrot()
    async with serving(Upstream()) as upstream, serving(parrot) as chat:
        async with running(server, folder, upstream, chat) as port:
            replies = await asyncio.to_thread(ask_all, port)
            parrot.hold = asyncio.Event()
            await leave(port, parrot, STREAM, after=b"data: ")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(parrot.left.wait(), 30)
            await leave(port, parrot, HELLO, after=b"")
            parrot.hold.set()

            async def is_settled() -> bool:
                return not await held_usd(port)

            with contextlib.suppress(AssertionError):
                await until(is_settled, every_s=0.1)
            left_usd = await held_usd(port)
        saved = {path.name for path in (folder / "state").rglob("*.snapshot")}
    return Seen(replies, parrot.left.is_set(), left_usd, saved)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """What was seen under each server."""
    folders = {server: tmp_path_factory.mktemp(server) for server in SERVERS}
    return {server: asyncio.run(observe(server, folder)) for server, folder in folders.items()}


def test_the_page_names_the_servers_that_are_tried_here() -> None:
    assert SERVERS.keys() == {OURS, "uvicorn", "hypercorn", "granian"}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("server", SERVERS)
def test_a_request_gets_the_same_reply_under_every_server(
    server: str, name: str, seen: dict[str, Seen]
) -> None:
    reply, ours = seen[server].replies[name], seen[OURS].replies[name]
    assert reply.status == ours.status == REQUESTS[name].status
    assert reply.values("content-type") == ours.values("content-type")
    assert len(reply.values("date")) == 1
    if name not in ITS_OWN:
        assert reply.comparable() == ours.comparable()


@pytest.mark.parametrize("server", SERVERS)
def test_a_stream_that_its_client_leaves_is_stopped(server: str, seen: dict[str, Seen]) -> None:
    assert seen[server].stream_left


@pytest.mark.parametrize("server", SERVERS)
def test_no_money_stays_held_for_clients_that_left(server: str, seen: dict[str, Seen]) -> None:
    assert seen[server].held_usd == 0


@pytest.mark.parametrize("server", SERVERS)
def test_sigterm_closes_the_gateway_and_saves_what_it_learned(
    server: str, seen: dict[str, Seen]
) -> None:
    assert seen[server].saved >= {"chat.snapshot", "m.snapshot"}
