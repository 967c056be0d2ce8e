"""Clients and backends that hang up, at every point of a call, fill no log and stop no other."""

import asyncio
import json
import signal
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.attacks.http import Address, ask
from tests.support.certificates import Authority
from tests.support.configs import budget
from tests.support.harness import run
from tests.support.process import Process, free_port
from tests.support.until import until

pytestmark = pytest.mark.integration

CHAT = json.dumps(
    {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
).encode()
STREAM = CHAT[:-1] + b',"stream":true}'
FINE = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{}}'
HEAD = b"HTTP/1.1 200 OK\r\n"
EVENTS = HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
WAYS = [  # what a backend sends before it hangs up
    b"",
    b"HTTP",
    b"HTTP/1.1 200 OK\r\ncontent-le",
    HEAD + b"content-length: 1000\r\n\r\n",
    HEAD + b"content-length: 1000\r\n\r\n{",
    HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
    EVENTS,
    EVENTS + b"%x\r\n%b\r\n" % (len(EVENT), EVENT),
    b"\x00\x01 nonsense\r\n\r\n",
]


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that its peer gets a reset, as when a process is killed."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Backend:
    """A backend that hangs up in the way it is told, or else answers."""

    def __init__(self) -> None:
        self.way: bytes | None = None
        self.resets = False
        self.calls = self.hung_up = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                self.calls += 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if self.resets:
                reset(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays open."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        body = await reader.readexactly(length)
        if self.way is not None:
            self.hung_up += 1
            writer.write(self.way)
            await writer.drain()
            return False
        if b'"stream"' in body:
            writer.write(EVENTS)
            for _ in range(100):
                writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.write(b"0\r\n\r\n")
        else:
            await asyncio.sleep(0.05)
            writer.write(HEAD + b"content-length: %d\r\n\r\n%b" % (len(FINE), FINE))
        return True


@asynccontextmanager
async def backend() -> AsyncIterator[tuple[Backend, str]]:
    one = Backend()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    async with server:
        yield one, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


CONFIG = """
[server]
listen = "127.0.0.1:{port}"
allow_anonymous = true
{server}
[ledger]
url = "memory://"
[[backends]]
name = "llm"
kind = "gpu"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}
[[routes]]
name = "m"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["llm"]
policy = "cheapest"
"""


def request(target: str, body: bytes = b"", more: str = "") -> bytes:
    head = f"{'POST' if body else 'GET'} {target} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n{more}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


CHAT_AT, FEEDBACK = "/v1/chat/completions", "/_tollway/feedback"
CLIENTS = {  # name: (what a client sends, whether it reads something before it goes)
    "nothing": (b"", False),
    "half a request line": (b"POST /v1/ch", False),
    "half a head": (request(CHAT_AT, CHAT)[:60], False),
    "half a body": (request(CHAT_AT, CHAT)[:-20], False),
    "a whole request": (request(CHAT_AT, CHAT), False),
    "an idempotent request": (request(CHAT_AT, CHAT, "Idempotency-Key: a\r\n"), False),
    "many requests": (request(CHAT_AT, CHAT) * 20, False),
    "a stream": (request(CHAT_AT, STREAM), True),
    "a stream, unread": (request(CHAT_AT, STREAM), False),
    "half a feedback": (request(FEEDBACK, b"[" + b" " * 5000)[:-3000], False),
    "a feedback": (request(FEEDBACK, b'{"decision":"1.2.abcd","quality":1}'), False),
    "a budget change": (request("/_tollway/budgets/cap", b'{"action":"reset"')[:-5], False),
    "the dashboard's events": (request("/_tollway/live"), True),
    "metrics": (request("/metrics"), False),
    "a bad request": (b"\x16\x03\x01\x00\xff" * 50, False),
    "an upgrade": (request("/metrics", more="Upgrade: websocket\r\n"), False),
    "a body that waits": (request(CHAT_AT, CHAT, "Expect: 100-continue\r\n")[:-20], True),
}


async def hang_up(address: Address, sent: bytes, *, reads: bool, resets: bool) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent.replace(b"PORT", str(address[1]).encode()))
    await writer.drain()
    if reads:
        await asyncio.wait_for(reader.read(10), 20)
    else:
        await asyncio.sleep(0.02)
    if resets:
        reset(writer)
    writer.close()


