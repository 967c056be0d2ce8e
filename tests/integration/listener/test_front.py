"""The listener over real sockets: what it refuses, what it serves, and its time limits."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.corpus import CHUNKED, CL, HOST, REFUSED, SERVED, get, post
from tests.support.raw_client import LIMITS, Client, Recorder, statuses
from tests.support.until import until
from tollway.gateway import settings as config
from tollway.gateway.listener import server as front
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.listener.request_head import HeadLimits
from tollway.gateway.wiring import build

pytestmark = pytest.mark.integration

UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


Test = Callable[[Recorder, "Client"], Awaitable[None]]


def serve(
    test: Test, limits: HeadLimits = LIMITS, app: Recorder | None = None, **opt: Any
) -> Recorder:
    app = app or Recorder()

    async def main() -> None:
        async with asyncio.timeout(20):
            async with front.serving(app, limits=limits, drain_s=0.5, **opt) as address:
                await test(app, Client(address))

    uvloop.run(main())
    return app


@pytest.fixture(scope="module")
def shared() -> Iterator[Callable[[Test], None]]:
    """One server for all tests that do not change it, because starting one takes long."""
    app = Recorder()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        serving = front.serving(app, limits=LIMITS)
        client = Client(runner.run(serving.__aenter__()))

        async def bounded(test: Test) -> None:
            async with asyncio.timeout(20):
                await test(app, client)

        def run(test: Test) -> None:
            app.whole.clear()
            runner.run(bounded(test))

        yield run
        runner.run(serving.__aexit__(None, None, None))


def test_the_corpus_is_large_enough() -> None:
    assert len(REFUSED) + len(SERVED) >= 77


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_malformed_or_ambiguous_is_refused_once_and_closed(
    name: str, shared: Callable[[Test], None]
) -> None:
    sent, status = REFUSED[name]

    async def test(app: Recorder, client: Client) -> None:
        reply = await client.say(sent)
        assert statuses(reply) == [status]
        assert b"connection: close" in reply.lower()
        assert reply.count(b"\r\ndate: ") == 1
        assert b"application/problem+json" in reply
        assert app.whole == []

    shared(test)


@pytest.mark.parametrize("name", SERVED)
def test_an_unusual_valid_request_is_served_once(name: str, shared: Callable[[Test], None]) -> None:
    sent, path, body = SERVED[name]

    async def test(app: Recorder, client: Client) -> None:
        reply = await client.say(sent)
        assert statuses(reply) == [200]
        assert [(one[0], one[1]) for one in app.whole] == [(path, body)]

    shared(test)


@pytest.mark.parametrize("name", [*REFUSED, *SERVED])
def test_a_request_is_read_the_same_in_any_pieces(
    name: str, shared: Callable[[Test], None]
) -> None:
    sent = (REFUSED | SERVED)[name][0]  # type: ignore[operator]
    cuts = [sent[:7], sent[7:16], sent[16:40], sent[40:-3], sent[-3:]]

    async def test(app: Recorder, client: Client) -> None:
        whole = statuses(await client.say(sent))
        seen = len(app.whole)
        try:
            assert statuses(await client.say(*cuts)) == whole
        except ConnectionError:  # refused before all was sent: then the kernel may say so first
            assert whole != [200]
        assert len(app.whole) == 2 * seen

    shared(test)


def test_an_absolute_target_replaces_host() -> None:
    async def test(app: Recorder, client: Client) -> None:
        await client.say(get(b"http://b:1/x", b"Host: a\r\nConnection: close\r\n"))
        assert app.whole[0][2][b"host"] == b"b:1"

    serve(test)


def test_names_with_underscores_and_trailers_never_arrive() -> None:
    async def test(app: Recorder, client: Client) -> None:
        fields = b"Content_Length: 9\r\nX_Y: 1\r\nConnection: close\r\n" + CHUNKED
        await client.say(post(fields, b"3\r\nabc\r\n0\r\nAuthorization: evil\r\n\r\n"))
        assert set(app.whole[0][2]) == {b"host", b"connection", b"transfer-encoding"}
        assert app.whole[0][1] == b"abc"

    serve(test)


@pytest.mark.parametrize("offer", [b"websocket", b"WebSocket", b"h2c, websocket"])
def test_a_websocket_is_refused_and_never_taken_for_a_request(offer: bytes) -> None:
    asked = HOST + b"Connection: keep-alive, Upgrade\r\nUpgrade: %b\r\n" % offer
    asked += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

    async def test(app: Recorder, client: Client) -> None:
        reply = await client.say(get(b"/v1/realtime", asked) + get(b"/after"))
        assert statuses(reply) == [501]
        assert b"connection: close" in reply.lower()
        assert b"WebSocket is not supported" in reply
        assert app.whole == []

    serve(test)


def test_pipelined_requests_are_answered_in_order_after_an_upgrade_too() -> None:
    async def test(app: Recorder, client: Client) -> None:
        reply = await client.say(
            post(UPGRADE + CL + b"3\r\n", b"abc")
            + get(b"/2")
            + post(UPGRADE + CHUNKED, b"3\r\ndef\r\n0\r\n\r\n")
            + get(b"/4", HOST + UPGRADE)
            + get(b"/5", HOST + b"Connection: close\r\n")
        )
        assert statuses(reply) == [200] * 5
        assert [(path, body) for path, body, _ in app.whole] == [
            (b"/", b"abc"),
            (b"/2", b""),
            (b"/", b"def"),
            (b"/4", b""),
            (b"/5", b""),
        ]

    serve(test)


def test_a_bad_pipelined_request_does_not_replace_the_reply_before_it() -> None:
    async def test(app: Recorder, client: Client) -> None:
        reply = await client.say(get(b"/1") + get(b"/2") + b"GARBAGE\r\n\r\n")
        assert statuses(reply) == [200, 200]
        assert reply.endswith(b"/2")

    serve(test)


def test_a_bad_body_behind_a_good_request_is_refused_in_its_turn() -> None:
    async def test(app: Recorder, client: Client) -> None:
        reply = await client.say(get(b"/1") + post(CHUNKED, b"zz\r\n"))
        assert statuses(reply) == [200, 400]
        assert len(app.whole) == 1

    serve(test)


def test_the_application_learns_that_a_body_broke_off() -> None:
    async def test(app: Recorder, client: Client) -> None:
        assert statuses(await client.say(post(CHUNKED, b"3\r\nabc\r\n"), b"zz\r\n")) == [400]
        assert (app.begun, app.left, app.whole) == (1, 1, [])

    serve(test)


def test_too_many_requests_before_a_reply_close_the_connection() -> None:
    async def test(app: Recorder, client: Client) -> None:
        reply = await client.say(get() * 200)
        assert statuses(reply) == [200] * (LIMITS.pipelined + 1)

    serve(test)


def test_expect_is_answered_when_the_body_is_wanted_and_not_before() -> None:
    async def test(app: Recorder, client: Client) -> None:
        expecting = b"Expect: 100-continue\r\nConnection: close\r\n" + CL + b"3\r\n"
        reader, writer = await client.open()
        writer.write(post(expecting))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert statuses(await reader.read()) == [200]
        writer.close()
        app.reads_body = False
        reply = await client.say(
            post(b"Expect: 100-continue\r\nConnection: close\r\n" + CL + b"3\r\n")
        )
        assert statuses(reply) == [200]

    serve(test)


# -- deadlines

HASTY = HeadLimits(head_s=0.15, body_grace_s=0.15, body_bytes_per_s=1e6)

SLOW: dict[str, tuple[list[bytes], list[int]]] = {
    "says nothing": ([], []),
    "only empty lines": ([b"\r\n"] * 100, []),
    "half a line": ([b"GET / HT"], [408]),
    "a head in drops": ([b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 100], [408]),
    "half a body": ([post(CL + b"9\r\n", b"abc")], [408]),
    "a body in drops": ([post(CL + b"99\r\n"), *[b"a"] * 98], [408]),
    "chunks in drops": ([post(CHUNKED), *[b"1\r\na\r\n"] * 100], [408]),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_client_is_cut(name: str) -> None:
    parts, expected = SLOW[name]

    async def test(app: Recorder, client: Client) -> None:
        reader, writer = await client.open()
        reading = asyncio.create_task(reader.read())
        for part in parts:
            if reading.done():
                break
            writer.write(part)
            await asyncio.sleep(0.005)
        try:
            reply = await reading
        except ConnectionResetError:  # cut without a word while it still spoke: a reset is one too
            assert expected == []
            reply = b""
        assert statuses(reply) == expected
        writer.close()
        assert app.whole == []

    serve(test, HASTY)


def test_a_slow_application_is_not_the_clients_fault() -> None:
    async def test(app: Recorder, client: Client) -> None:
        app.let_go = asyncio.Event()
        asking = asyncio.create_task(client.say(post(CL + b"3\r\nConnection: close\r\n", b"abc")))
        await asyncio.sleep(2 * HASTY.head_s)  # longer than any deadline of the front
        app.let_go.set()
        assert statuses(await asking) == [200]

    serve(test, HASTY)


def test_an_idle_connection_is_kept_and_used_again() -> None:
    async def test(app: Recorder, client: Client) -> None:
        reader, writer = await client.open()
        for path in (b"/first", b"/second"):
            writer.write(get(path))
            assert (await reader.readuntil(path)).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(2 * HASTY.head_s)
        writer.close()
        assert len(app.whole) == 2

    serve(test, HASTY)


def test_an_idle_connection_is_closed_after_its_time() -> None:
    async def test(app: Recorder, client: Client) -> None:
        assert statuses(await client.say(get(), b"\r\n", b"\r\n")) == [200]

    serve(test, keep_alive_s=0.1)


def test_connections_beyond_the_limit_are_turned_away() -> None:
    async def test(app: Recorder, client: Client) -> None:
        held = [await client.open() for _ in range(2)]
        assert statuses(await client.say(get())) == [503]
        for _, writer in held:
            writer.close()

    serve(test, connections=2)


# -- HTTP/1.0


async def in_parts(scope: Any, receive: Any, send: Any) -> None:
    """Reply in two parts, with a length where the path is /known; break off where it is /cut."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": message["type"] + ".complete"})
        return
    headers = [(b"content-length", b"6")] if scope["path"] == "/known" else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in (b"abc", b"def"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    if scope["path"] != "/cut":
        await send({"type": "http.response.body", "body": b""})


def said_to(request: bytes) -> tuple[bytes, bytes]:
    """Return head and body of what `in_parts` replies; the connection must have been closed."""
    replies = []

    async def test(app: Any, client: Client) -> None:
        replies.append(await client.say(request))

    serve(test, app=in_parts)  # type: ignore[arg-type]
    head, _, body = replies[0].partition(b"\r\n\r\n")
    return head.lower(), body


@pytest.mark.parametrize("fields", [b"", b"Connection: keep-alive\r\n"])
@pytest.mark.parametrize("path", [b"/", b"/cut"])
def test_a_reply_of_unknown_length_to_http_1_0_ends_with_the_connection(
    path: bytes, fields: bytes
) -> None:
    head, body = said_to(b"GET " + path + b" HTTP/1.0\r\nHost: x\r\n" + fields + b"\r\n")
    assert body == b"abcdef"
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head


def test_a_reply_of_known_length_to_http_1_0_is_unchanged() -> None:
    head, body = said_to(b"GET /known HTTP/1.0\r\nHost: x\r\n\r\n")
    assert (b"content-length: 6" in head, body) == (True, b"abcdef")


def test_a_head_request_over_http_1_0_has_no_body() -> None:
    assert said_to(b"HEAD / HTTP/1.0\r\nHost: x\r\n\r\n")[1] == b""


def test_http_1_1_still_gets_chunks() -> None:
    head, body = said_to(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"


# -- serving


def test_stopping_does_not_wait_for_a_body_that_never_comes() -> None:
    async def test(app: Recorder, client: Client) -> None:
        _, writer = await client.open()
        writer.write(post(CL + b"9\r\n", b"abc"))
        await until(lambda: app.begun == 1)
        writer.close()

    serve(test)


def test_a_unix_socket_is_served_and_a_stale_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):
        bound = front.bind(f"unix:{path}")
        bound.close()
    assert path.is_socket()


@pytest.mark.parametrize("listen", ["", "8080", "h:", "h:x", "unix"])
def test_an_invalid_address_is_refused(listen: str) -> None:
    with pytest.raises(ValueError):
        front.bind(listen)


def test_an_ipv6_address_is_bound() -> None:
    bound = front.bind("[::1]:0")
    assert bound.getsockname()[1] > 0
    bound.close()


PATH_SHAPES = (
    (b"/v1/chat/completions", "openai"),
    (b"/v2/models/m/infer", "oip"),
    (b"/score", "plain"),
    (b"/nothing", ""),
)


def routed(folder: Path) -> Any:
    """Return a gateway with a route of each protocol."""
    parts = [
        f"""
[[backends]]
name = "{protocol}"
kind = "cpu"
protocol = "{protocol}"
url = "http://127.0.0.1:9"
price = {{ per_request_usd = 0.001 }}
[[routes]]
name = "{protocol}"
path = "{path.decode()}"
protocol = "{protocol}"
backends = ["{protocol}"]
"""
        for path, protocol in PATH_SHAPES
        if protocol
    ]
    text = '[server]\nallow_anonymous = true\n[ledger]\nurl = "memory://"\n' + "".join(parts)
    return build(config.parse(text, {}, folder=folder))


def request(path: bytes, fields: bytes, body: bytes = b"", host: bytes = HOST) -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + host + fields + b"\r\n" + body


@pytest.mark.parametrize(("path", "protocol"), PATH_SHAPES)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_refusal_by_the_listener_has_the_error_format_of_the_paths_protocol(
    tmp_path: Path, path: bytes, protocol: str, absolute: bool
) -> None:
    target = b"http://a" * absolute + path + b"?x=1"
    chunk = b"4e21\r\n" + b"x" * 20_001 + b"\r\n"
    said = {
        413: request(target, CL + b"20001\r\n"),
        -413: request(target, CHUNKED, chunk),
        400: request(target, CL + b"1\r\n", host=HOST + b"Host: b\r\n"),
        431: request(target, b"".join(b"x-%d: 1\r\n" % n for n in range(200))),
        501: request(target, b"Transfer-Encoding: gzip\r\n"),
        417: request(target, b"Expect: tea\r\n"),
    }

    async def main() -> None:
        gateway = routed(tmp_path)
        protocol_class = limited_protocol(LIMITS, gateway.app.shape)
        async with front.serving(gateway.app, protocol=protocol_class) as address:
            for status, sent in said.items():
                reply = await Client(address).say(sent)
                head, _, body = reply.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 %d " % abs(status)), (status, reply)
                told = json.loads(body)
                assert told["status"] == abs(status)
                if protocol == "openai":
                    assert told["error"]["message"] == told["detail"]
                    assert told["error"]["type"] == (
                        "server_error" if status == 501 else "invalid_request_error"
                    )
                elif protocol == "plain":
                    assert told["error"] == told["detail"]
                else:
                    assert told["error"] == told["detail"]

    asyncio.run(main())


def test_a_request_that_cannot_be_begun_without_a_coroutine_is_answered_by_the_application() -> (
    None
):
    class Broken(Recorder):
        def begin(self, client: object, request: object) -> bool:
            raise RuntimeError("a bug")

    async def test(app: Recorder, client: Client) -> None:
        fields = CL + b"4\r\nConnection: close\r\n"
        assert statuses(await client.say(post(fields, b"body"))) == [200]

    assert len(serve(test, app=Broken()).whole) == 1
