"""Relaying a stream: it begins with its first event and ends with its body."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tollway.backends.errors import BadReply
from tollway.backends.protocols.openai.protocol import Stream
from tollway.backends.types import HttpReply
from tollway.gateway.routing.bodies.buffers import Buffers
from tollway.gateway.routing.bodies.large_documents import LargeDocuments
from tollway.gateway.routing.replies.stream_relay import COMMENTS_BYTES_MAX, StreamRelay, is_stream

HELLO = b'data: {"choices": [{"index": 0, "delta": {"content": "hello"}}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
PING = b": ping\n\n"
FAILED = b'data: {"error": {"message": "no"}}\n\n'


class Body:
    """A body that arrives in `parts`; `breaks` ends it as a cut connection does."""

    def __init__(self, *parts: bytes, breaks: bool = False) -> None:
        self._parts = parts
        self._breaks = breaks
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        if self._breaks:
            raise BadReply("the connection broke off")

    async def aclose(self) -> None:
        self.closed = True


def relay(body: Body, *, strip: bool = False, buffers: Buffers | None = None) -> StreamRelay:
    buffers = buffers or Buffers(event_bytes_max=1 << 20, bytes_max=4 << 20)
    return StreamRelay(
        HttpReply(200, [], body),
        Stream(strip=strip),
        buffers.open("a"),
        in_turns=partial(LargeDocuments(lambda: 0.0).run, "a"),
        clock=lambda: 0.0,
    )


async def read_on(stream: StreamRelay) -> list[bytes]:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return parts


def relayed(body: Body, *, strip: bool = False) -> list[bytes]:
    async def main() -> list[bytes]:
        stream = relay(body, strip=strip)
        await stream.begin()
        return await read_on(stream)

    return asyncio.run(main())


def test_a_body_that_ends_without_done_finish_reason_or_usage_is_a_whole_stream() -> None:
    assert relayed(Body(HELLO)) == [HELLO]


def test_a_last_event_without_its_blank_line_is_passed_on_and_read() -> None:
    async def main() -> None:
        stream = relay(Body(HELLO, USAGE))
        await stream.begin()
        assert await read_on(stream) == [HELLO, USAGE]
        assert stream.follower.reported_usage([]).output_tokens == 2  # type: ignore[union-attr]

    asyncio.run(main())


def test_a_last_event_of_usage_that_nobody_asked_for_is_taken_out_without_its_blank_line() -> None:
    assert relayed(Body(HELLO, USAGE), strip=True) == [HELLO]


def test_a_body_that_breaks_off_is_an_error_even_after_done() -> None:
    with pytest.raises(BadReply, match="broke off"):
        relayed(Body(HELLO, b"data: [DONE]\n\n", breaks=True))


def test_comments_before_the_first_event_go_to_the_client_before_it() -> None:
    assert relayed(Body(PING, PING, HELLO)) == [PING + PING + HELLO]


@pytest.mark.parametrize(
    "parts", [(PING, FAILED), (PING + FAILED,), (FAILED,), (PING, PING, FAILED)]
)
def test_an_error_as_first_event_is_found_behind_comments(parts: tuple[bytes, ...]) -> None:
    body = Body(*parts)
    with pytest.raises(BadReply, match="an error in the stream"):
        relayed(body)
    assert body.closed


def test_comments_alone_are_an_empty_stream() -> None:
    with pytest.raises(BadReply, match="empty"):
        relayed(Body(PING, PING))


def test_a_first_event_that_is_taken_out_promises_the_client_nothing_but_its_end() -> None:
    assert relayed(Body(USAGE + b"\n\n", HELLO), strip=True) == [HELLO]


def test_a_flood_of_comments_before_the_first_event_is_kept_up_to_its_bound() -> None:
    (first,) = relayed(Body(*[b": " + b"x" * 1020 + b"\n\n"] * 1000, HELLO))
    assert first.endswith(HELLO)
    assert len(first) <= COMMENTS_BYTES_MAX + len(HELLO)


def test_an_event_above_its_bound_fails_its_own_stream_and_gives_its_memory_back() -> None:
    async def main() -> None:
        buffers = Buffers(event_bytes_max=1 << 20, bytes_max=4 << 20)
        large = [b'data: {"x": "', *[b"a" * (64 << 10)] * 17]
        body = Body(HELLO, *large)
        stream = relay(body, buffers=buffers)
        await stream.begin()
        with pytest.raises(BadReply, match="max_event_bytes"):
            await read_on(stream)
        assert buffers.held > 0
        await stream.close("too large")
        assert buffers.held == 0
        first = relay(Body(*large), buffers=buffers)
        with pytest.raises(BadReply, match="max_event_bytes"):
            await first.begin()
        assert buffers.held == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "streamed"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; charset=utf-8", True),
        (b"text/event-stream ;charset=utf-8", True),
        (b"text/event-streams", False),
        (b"application/json", False),
    ],
)
def test_media_types_are_compared_without_regard_to_case_and_parameters(
    kind: bytes, streamed: bool
) -> None:
    assert is_stream(HttpReply(200, [(b"content-type", kind)], Body())) is streamed


def test_a_large_event_that_a_client_does_not_wait_for_is_read_by_whoever_reads_on() -> None:
    large = USAGE.replace(b'"choices": []', b'"choices": [], "x": [%b0]' % (b"[]," * 50_000))

    async def main() -> None:
        stream = relay(Body(HELLO, large + b"\n\n"), strip=True)
        await stream.begin()
        await stream.read()
        reading = asyncio.create_task(stream.read())
        while not reading.done() and stream._work is None:
            await asyncio.sleep(0)
        reading.cancel()
        assert stream.follower.reported_usage([]) is None or not stream.follower.usage.exact  # type: ignore[attr-defined]
        stream.follower.mute()
        await read_on(stream)
        usage = stream.follower.reported_usage([])
        assert usage is not None and usage.exact
        assert usage.output_tokens == 2

    asyncio.run(main())


def test_an_error_of_a_stream_is_short_where_it_is_logged() -> None:
    failed = b'data: {"error": {"message": "%b"}}\n\n' % (b"no" * 1_000_000)
    with pytest.raises(BadReply) as caught:
        relayed(Body(failed))
    assert len(str(caught.value)) < 2_000
