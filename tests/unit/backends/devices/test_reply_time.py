"""Device time from the header fields of a reply."""

import asyncio

import pytest

from tollway.backends.devices.reply_time import (
    TimedTransport,
    from_field,
    from_server_timing,
)
from tollway.backends.documents import header
from tollway.backends.types import Call, Headers, HttpReply


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"x-compute-ms", b"12.5")], 0.0125),
        ([(b"x-compute-ms", b"soon")], None),
        ([(b"x-compute-ms", b"-1")], None),
        ([(b"x-compute-ms", b"nan")], None),
        ([(b"x-compute-ms", b"0")], None),
        ([], None),
    ],
)
def test_a_field_is_read_in_its_unit(headers: Headers, seconds: float | None) -> None:
    assert from_field(b"x-compute-ms", 1e-3)(headers) == seconds


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([b"queue;dur=3, gpu;dur=41.5"], 0.0415),
        ([b'cache;desc="a, b"', b'gpu;desc="x";dur="2"'], 0.002),
        ([b"gpu ; dur = 7"], 0.007),
        ([b"gpus;dur=7"], None),
        ([b"gpu"], None),
        ([], None),
    ],
)
def test_one_metric_of_server_timing_is_read(values: list[bytes], seconds: float | None) -> None:
    headers = [(b"server-timing", value) for value in values]
    assert from_server_timing(b"gpu")(headers) == seconds


class Server:
    """A transport with one reply."""

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.is_closed = False

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        return HttpReply(200, self.headers, None)  # type: ignore[arg-type] - it is never read

    async def aclose(self) -> None:
        self.is_closed = True


def test_the_seconds_replace_a_server_s_own_report() -> None:
    server = Server([(b"x-ms", b"8"), (b"x-device-seconds", b"1")])
    timed = TimedTransport(server, from_field(b"x-ms", 1e-3))
    reply = asyncio.run(timed.send(Call(b"GET", b"/", []), 1.0))
    assert header(reply.headers, b"x-device-seconds") == b"0.008"
    assert server.headers == [(b"x-ms", b"8"), (b"x-device-seconds", b"1")]
    asyncio.run(timed.aclose())
    assert server.is_closed
