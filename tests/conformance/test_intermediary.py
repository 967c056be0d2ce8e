"""What RFC 9110 and 9112 require of an intermediary, through a whole gateway (docs/http.md)."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.conformance.between import REPLY, Between, between, fields, request, run
from tests.contracts import wire_server as wire
from tests.contracts.wire_server import Script, Wire

pytestmark = pytest.mark.integration

HEAD = b"HTTP/1.1 200 OK\r\n"
BODY = b'content-length: 11\r\n\r\n{"label":1}'


def exchanged(
    folder: Path, sent: bytes, script: Script | None = None, **options: object
) -> tuple[bytes, Between]:
    """Send bytes through a gateway; return the reply, and what the backend received."""
    seen: list[tuple[bytes, Between]] = []

    async def main() -> None:
        async with between(folder, script, **options) as both:
            seen.append((await both.say(sent), both))

    run(main)
    return seen[0]


# -- the request on its way


def test_the_target_goes_through_byte_for_byte(tmp_path: Path) -> None:
    target = b"/a/%7e%41//b%20c=1,d?q=a%20b&&q=../&%zz;%00"
    _, both = exchanged(tmp_path, request(target))
    assert both.heads[0].startswith(b"post " + target.lower() + b" http/1.1\r\n")


def test_unknown_fields_are_forwarded_in_order_and_not_joined(tmp_path: Path) -> None:
    more = b"X-A: 1\r\nX-B: , ,\r\nx-a: 2\r\nAccept: a\r\nAccept: b;q=0\r\nX-Empty:\r\n"
    _, both = exchanged(tmp_path, request(more=more))
    told = [line for line in both.heads[0].split(b"\r\n") if line[:2] in (b"x-", b"ac")]
    assert [line.replace(b": ", b":") for line in told] == [
        *(b"x-a:1", b"x-b:, ,", b"x-a:2", b"accept:a", b"accept:b;q=0", b"x-empty:"),
        b"accept-encoding:identity",
    ]


def test_hop_by_hop_fields_are_not_forwarded(tmp_path: Path) -> None:
    more = (
        b"connection: x-secret, keep-alive\r\nx-secret: 1\r\nkeep-alive: timeout=9\r\n"
        b"te: trailers\r\ntrailer: x\r\nproxy-connection: keep-alive\r\n"
        b"proxy-authorization: basic eDp5\r\nupgrade: h2c\r\n"
    )
    _, both = exchanged(tmp_path, request(more=more))
    names = {name for name, _ in fields(both.heads[0])}
    assert names.isdisjoint(
        {
            *(b"x-secret", b"keep-alive", b"te", b"trailer", b"proxy-connection", b"upgrade"),
            *(b"proxy-authorization", b"transfer-encoding"),
        }
    )


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_via_states_the_version_of_the_received_message(tmp_path: Path, version: bytes) -> None:
    reply, both = exchanged(tmp_path, request(version=b"HTTP/" + version, more=b"via: 1.1 b\r\n"))
    (asked,) = [value for name, value in fields(both.heads[0]) if name == b"via"]
    assert re.fullmatch(rb"1\.1 b, " + re.escape(version) + rb" tollway\S*", asked)
    assert both.heads[0].split(b"\r\n")[0].endswith(b" http/1.1")
    assert [v.split()[0] for n, v in fields(reply) if n == b"via"] == [b"1.1"]


def test_a_request_that_comes_back_to_us_is_a_loop(tmp_path: Path) -> None:
    async def main() -> None:
        async with between(tmp_path) as both:
            await both.say(request())
            (via,) = [value for name, value in fields(both.heads[0]) if name == b"via"]
            reply = await both.say(request(more=b"via: 1.1 other, " + via + b"\r\n"))
            assert reply.startswith(b"HTTP/1.1 508 ")
            assert len(both.heads) == 1

    run(main)


@pytest.mark.parametrize("target", [b"/infer", b"*"])
def test_options_is_answered_here_whatever_max_forwards_says(tmp_path: Path, target: bytes) -> None:
    for more in (b"max-forwards: 0\r\n", b"max-forwards: 5\r\n", b""):
        reply, both = exchanged(tmp_path, request(target, more, b"", b"OPTIONS"))
        assert reply.startswith(b"HTTP/1.1 204 ")
        assert b"content-length" not in dict(fields(reply))
        assert both.heads == []


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT"])
def test_trace_and_connect_reach_no_backend(tmp_path: Path, method: bytes) -> None:
    reply, both = exchanged(tmp_path, request(b"/infer", b"", b"", method))
    assert reply.startswith((b"HTTP/1.1 501 ", b"HTTP/1.1 400 "))
    assert both.heads == []


def test_a_request_that_breaks_off_reaches_no_backend(tmp_path: Path) -> None:
    async def main() -> None:
        async with between(tmp_path) as both:
            for cut in (
                b"POST /infer HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{}",
                b"POST /infer HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
                b"POST /infer HTTP/1.1\r\nhost: a\r\ncontent-le",
            ):
                _, writer = await both.client.open()
                writer.write(cut)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
            await both.say(request())  # which comes after them, and is the only one
            assert len(both.heads) == 1

    run(main)


def test_the_length_of_a_body_is_recomputed_and_trailers_are_dropped(tmp_path: Path) -> None:
    chunked = b"1;ext=1\r\n{\r\n1\r\n}\r\n0\r\nx-trailer: 1\r\n\r\n"
    sent = request(more=b"transfer-encoding: chunked\r\n").partition(b"content-length")[0]
    _, both = exchanged(tmp_path, sent + b"\r\n" + chunked)
    ((head, body),) = both.backend.requests
    assert body == b"{}"
    assert b"content-length: 2\r\n" in head.lower()
    assert b"transfer-encoding" not in head.lower()
    assert b"x-trailer" not in head.lower()


def test_expect_is_answered_here_and_not_forwarded(tmp_path: Path) -> None:
    async def main() -> None:
        async with between(tmp_path) as both:
            reader, writer = await both.client.open()
            writer.write(request(more=b"expect: 100-continue\r\n").removesuffix(b"{}"))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert both.heads == []
            writer.write(b"{}")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            assert b"expect" not in both.heads[0]
            writer.close()

    run(main)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (b"content-length: 99999999\r\nexpect: 100-continue\r\n\r\n", b"413"),
        (b"content-length: 5\r\nexpect: 200-maybe\r\n\r\n", b"417"),
    ],
)
def test_a_request_that_is_refused_by_its_head_is_not_asked_for_its_body(
    tmp_path: Path, more: bytes, status: bytes
) -> None:
    reply, both = exchanged(tmp_path, b"POST /infer HTTP/1.1\r\nhost: a\r\n" + more)
    assert reply.startswith(b"HTTP/1.1 " + status)
    assert b"100 Continue" not in reply
    assert both.heads == []


# -- the reply on its way back


def test_a_reply_has_one_date_and_a_backends_own_is_kept(tmp_path: Path) -> None:
    reply, _ = exchanged(tmp_path, request())
    assert len([1 for name, _ in fields(reply) if name == b"date"]) == 1
    dated = HEAD + b"date: Mon, 01 Jan 2024 00:00:00 GMT\r\n" + BODY
    reply, _ = exchanged(tmp_path, request(), wire.replies(dated))
    told = [value for name, value in fields(reply) if name == b"date"]
    assert told == [b"Mon, 01 Jan 2024 00:00:00 GMT"]


def test_fields_of_a_reply_are_forwarded_in_order_except_hop_by_hop_fields(tmp_path: Path) -> None:
    told = (
        b"X-A: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authenticate: basic\r\nUpgrade: h2c\r\nX-A: 2\r\n"
        b"Cache-Control: no-transform\r\n"
    )
    reply, _ = exchanged(tmp_path, request(), wire.replies(HEAD + told + BODY))
    wanted = (b"x-a", b"x-hop", b"set-cookie", b"keep-alive", b"upgrade", b"cache-control")
    kept = [pair for pair in fields(reply) if pair[0] in (*wanted, b"proxy-authenticate")]
    assert kept == [
        (b"x-a", b"1"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-a", b"2"),
        (b"cache-control", b"no-transform"),
    ]
    assert reply.endswith(b'\r\n\r\n{"label":1}')


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404),
    ],
)
def test_a_reply_without_a_body_has_none_and_the_next_is_not_mistaken_for_it(
    tmp_path: Path, head: bytes, status: int
) -> None:
    async def main() -> None:
        async with between(tmp_path, wire.replies(head), route="fallback = false") as both:
            for _ in range(2):
                reply = await both.say(request())
                first, _, body = reply.partition(b"\r\n\r\n")
                told = dict(fields(reply))
                if first.startswith(b"HTTP/1.1 %d " % status):
                    assert body == b""
                    assert told.get(b"content-length") in (None, b"0")
                    assert b"transfer-encoding" not in told
                else:  # no answer at all: a failure of the backend, and said so
                    assert first.startswith(b"HTTP/1.1 502 ")

    run(main)


def test_interim_replies_are_not_forwarded_and_the_final_one_is(tmp_path: Path) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    for version in (b"HTTP/1.1", b"HTTP/1.0"):
        reply, _ = exchanged(tmp_path, request(version=version), wire.replies(early + REPLY))
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert reply.count(b"HTTP/1.1") == 1
        assert b"link" not in reply


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    away = b"HTTP/1.1 %d Away\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
    reply, both = exchanged(
        tmp_path, request(), wire.replies(away % status), route="fallback = false"
    )
    assert reply.startswith((b"HTTP/1.1 502 ", b"HTTP/1.1 %d " % status))
    assert len(both.heads) == 1


BROKEN = {
    "a folded field": HEAD + b"x-a: 1\r\n y\r\n" + BODY,
    "a space before the colon": HEAD + b"x-a : 1\r\n" + BODY,
    "a bare CR in a field": HEAD + b"x-a: 1\rx-b: 2\r\n" + BODY,
    "a length and chunks": HEAD
    + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
    "a length that is none": HEAD + b"content-length: x\r\n\r\n{}",
    "a coding that is unknown": HEAD + b"transfer-encoding: zip, chunked\r\n\r\n0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 What\r\ncontent-length: 2\r\n\r\n{}",
    "status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\n{}",
    "another protocol": b"ICY 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "HTTP/2.0 in clear": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "a switch nobody asked for": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n",
    "a body that is cut": HEAD + b"content-length: 99\r\n\r\n{}",
    "chunks that are cut": HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_reply_that_cannot_be_read_is_a_502_and_its_connection_is_closed(
    tmp_path: Path, name: str
) -> None:
    async def main() -> None:
        script = wire.replies(BROKEN[name], then_close="cut" in name)
        async with between(tmp_path, script, route="fallback = false") as both:
            reply = await both.say(request())
            assert reply.startswith(b"HTTP/1.1 502 ")
            assert b"x-b" not in reply
            await both.backend.all_closed()

    run(main)


def test_bytes_that_follow_a_reply_are_discarded(tmp_path: Path) -> None:
    """Response splitting, and a backend that replies before it has a request."""

    async def script(connection: Wire) -> None:
        await connection.request()
        await connection.say(REPLY + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await connection.gone()

    async def main() -> None:
        async with between(tmp_path, script) as both:
            for _ in range(3):
                reply = await both.say(request())
                assert reply.endswith(b'{"label":1}')
                assert b"evil" not in reply

    run(main)


# -- connections


def test_a_connection_is_kept_as_long_as_both_want_it(tmp_path: Path) -> None:
    keep = request().replace(b"connection: close\r\n", b"")

    async def main() -> None:
        async with between(tmp_path) as both:
            reply = await both.say(keep, keep, request())
            assert reply.count(b"HTTP/1.1 200 ") == 3
            assert both.backend.accepted == 1
            old = keep.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
            assert (await both.say(old)).count(b"HTTP/1.1 200 ") == 1  # and it closes

    run(main)


def test_pipelined_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    async def script(connection: Wire) -> None:
        while True:
            head, _ = await connection.request()
            number = head.split(b" ")[1][2:]
            await asyncio.sleep(0.02 if number == b"0" else 0.0)
            body = b'{"label":%b}' % number
            length = b"content-length: %d\r\n\r\n" % len(body)
            await connection.say(HEAD + length + body)

    keep = [
        request(b"/%c%d" % (97 + n, n)).replace(b"connection: close\r\n", b"") for n in range(3)
    ]

    async def main() -> None:
        async with between(tmp_path, script) as both:
            reply = await both.say(b"".join([*keep, request(b"/d3")]))
            assert re.findall(rb'"label":(\d)', reply) == [b"0", b"1", b"2", b"3"]

    run(main)


def test_errors_say_what_a_client_needs_to_know(tmp_path: Path) -> None:
    """401 with WWW-Authenticate, 405 with Allow, 502 or 504, 503 with Retry-After."""

    async def main() -> None:
        async with between(tmp_path, wire.silent, route="timeout_s = 0.2") as both:
            assert (await both.say(request())).startswith(b"HTTP/1.1 504 ")
        async with between(tmp_path / "2", wire.closes_after_request) as both:
            down = b""
            for _ in range(40):  # the calls of one caller alone rest after 25 failures in a row
                down = await both.say(request())
                if down.startswith(b"HTTP/1.1 503 "):
                    break
                assert down.startswith(b"HTTP/1.1 502 ")
            assert down.startswith(b"HTTP/1.1 503 ")
            assert int(dict(fields(down))[b"retry-after"]) >= 1

    run(main)
