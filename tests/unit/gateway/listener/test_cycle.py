"""A response is written as it was meant, or not at all."""

import asyncio
from typing import Any

import pytest

from tollway.gateway.listener.cycle import Cycle, Flow


class Wire:
    """A connection that notes what is written."""

    def __init__(self) -> None:
        self.flow = Flow(self)  # type: ignore[arg-type] # it is not paused here
        self.transport = self
        self.server_state = None
        self.written = b""
        self.closed = self.completed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def write_last(self, data: bytes) -> None:
        self.written += data

    def run(self, cycle: Cycle, app: Any) -> None:
        raise AssertionError("nothing is handed over here")

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def on_response_complete(self) -> None:
        self.completed = True


def cycle(wire: Wire, method: str = "POST", **more: Any) -> Cycle:
    return Cycle(wire, {"method": method, "headers": []}, **{"keep_alive": True, **more})


LENGTH = (b"content-length", b"2")


@pytest.mark.parametrize(
    ("method", "status", "fields", "body", "written"),
    [
        ("POST", 200, [LENGTH], b"ok", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("HEAD", 200, [LENGTH], b"", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
        ("POST", 204, [], b"", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("POST", 200, [], b"ok", b"2\r\nok\r\n0\r\n\r\n"),
    ],
    ids=["a length", "HEAD", "no content", "no length"],
)
def test_a_whole_reply_is_one_write(
    method: str, status: int, fields: Any, body: bytes, written: bytes
) -> None:
    wire = Wire()
    assert cycle(wire, method).reply(status, fields, body)
    assert wire.written.endswith(written)
    assert (wire.completed, wire.closed) == (True, False)


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\ny", b"a\ry", b"a\x00", b"a\x7f"])
def test_no_field_ends_its_line(value: bytes) -> None:
    wire = Wire()
    with pytest.raises(RuntimeError, match="characters"):
        cycle(wire).reply(200, [(b"x", value), LENGTH], b"ok")
    assert wire.written == b""


@pytest.mark.parametrize("body", [b"", b"o", b"okay"])
def test_a_reply_of_another_length_than_it_states_is_an_error(body: bytes) -> None:
    wire = Wire()
    with pytest.raises(RuntimeError, match="content-length"):
        cycle(wire).reply(200, [LENGTH], body)
    assert wire.written == b""


def test_a_client_that_knows_no_chunks_reads_until_the_end() -> None:
    wire = Wire()

    async def send() -> None:
        one = cycle(wire, keep_alive=False, lasts=True)
        await one.send({"type": "http.response.start", "status": 200, "headers": []})
        await one.send({"type": "http.response.body", "body": b"a", "more_body": True})
        await one.send({"type": "http.response.body", "body": b"b"})

    asyncio.run(send())
    assert wire.written == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab"
    assert wire.closed


def test_a_client_that_must_first_read_other_replies_gets_none_at_once() -> None:
    wire = Wire()
    wire.flow.pause_writing()
    assert not cycle(wire).reply(200, [LENGTH], b"ok")
    assert wire.written == b""


def test_an_application_that_fails_is_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a bug")

    wire = Wire()
    asyncio.run(cycle(wire).run(app))
    assert wire.written.startswith(b"HTTP/1.1 500 ")
    assert wire.closed
    assert "a bug" in caplog.text


def test_a_body_is_received_in_its_parts_and_then_the_end_of_the_connection() -> None:
    async def receive() -> list[Any]:
        one = cycle(Wire())
        seen = []
        one.feed(b"a")
        one.feed(b"b")
        seen.append(await one.receive())
        asyncio.get_running_loop().call_soon(one.end)
        seen.append(await one.receive())
        waiting = asyncio.ensure_future(one.receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        one.disconnected = True
        one.wake()
        return [*seen, await waiting]

    first, second, last = asyncio.run(receive())
    assert (first["body"], first["more_body"]) == (b"ab", True)
    assert (second["body"], second["more_body"]) == (b"", False)
    assert last == {"type": "http.disconnect"}
