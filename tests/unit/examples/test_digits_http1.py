"""The demo's own HTTP client, with replies from a socket."""

import asyncio

import pytest

from examples.digits.http1 import Http


def talk(replies, ask):
    """Run `ask(http)` against a server that sends each reply in turn; also the requests it got."""
    got = []

    async def serve(reader, writer):
        while replies:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            got.append(head + await reader.readexactly(length))
            writer.write(replies.pop(0))
        writer.close()

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            http = Http(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            try:
                return await ask(http)
            finally:
                await http.aclose()

    return asyncio.run(run()), got


def test_one_connection_carries_several_requests():
    async def ask(http):
        return [await http.post("/a", {"n": n}, {"x-key": "k"}) for n in (1, 2)]

    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Who: me\r\n\r\n" + b'{"a": 12}'

    responses, got = talk([reply, reply], ask)

    assert [response.json() for response in responses] == [{"a": 12}] * 2
    assert responses[0].headers["x-who"] == "me"
    assert got[1].startswith(b"POST /a HTTP/1.1\r\n")
    assert got[1].endswith(b'x-key: k\r\n\r\n{"n":2}')


def test_chunks_are_put_together():
    async def ask(http):
        return await http.get("/")

    head = b"HTTP/1.1 402 Payment Required\r\nTransfer-Encoding: chunked\r\n\r\n"

    response, _ = talk([head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"], ask)

    assert (response.status, response.body) == (402, b"abcde")


def test_a_reply_that_is_cut_off_is_an_error():
    async def ask(http):
        return await http.get("/")

    with pytest.raises(asyncio.IncompleteReadError):
        talk([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"], ask)


def test_a_connection_that_the_server_has_closed_is_not_used_again():
    async def ask(http):
        first = await http.get("/")
        second = await http.get("/")
        return first.status, second.status

    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    statuses, got = talk([reply, reply], ask)

    assert statuses == (200, 200)
    assert len(got) == 2
