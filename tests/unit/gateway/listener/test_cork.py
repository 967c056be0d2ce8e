"""A corked transport: one write a turn, nothing lost, nothing reordered."""

import asyncio
from typing import cast

from tollway.gateway.listener.corked_transport import MOST_BYTES, CorkedTransport


class Recorder:
    """A transport that remembers what was done to it."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def write(self, data: bytes) -> None:
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


def test_what_is_written_in_one_turn_goes_out_in_one_write() -> None:
    async def run() -> list[object]:
        transport, recorder = corked()
        transport.write(b"head")
        transport.write(b"body")
        assert recorder.done == []
        await state()
        transport.write(b"next")
        await state()
        return recorder.done

    assert asyncio.run(run()) == [b"headbody", b"next"]


def test_closing_and_the_end_of_writing_come_after_what_waits() -> None:
    async def run() -> list[object]:
        transport, recorder = corked()
        transport.write(b"a")
        transport.write_eof()
        transport.write(b"b")
        transport.close()
        assert transport.is_closing()
        await state()
        return recorder.done

    assert asyncio.run(run()) == [b"a", "eof", b"b", "closed"]


def test_much_does_not_wait_so_that_flow_control_sees_it() -> None:
    async def run() -> list[object]:
        transport, recorder = corked()
        transport.write(b"x" * MOST_BYTES)
        transport.write(b"y")
        return recorder.done

    assert asyncio.run(run()) == [b"x" * MOST_BYTES + b"y"]
