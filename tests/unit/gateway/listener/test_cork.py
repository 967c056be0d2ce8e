"""A corked transport joins a head with its body, and loses, delays and reorders nothing."""

import asyncio
from typing import cast

from tollway.gateway.listener.corked_transport import CorkedTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"


class Recorder:
    """A transport that records its calls. Like uvloop's, it refuses writes when it is closed."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def write(self, data: bytes) -> None:
        if self.is_closing():
            raise RuntimeError("the handler is closed")
        self.done.append(data)

    def write_eof(self) -> None:
        self.done.append("eof")

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.done


def corked() -> tuple[CorkedTransport, Recorder]:
    recorder = Recorder()
    transport = cast(asyncio.Transport, recorder)
    return CorkedTransport(transport, asyncio.get_running_loop()), recorder


async def state() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_a_head_goes_out_with_the_beginning_of_its_body_in_one_write() -> None:
    async def run() -> list[object]:
        transport, recorder = corked()
        transport.write(HEAD)
        assert recorder.done == []
        transport.write(b"first")
        assert recorder.done == [HEAD + b"first"]
        await state()
        return recorder.done

    assert asyncio.run(run()) == [HEAD + b"first"]


def test_a_head_without_a_body_waits_for_the_end_of_the_turn_only() -> None:
    async def run() -> list[object]:
        transport, recorder = corked()
        transport.write(HEAD)
        await state()
        return recorder.done

    assert asyncio.run(run()) == [HEAD]


def test_an_event_of_a_stream_is_not_delayed() -> None:
    async def run() -> None:
        transport, recorder = corked()
        transport.write(b"an event")
        transport.write(b"the next")
        assert recorder.done == [b"an event", b"the next"]

    asyncio.run(run())


REPLY = HEAD + b"reply"


def test_a_reply_alone_in_its_turn_is_written_at_once() -> None:
    async def run() -> None:
        transport, recorder = corked()
        for _ in range(2):
            transport.write_last(REPLY)
            assert recorder.done == [REPLY]
            await state()
            recorder.done.clear()

    asyncio.run(run())


def test_replies_of_one_turn_are_written_at_its_end_and_so_are_those_of_the_next() -> None:
    async def run() -> None:
        (one, first), (other, second) = corked(), corked()
        one.write_last(REPLY)
        other.write_last(REPLY)
        assert (first.done, second.done) == ([REPLY], [])
        await state()
        assert second.done == [REPLY]
        one.write_last(REPLY)
        assert first.done == [REPLY]
        await state()
        assert first.done == [REPLY, REPLY]

    asyncio.run(run())


def test_a_reply_that_waits_is_written_before_the_connection_is_closed() -> None:
    async def run() -> list[object]:
        (one, _), (other, recorder) = corked(), corked()
        one.write_last(REPLY)
        other.write_last(REPLY)
        other.close()
        await state()
        return recorder.done

    assert asyncio.run(run()) == [REPLY, "closed"]


def test_closing_and_the_end_of_writing_come_after_what_waits() -> None:
    async def run() -> list[object]:
        transport, recorder = corked()
        transport.write(HEAD)
        transport.write_eof()
        transport.write(HEAD)
        transport.close()
        assert transport.is_closing()
        await state()
        return recorder.done

    assert asyncio.run(run()) == [HEAD, "eof", HEAD, "closed"]


def test_data_for_a_client_that_left_in_the_same_turn_is_dropped_without_an_error() -> None:
    async def run() -> tuple[list[object], list[object]]:
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, found: errors.append(found))
        transport, recorder = corked()
        transport.write(HEAD)
        recorder.close()
        transport.write(b"first")
        transport.write(b"second")
        transport.write(HEAD)
        await state()
        return recorder.done, errors

    assert asyncio.run(run()) == (["closed"], [])
