"""What reads bytes that others wrote, each as a function of bytes that may only fail as declared.

A target raises where something broke: an exception that its reader does not declare, a meaning that
depends on how the bytes were cut, a slot that does not come back. Its first byte, or first two, say
where to cut, so that a fuzzer finds that too.
"""

import asyncio
import tomllib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson

from backends.documents import load_reply, load_request
from backends.oip_body import read, split
from backends.paths import compile_path
from backends.pricing import parse_price
from backends.registry import PROTOCOLS, protocol
from backends.rule_file import compile_rules
from backends.sse import Events
from backends.types import BadRequest, Call, InvalidAnswer, Payload, Reply
from gateway import settings
from gateway.errors import Refused
from gateway.guarded import guarded
from gateway.headers import forwarded, returned
from gateway.heads import Limits
from gateway.journal import unseal
from gateway.passage import parent
from gateway.problems import ConfigError
from simulations.journal_rows import Damage
from tests.backends.test_http1_connection import Wire, cut, outcome

Target = Callable[[bytes], None]
_LOOP = asyncio.new_event_loop()
_STREAMED = Payload({"stream": True, "messages": []})


def http1_reply(data: bytes) -> None:
    """A backend's bytes: they mean the same in pieces, and give the slot back once."""
    reply, places = data[2:], list(data[:2])
    whole = _LOOP.run_until_complete(outcome([reply]))
    pieces = _LOOP.run_until_complete(outcome(cut(reply, places)))
    assert pieces[:-1] == whole[:-1]


def http1_request(data: bytes) -> None:
    """A client's bytes: whole requests reach the application, and nothing else happens."""
    sent, places = data[2:], list(data[:2])
    assert served([sent]) == served(cut(sent, places))


def served(parts: list[bytes]) -> list[tuple[str, bytes, bytes]]:
    """Return what an application sees of a client's bytes: method, raw path, body."""
    return _LOOP.run_until_complete(_served(parts))


async def _served(parts: list[bytes]) -> list[tuple[str, bytes, bytes]]:
    import uvicorn
    from uvicorn.server import ServerState

    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
        seen.append((scope["method"], scope["raw_path"], body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    limits = Limits(fields=8, head_bytes=512, target_bytes=128, body_bytes=256)
    config = uvicorn.Config(app, lifespan="off", log_config=None, proxy_headers=False)
    config.load()
    state = ServerState()
    connection = guarded(limits)(config=config, server_state=state, app_state={})
    wire = Client()
    connection.connection_made(wire)
    for part in parts:
        if not wire.closed:
            connection.data_received(part)
            await asyncio.sleep(0)
    for _ in range(8 * len(seen) + 8):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    for _ in range(8):
        await asyncio.sleep(0)
    assert not state.connections
    return seen


class Client(Wire):
    """A client's end: enough of a socket for uvicorn."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def close(self) -> None:
        self.closed = True

    def is_reading(self) -> bool:
        return not self.closed

    def can_write_eof(self) -> bool:
        return False


def events(data: bytes) -> None:
    """A stream of events: no byte is lost or changed."""
    stream, places, reader = data[2:], list(data[:2]), Events()
    read_ = [event for part in cut(stream, places) for event in reader.feed(part)]
    assert b"".join(event.raw for event in read_) + reader.close() == stream


def chat_stream(data: bytes) -> None:
    """A stream of a language model, as the client gets it and as it is priced."""
    for name in PROTOCOLS:
        follower = protocol(name).follow(_STREAMED)
        if follower is None:
            continue
        with suppress(ValueError):
            for part in cut(data[2:], list(data[:2])):
                follower.feed(part)
            follower.close()
        follower.told([])
        with suppress(InvalidAnswer):
            follower.answer()


def requests(data: bytes) -> None:
    """A request of every protocol."""
    length = b"%d" % (data[0] if data else 0)
    for name in PROTOCOLS:
        wire = protocol(name)
        for fields in ([], [(b"inference-header-content-length", length)]):
            with suppress(BadRequest):
                call = Call(b"POST", b"/v1/chat/completions", fields, data[1:])
                payload = wire.parse(call)
                wire.readdress(call, b"/base", "model", payload)
                wire.bound(call, payload)
                wire.prompt(payload)


def replies(data: bytes) -> None:
    """A reply of every protocol: an answer or none, a usage or none."""
    length = b"%d" % (data[0] if data else 0)
    body = data[1:]
    for name in PROTOCOLS:
        wire = protocol(name)
        for fields in ([], [(b"inference-header-content-length", length)]):
            reply = Reply(200, fields, None)  # type: ignore[arg-type] # its stream has been read
            with suppress(InvalidAnswer):
                wire.answer(Payload(), reply, body)
            with suppress(ValueError):
                wire.usage(Payload(), reply, body)


def documents(data: bytes) -> None:
    """JSON with and without raw tensors behind it."""
    for load in (load_request, load_reply):
        with suppress(ValueError):
            load(data)
    with suppress(ValueError):
        head, rest = split(
            [(b"inference-header-content-length", b"%d" % (data[:1] or b"0")[0])], data[1:]
        )
        document = load_reply(head)
        if rest is not None:
            read(document, "outputs", rest)


def fields(data: bytes) -> None:
    """Header fields, both ways, ours among them."""
    pairs = [line.partition(b":") for line in data.split(b"\n")]
    headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    with suppress(Refused):
        forwarded(headers, b"gw")
    returned(headers, b"gw")
    parent(headers)


def json_paths(data: bytes) -> None:
    """A path into a document, and the document."""
    path, _, document = data.partition(b"\n")
    with suppress(ValueError):
        get = compile_path(path.decode("utf-8", "replace"))
        get(orjson.loads(document))


def configuration(data: bytes) -> None:
    """A `tollway.toml`."""
    with suppress(ConfigError):
        settings.parse(data.decode("utf-8", "replace"), {})


def rules(data: bytes) -> None:
    """A file of rules, and prices."""
    try:
        table = tomllib.loads(data.decode("utf-8", "replace"))
    except ValueError:
        return
    with suppress(ValueError):
        compile_rules(table)
    with suppress(ValueError):
        parse_price(table)


def journal(data: bytes) -> None:
    """A journal's line."""
    with suppress(ValueError):
        unseal(data)
    Damage()


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(http1_reply, http1_request, events, chat_stream, requests, replies, documents),
        *(fields, json_paths, configuration, rules, journal),
    )
}
