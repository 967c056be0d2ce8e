"""A call becomes a request to the application, and a client that leaves is told to it."""

import asyncio
from typing import Any

import pytest

from tollway.gateway.grpc_listener.exchange import Caller, Exchange
from tollway.gateway.grpc_listener.failures import INTERNAL, UNAVAILABLE, Failed
from tollway.gateway.grpc_listener.server import peer_of
from tollway.gateway.listener.client import client_of

CALLER = Caller([], ("127.0.0.1", 7))


def asked(app: Any, most: int = 1000) -> Any:
    exchange = Exchange(app, scheme="http", reply_bytes_max=most)
    return asyncio.run(exchange.ask(CALLER, "POST", b"/v2", [(b"a", b"b")], b"body"))


async def replies(send: Any, status: int, *parts: bytes, whole: bool = True) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x", b"y")]})
    for at, part in enumerate(parts, start=1):
        more = at < len(parts) or not whole
        await send({"type": "http.response.body", "body": part, "more_body": more})


def test_the_application_gets_the_request_and_its_reply_comes_back() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope["raw_path"], scope["headers"], await receive()))
        await replies(send, 201, b"a", b"b")

    assert asked(app) == (201, [(b"x", b"y")], b"ab")
    path, headers, message = seen
    assert path == b"/v2"
    assert headers == [(b"a", b"b"), (b"content-length", b"4")]
    assert (message["body"], message["more_body"]) == (b"body", False)


def test_a_reply_at_once_needs_no_messages() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        client = client_of(scope)
        assert client is not None
        assert client.reply(200, [], b"done")

    assert asked(app) == (200, [], b"done")


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("a bug")


async def is_silent(scope: Any, receive: Any, send: Any) -> None:
    pass


async def breaks_off(scope: Any, receive: Any, send: Any) -> None:
    await replies(send, 200, b"a", whole=False)


async def is_too_long(scope: Any, receive: Any, send: Any) -> None:
    await replies(send, 200, b"a" * 600, b"a" * 600, whole=False)


@pytest.mark.parametrize(
    ("app", "code"),
    [
        (fails, INTERNAL),
        (is_silent, INTERNAL),
        (breaks_off, UNAVAILABLE),
        (is_too_long, UNAVAILABLE),
    ],
)
def test_no_whole_reply_is_a_failure(app: Any, code: int) -> None:
    with pytest.raises(Failed) as caught:
        asked(app)
    assert caught.value.code == code


@pytest.mark.parametrize("cancels", [True, False])
def test_a_client_that_leaves_cancels_only_what_the_application_lets_it(cancels: bool) -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            client = client_of(scope)
            assert client is not None
            client.cancels = cancels
            await receive()
            begun.set()
            try:
                assert (await receive())["type"] == "http.disconnect"
                assert not cancels
            except asyncio.CancelledError:
                assert cancels
            assert client.left
            ended.set()

        exchange = Exchange(app, scheme="http", reply_bytes_max=10)
        call = asyncio.create_task(exchange.ask(CALLER, "GET", b"/"))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await exchange.close(within_s=10)
        assert ended.is_set()

    asyncio.run(main())


def headers(*metadata: tuple[bytes, bytes], left_s: float | None = None) -> dict[bytes, bytes]:
    return dict(Caller(list(metadata), None, left_s).headers())


def test_metadata_are_fields_but_for_what_frames_the_call() -> None:
    given = headers(
        (b"authorization", b"Bearer k"),
        (b"x-tollway-tags", b"a=b"),
        (b"content-type", b"application/grpc"),
        (b"inference-header-content-length", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"grpc-timeout", b"1S"),
        (b"trace-bin", b"x"),
    )
    assert given == {b"authorization": b"Bearer k", b"x-tollway-tags": b"a=b"}


DEADLINE = b"x-tollway-deadline-ms"


@pytest.mark.parametrize(
    ("given", "left_s", "wanted"),
    [
        (None, None, None),
        (None, 1.5, b"1500.000"),
        (None, 0.0, b"1.000"),
        (None, 90_000.0, None),
        (b"100", 1.5, b"100"),
        (b"2000", 1.5, b"1500.000"),
        (b"nan", 1.5, b"nan"),
        (b"soon", 1.5, b"soon"),
    ],
)
def test_the_sooner_deadline_holds(
    given: bytes | None, left_s: float | None, wanted: bytes | None
) -> None:
    fields = [] if given is None else [(DEADLINE, given)]
    assert headers(*fields, left_s=left_s).get(DEADLINE) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ipv4:10.0.0.1:50051", ("10.0.0.1", 50051)),
        ("ipv6:%5B::1%5D:50051", ("::1", 50051)),
        ("unix:/tmp/socket", None),
        ("", None),
    ],
)
def test_the_peer_is_read_as_grpcio_writes_it(text: str, wanted: tuple[str, int] | None) -> None:
    assert peer_of(text) == wanted
