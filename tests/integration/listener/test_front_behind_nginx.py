"""The corpus through an nginx: nginx and the listener must count the same requests."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests.support.corpus import REFUSED, SERVED
from tests.support.nginx import nginx_before
from tests.support.raw_client import LIMITS, Client, Recorder, client_deadline, statuses
from tollway.gateway.listener import server as front

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], None]]:
    """Send bytes through an nginx that keeps its connection to the listener, and compare."""
    app = Recorder()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        serving = front.serving(app, limits=LIMITS)
        _, upstream = runner.run(serving.__aenter__())
        with nginx_before(upstream, tmp_path_factory.mktemp("nginx")) as port:
            client = Client(("127.0.0.1", port))

            def check(sent: bytes) -> None:
                app.whole.clear()
                answered = statuses(runner.run(client_deadline(client, sent)))
                # A 200 is the application's. Were two requests read where nginx sent one, or one
                # left over for the next client of its connection, there would be more than those.
                assert len(app.whole) == answered.count(200)

            yield check
        runner.run(serving.__aexit__(None, None, None))


@pytest.mark.parametrize("name", [*REFUSED, *SERVED])
def test_nginx_and_the_listener_count_the_same_requests(
    name: str, behind: Callable[[bytes], None]
) -> None:
    behind((REFUSED | SERVED)[name][0])  # type: ignore[operator]
