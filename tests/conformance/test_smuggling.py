"""The corpus through a whole gateway: the backend never receives two requests for one."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from tests.conformance.between import Between, between
from tests.support.corpus import REFUSED, SERVED
from tests.support.nginx import nginx_before
from tests.support.raw_client import Client, client_deadline, statuses
from tollway.gateway.listener.request_head import HeadLimits

pytestmark = pytest.mark.integration

LIMITS = HeadLimits(body_bytes=20_000)
Exchange = Callable[[bytes], tuple[list[int], list[tuple[bytes, bytes]]]]


def as_json(sent: bytes) -> bytes:
    """Return a payload of the corpus with JSON bodies; others would not be forwarded."""
    whole = b"1\r\n{\r\n2;x=y\r\n }"
    return sent.replace(b"abc", b"{ }").replace(b"1\r\na\r\n2;x=y\r\nbc", whole)


@pytest.fixture(scope="module", params=["direct", "behind nginx"])
def exchange(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exchange]:
    """Send bytes; return the statuses, and the requests that the backend received."""
    folder: Path = tmp_path_factory.mktemp("smuggling")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, ExitStack() as stack:
        opened = between(folder, limits=LIMITS)
        both: Between = runner.run(opened.__aenter__())
        client = both.client
        if request.param == "behind nginx":
            port = stack.enter_context(nginx_before(client.address[1], folder))
            client = Client(("127.0.0.1", port))

        def exchanged(sent: bytes) -> tuple[list[int], list[tuple[bytes, bytes]]]:
            both.backend.requests.clear()
            reply = runner.run(client_deadline(client, sent))
            return statuses(reply), list(both.backend.requests)

        yield exchanged
        stack.close()
        runner.run(opened.__aexit__(None, None, None))


@pytest.mark.parametrize("name", [*REFUSED, *SERVED])
def test_the_backend_receives_as_many_requests_as_were_answered(
    name: str, exchange: Exchange
) -> None:
    sent = (REFUSED[name] if name in REFUSED else SERVED[name])[0]
    told, seen = exchange(as_json(sent))
    assert len(seen) == told.count(200)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("exchange", ["direct"], indirect=True)
def test_what_the_listener_refuses_reaches_no_backend(name: str, exchange: Exchange) -> None:
    told, seen = exchange(as_json(REFUSED[name][0]))
    assert told == [REFUSED[name][1]]
    assert seen == []


# A wildcard passes on no path that means another one once it is decoded.
NOT_PASSED_ON = "what is encoded stays so"


@pytest.mark.parametrize("exchange", ["direct"], indirect=True)
def test_a_path_that_decodes_to_another_reaches_no_backend(exchange: Exchange) -> None:
    assert exchange(as_json(SERVED[NOT_PASSED_ON][0])) == ([404], [])


@pytest.mark.parametrize("name", sorted({*SERVED} - {"OPTIONS *", NOT_PASSED_ON}))
@pytest.mark.parametrize("exchange", ["direct"], indirect=True)
def test_an_unusual_valid_request_reaches_the_backend_as_one_plain_request(
    name: str, exchange: Exchange
) -> None:
    sent, path, body = SERVED[name]
    told, seen = exchange(as_json(sent))
    assert told == [200]
    ((head, arrived),) = seen
    target = head.split(b" ")[1]
    assert target.partition(b"?")[0] == path
    assert arrived == as_json(body)
    assert b"transfer-encoding" not in head.lower()
    assert head.lower().count(b"content-length:") <= 1
    assert head.lower().count(b"\r\nhost:") == 1