def complaints(log: Path) -> list[str]:
    """Return the lines above debug, without those that say when a backend rests or is back."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    others = [line for line in log.read_text().splitlines() if not line.startswith("{")]
    said = [f"{line['level']} {line['logger']}: {line['message']}" for line in lines]
    events = ("warning tollway.gateway.observability.events: breaker",)
    events += ("warning tollway.gateway.cli.serve: [[backends]]",)  # of the configuration
    assert [line for line in others if "Traceback" in line] == []
    return [line for line in said if not line.startswith(("debug", "info", *events))]


def test_hanging_up_is_no_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with backend() as (llm, url):
            port = free_port()
            more = budget("cap", "5", more='window = "lifetime"') + '[log]\nformat = "json"\n'
            toml = CONFIG.format(port=port, url=url, server="") + more
            (tmp_path / "tollway.toml").write_text(toml)
            process, address = Process(tmp_path / "tollway.toml"), ("127.0.0.1", port)
            try:
                await process.ready(f"http://127.0.0.1:{port}")
                for resets in (False, True):
                    for sent, reads in CLIENTS.values():
                        for _ in range(3):
                            await hang_up(address, sent, reads=reads, resets=resets)
                for llm.resets in (False, True):
                    for way in WAYS:
                        llm.way = way
                        for body in (CHAT, STREAM):
                            await ask(address, CHAT_AT, body, {"Content-Type": "application/json"})
                llm.way = None
                assert (await ask(address, "/livez")).status == 200
                assert min(llm.calls, llm.hung_up) > 10
                process.end(signal.SIGTERM)
            finally:
                process.stop()

    run(main)
    assert complaints(tmp_path / "log") == []


def test_hanging_up_in_a_handshake_is_no_error(tmp_path: Path) -> None:
    """Of clients with the gateway, and of the gateway with a backend that does not speak TLS."""

    async def main() -> None:
        async with backend() as (llm, url):
            port = free_port()
            cert, key = Authority(tmp_path / "ca").sign("gateway", year=2099)
            tls = f'tls = {{ cert = "{cert}", key = "{key}" }}'
            text = CONFIG.format(port=port, url=url.replace("http:", "https:"), server=tls)
            (tmp_path / "tollway.toml").write_text(text + '[log]\nformat = "json"\n')
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            process, address = Process(tmp_path / "tollway.toml"), ("127.0.0.1", port)
            try:
                await until(lambda: "is listening" in (tmp_path / "log").read_text())
                llm.way = b"HTTP/1.1 400 Bad Request\r\n\r\n"
                hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40)
                for resets in (False, True):
                    for sent in (
                        b"",
                        hello,
                        hello[:3],
                        request("/livez"),
                        b"\x15\x03\x01\x00\x02\x02\x28",
                    ):
                        await hang_up(address, sent, reads=False, resets=resets)
                    for sent in (b"", request(CHAT_AT, CHAT)[:50], request(CHAT_AT, CHAT)):
                        _, writer = await asyncio.open_connection(*address, ssl=context)
                        writer.write(sent.replace(b"PORT", str(port).encode()))
                        await writer.drain()
                        if resets:
                            reset(writer)
                        writer.close()
                reader, writer = await asyncio.open_connection(*address, ssl=context)
                body = request(CHAT_AT, CHAT, "Connection: close\r\n")
                writer.write(body.replace(b"PORT", str(port).encode()))
                assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"HTTP/1.1 50")
                writer.close()
                process.end(signal.SIGTERM)
            finally:
                process.stop()

    run(main)
    assert complaints(tmp_path / "log") == []
