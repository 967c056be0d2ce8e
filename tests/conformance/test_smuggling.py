"""The corpus through a whole gateway to a backend: never two requests where one was sent."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.conformance.between import Between, between
from tests.integration.backends.test_http2 import free_port, wait_for
from tests.integration.listener.test_front import Client, statuses
from tests.integration.listener.test_front_behind_nginx import NGINX, client_deadline
from tests.support.corpus import REFUSED, SERVED
from tollway.gateway.listener.request_head import HeadLimits

pytestmark = pytest.mark.integration

LIMITS = HeadLimits(body_bytes=20_000)
Exchange = Callable[[bytes], tuple[list[int], list[tuple[bytes, bytes]]]]


def as_json(sent: bytes) -> bytes:
    """Return a payload of the corpus with bodies that are JSON: others would go no further."""
    whole = b"1\r\n{\r\n2;x=y\r\n }"
    return sent.replace(b"abc", b"{ }").replace(b"1\r\na\r\n2;x=y\r\nbc", whole)


@pytest.fixture(scope="module", params=["direct", "behind nginx"])
def exchange(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exchange]:
    """Send bytes; return the statuses that came back, and the requests that the backend saw."""
    folder: Path = tmp_path_factory.mktemp("smuggling")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        opened = between(folder, limits=LIMITS)
        both: Between = runner.run(opened.__aenter__())
        client, process = both.client, None
        if request.param == "behind nginx":
            assert shutil.which("nginx"), "this test needs nginx: apt-get install nginx"
            port = free_port()
            config = folder / "nginx.conf"
            upstream = client.address[1]
            config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
            process = subprocess.Popen(["nginx", "-c", config, "-p", folder])
            wait_for(port, process)
            client = Client(("127.0.0.1", port))

        def exchanged(sent: bytes) -> tuple[list[int], list[tuple[bytes, bytes]]]:
            both.backend.requests.clear()
            reply = runner.run(client_deadline(client, sent))
            return statuses(reply), list(both.backend.requests)

        yield exchanged
        if process is not None:
            process.terminate()
            process.wait()
        runner.run(opened.__aexit__(None, None, None))


@pytest.mark.parametrize("name", [*REFUSED, *SERVED])
def test_the_backend_sees_as_many_requests_as_were_answered(name: str, exchange: Exchange) -> None:
    sent = (REFUSED[name] if name in REFUSED else SERVED[name])[0]
    told, seen = exchange(as_json(sent))
    assert len(seen) == told.count(200)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("exchange", ["direct"], indirect=True)
def test_what_the_front_refuses_reaches_no_backend(name: str, exchange: Exchange) -> None:
    told, seen = exchange(as_json(REFUSED[name][0]))
    assert told == [REFUSED[name][1]]
    assert seen == []


@pytest.mark.parametrize("name", sorted({*SERVED} - {"OPTIONS *"}))
@pytest.mark.parametrize("exchange", ["direct"], indirect=True)
def test_what_is_merely_odd_reaches_the_backend_as_one_plain_request(
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
