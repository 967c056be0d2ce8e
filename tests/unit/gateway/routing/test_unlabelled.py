"""A body without a clear content type is a stream if it begins with an event."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tollway.backends.errors import BadReply
from tollway.backends.types import Headers, HttpReply
from tollway.gateway.routing.replies.stream_relay import is_stream
from tollway.gateway.routing.replies.unlabelled import labelled

EVENT = b'data: {"choices": []}\n\n'


class Body:
    def __init__(self, *parts: bytes, breaks: bool = False) -> None:
        self._parts, self._breaks = parts, breaks
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            self.taken += 1
            yield part
        if self._breaks:
            raise BadReply("the connection broke off")

    async def aclose(self) -> None:
        self.closed = True


def reply(body: Body, label: bytes | None, status: int = 200) -> HttpReply:
    headers: Headers = [(b"x-request-id", b"r")]
    if label is not None:
        headers.append((b"content-type", label))
    return HttpReply(status, headers, body)


@pytest.mark.parametrize("label", [None, b"text/plain", b"application/octet-stream", b"", b"x"])
@pytest.mark.parametrize(
    "first", [EVENT, b": ping\n\n", b"event: a\n" + EVENT, b"\xef\xbb\xbf" + EVENT, b"\n" + EVENT]
)
def test_a_body_that_begins_with_an_event_is_a_stream_and_every_byte_is_forwarded(
    label: bytes | None, first: bytes
) -> None:
    async def main() -> None:
        body = Body(first, EVENT)
        found = await labelled(reply(body, label))
        assert is_stream(found)
        assert body.taken == 1
        assert [value for name, value in found.headers if name == b"x-request-id"] == [b"r"]
        assert await found.read(1000) == first + EVENT
        assert body.closed

    asyncio.run(main())


@pytest.mark.parametrize("first", [b'{"choices": []}', b"", b"database is down", b"<html>", b"  "])
def test_any_other_body_is_no_stream_and_is_read_whole(first: bytes) -> None:
    async def main() -> None:
        body = Body(first, b" and more")
        found = await labelled(reply(body, None))
        assert not is_stream(found)
        assert await found.read(1000) == first + b" and more"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("label", "status"), [(b"Text/Event-Stream", 200), (b"application/json", 200), (None, 500)]
)
def test_a_labelled_body_is_not_inspected(label: bytes | None, status: int) -> None:
    async def main() -> None:
        body = Body(EVENT)
        given = reply(body, label, status)
        assert await labelled(given) is given
        assert body.taken == 0

    asyncio.run(main())


def test_a_body_that_breaks_off_at_once_is_closed() -> None:
    async def main() -> None:
        body = Body(breaks=True)
        with pytest.raises(BadReply):
            await labelled(reply(body, None))
        assert body.closed

    asyncio.run(main())


def test_an_empty_body_is_an_empty_body() -> None:
    async def main() -> None:
        assert await (await labelled(reply(Body(), None))).read(10) == b""

    asyncio.run(main())
