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
from urllib.parse import urlsplit, urlunsplit

import orjson
from google.protobuf.message import DecodeError

from tests.fuzz import onward
from tests.support.http1_replies import Wire, cut, outcome
from tollway.backends.bodies import multipart
from tollway.backends.devices.clocks import from_metrics, from_statistics
from tollway.backends.devices.exposition import Selector, parse_selector
from tollway.backends.devices.price_reading import price_reader
from tollway.backends.devices.reply_time import from_field, from_server_timing
from tollway.backends.dialect import rewritten
from tollway.backends.documents import load_reply, load_request
from tollway.backends.errors import BadRequest
from tollway.backends.http.factory import open_transport
from tollway.backends.json_path import compile_first, compile_path, numbers, texts
from tollway.backends.pricing import MAX_NANO, Price, parse_price
from tollway.backends.protocols.oip.body import read, split
from tollway.backends.protocols.registry import PROTOCOLS, protocol
from tollway.backends.protocols.sse import Events
from tollway.backends.rules.file import compile_rules
from tollway.backends.types import Call, Details, Headers, Payload, Usage
from tollway.gateway import settings
from tollway.gateway.budgets.calendar import window_at
from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.data_plane.headers import forwarded, returned
from tollway.gateway.data_plane.idempotency import key_of
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.grpc_listener import replies as grpc_replies
from tollway.gateway.grpc_listener import requests as grpc_requests
from tollway.gateway.grpc_listener.schema import Schema
from tollway.gateway.learning import feedback as learner
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.listener.request_head import HeadLimits
from tollway.gateway.observability.request_trace import parent
from tollway.gateway.security import addresses
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.storage import snapshot_file
from tollway.gateway.storage.journal_format import seal, unseal

Target = Callable[[bytes], None]
_LOOP = asyncio.new_event_loop()
_STREAMED = Payload({"stream": True, "messages": []})


SCHEMA = Schema()


def http1_reply(data: bytes) -> None:
    """A backend's bytes: read the same in pieces, and the slot is returned once."""
    reply, places = data[2:], list(data[:2])
    whole = _LOOP.run_until_complete(outcome([reply]))
    pieces = _LOOP.run_until_complete(outcome(cut(reply, places)))
    assert pieces[:-1] == whole[:-1]


def http1_request(data: bytes) -> None:
    """A client's bytes: whole requests reach the application, and each is forwarded as one."""
    sent, places = data[2:], list(data[:2])
    seen = accepted([sent])
    assert seen == accepted(cut(sent, places))
    for method, target, headers, body in seen:
        with suppress(HttpProblem):
            onward.forward(method, target, headers, body)


def served(parts: list[bytes]) -> list[tuple[str, bytes, bytes]]:
    """Return what an application sees of a client's bytes: method, raw path, body."""
    seen = accepted(parts)
    return [(method, target.partition(b"?")[0], body) for method, target, _, body in seen]


def accepted(parts: list[bytes]) -> list[tuple[str, bytes, Headers, bytes]]:
    """Return what an application sees: method, target, fields, body."""
    return _LOOP.run_until_complete(_accepted(parts))


async def _accepted(parts: list[bytes]) -> list[tuple[str, bytes, Headers, bytes]]:
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
        asked = scope["query_string"]
        target = scope["raw_path"] + (b"?" + asked if asked else b"")
        seen.append((scope["method"], target, scope["headers"], body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    limits = HeadLimits(fields=8, head_bytes=512, target_bytes=128, body_bytes=256)
    config = uvicorn.Config(app, lifespan="off", log_config=None, proxy_headers=False)
    config.load()
    state = ServerState()
    connection = limited_protocol(limits)(config=config, server_state=state, app_state={})
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


def forms(data: bytes) -> None:
    """A form: what is read of it is still read after a field was changed, or left out."""
    headers = [(b"content-type", b"multipart/form-data; boundary=X")]
    with suppress(BadRequest):
        form = multipart.read(headers, data)
        for name in form.fields:
            changed = multipart.read(headers, form.edited(data, {name: "new"}))
            assert [part.name for part in changed.parts] == [part.name for part in form.parts]
            left = multipart.read(headers, form.edited(data, {name: None})).fields
            assert left == {key: value for key, value in form.fields.items() if key != name} or (
                left == form.fields
            )


def events(data: bytes) -> None:
    """A stream of events: no byte is lost or changed."""
    stream, places, reader = data[2:], list(data[:2]), Events()
    read_ = [event for part in cut(stream, places) for event in reader.feed(part)]
    last = reader.close()
    assert b"".join(event.raw for event in read_) + (last.raw if last else b"") == stream


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
        onward.end(name, follower)


def requests(data: bytes) -> None:
    """A request of every protocol."""
    length = b"%d" % (data[0] if data else 0)
    for name in PROTOCOLS:
        wire = protocol(name)
        for fields in ([], [(b"inference-header-content-length", length)]):
            with suppress(BadRequest):
                call = Call(b"POST", b"/v1/chat/completions", fields, data[1:])
                payload = wire.parse(call)
                _, edits = wire.readdress(call, b"/base", "model", payload)
                body = rewritten(call, payload, edits) if edits else call.body
                assert body == call.body or orjson.loads(body)
                onward.choose(wire, call, payload)


def replies(data: bytes) -> None:
    """A reply of every protocol: an answer or none, a usage or none, and always an outcome."""
    length = b"%d" % (data[0] if data else 0)
    body = data[1:]
    for name in PROTOCOLS:
        for fields in ([], [(b"inference-header-content-length", length)]):
            onward.settle(name, fields, body)
    onward.settle("openai", [(b"content-type", b"text/event-stream")], b"data: %b\n\n" % body)


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


def grpc(data: bytes) -> None:
    """A message of gRPC, which REST must be able to read, and a reply that becomes one."""
    for as_json in (False, True):
        with suppress(DecodeError, ValueError, BadRequest):
            message = SCHEMA.ModelInferRequest.FromString(data[1:])
            call = grpc_requests.inference(message, as_json=as_json)
            protocol("oip").parse(Call(b"POST", call.path, call.headers, call.body))
    length = b"%d" % (data[0] if data else 0)
    for head in ([], [(b"inference-header-content-length", length)]):
        for raw in (False, True):
            with suppress(ValueError):
                grpc_replies.inferred(SCHEMA, head, data[1:], raw=raw).SerializeToString()


def fields(data: bytes) -> None:
    """Header fields, both ways, ours among them."""
    pairs = [line.partition(b":") for line in data.split(b"\n")]
    headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    with suppress(HttpProblem):
        kept, options = forwarded(headers, b"gw")
        assert not [name for name, _ in kept if name.startswith(b"x-tollway-")]
        assert options.floor is None or 0 <= options.floor <= 1
        assert options.deadline_s is None or 0 < options.deadline_s <= 86_400
        assert options.cost_nano_max is None or 0 <= options.cost_nano_max < 10**15
    with suppress(HttpProblem):
        key_of(headers)
    returned(headers, b"gw")
    parent(headers)
    assert Authenticator({}).tenant(headers) is None


def json_paths(data: bytes) -> None:
    """A path into a document, and the document."""
    path, _, document = data.partition(b"\n")
    text = path.decode("utf-8", "replace")
    with suppress(ValueError):
        loaded = load_request(document)
        found = compile_path(text)(loaded)
        numbers(found)
        texts(found)
        compile_first(text)(loaded)


def configuration(data: bytes) -> None:
    """A `tollway.toml`."""
    try:
        settings.parse(data.decode("utf-8", "replace"), {}).effective()
    except ConfigError as exc:
        assert str(exc)


def rules(data: bytes) -> None:
    """A file of rules, and prices."""
    try:
        table = tomllib.loads(data.decode("utf-8", "replace"))
    except ValueError:
        return
    with suppress(ValueError):
        decide = compile_rules(table)
        for document in (None, {}, {"x": "text"}, {"x": [1, 2.5]}, {"x": [1, "a", None]}):
            confidence = decide(document).confidence
            assert confidence is None or 0 <= confidence <= 1


def price(data: bytes) -> None:
    """A table of prices: what it lets a call cost can be held."""
    with suppress(ValueError):
        table = orjson.loads(data)
        read_ = parse_price(table) if isinstance(table, dict) else Price()
        more = Details((("reasoning_tokens", 3.0), ("images", 2.0)), service_tier="flex")
        usages = (
            Usage(),
            Usage(1, 2.5, 1000, 10, 10),
            Usage(1, 2.5, 1000, 10, 10, True, more),
            Usage(1, 1e300, 1e300, 0, 0),
        )
        for usage in usages:
            with suppress(ValueError):
                assert 0 <= read_.cost_nano(usage) <= MAX_NANO


def journal(data: bytes) -> None:
    """Lines of a journal, and snapshots: damaged ones are skipped or refused."""
    for line in data.splitlines(keepends=True):
        row = unseal(line)
        assert row is None or isinstance(row, dict)
    with suppress(ValueError):
        parts, _ = snapshot_file.unpack(data)
        assert all(isinstance(part, bytes) for part in parts.values())


def told(data: bytes) -> None:
    """Feedback, and changes to budgets."""
    with suppress(BadRequest, learner.BadFeedback):
        feedback = learner.parse(load_request(data))
        assert feedback.quality is None or 0 <= feedback.quality <= 1
        assert 0 < feedback.probability <= 1
        seal({"label": feedback.label})
    with suppress(HttpProblem):
        onward.change(data, _LOOP)


def urls(data: bytes) -> None:
    """Addresses of the configuration: checked, and then opened, or refused."""
    text = data.decode("utf-8", "replace")
    addresses.is_link_local(text)
    with suppress(ValueError):
        addresses.check_listen(text)
    try:
        addresses.check_web_url(text)
    except ValueError:
        pass
    else:  # what is accepted is opened while the gateway starts or reloads
        open_transport(urlunsplit((*urlsplit(text)[:2], "", "", "")))
    with suppress(ValueError):
        addresses.check_backend_url(text)
        addresses.server_of(text)
        open_transport(text)


def windows(data: bytes) -> None:
    """A time: it lies in its window, in any zone."""
    now_s = float(int.from_bytes(data[:5], "big") % 7_000_000_000)  # to the year 2191
    zone = ("UTC", "Europe/Berlin", "Pacific/Apia", "Australia/Lord_Howe")[len(data) % 4]
    for window in ("hour", "day", "week", "month"):
        span = window_at(window, zone, now_s)  # type: ignore[arg-type]
        assert span.end_s is not None
        assert span.start_s <= now_s < span.end_s


def devices(data: bytes) -> None:
    """Pages that are polled, of prices and counters, and fields that tell a device's time."""
    first, _, page = data.partition(b"\n")
    selector = Selector("a", (("b", "c"),))
    with suppress(ValueError):
        selector = parse_selector(first.decode("utf-8", "replace"))
        assert parse_selector(str(selector)).name == selector.name
    for path in (None, "usd[0].hour"):
        with suppress(ValueError):
            assert 0 < price_reader(path, None)(data) < MAX_NANO
    with suppress(ValueError):
        assert 0 < price_reader(None, selector)(page) < MAX_NANO
    for counter in (from_statistics, from_metrics(selector, "us")):
        with suppress(ValueError):
            assert counter(page) >= 0.0
    for told in (from_field(b"x", 1e-3), from_server_timing(b"gpu")):
        seconds = told([(b"x", data), (b"server-timing", data)])
        assert seconds is None or seconds > 0.0


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(http1_reply, http1_request, events, chat_stream, forms, requests, replies, documents),
        *(grpc, fields, json_paths, configuration, rules, journal, price, told, urls, windows),
        devices,
    )
}
