"""The corpus through an nginx: what two readers make of it must agree."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.integration.backends.test_http2 import free_port, wait_for
from tests.integration.listener.test_front import LIMITS, Client, Recorder, statuses
from tests.support.corpus import REFUSED, SERVED
from tollway.gateway.listener import server as front

pytestmark = pytest.mark.integration

NGINX = """
daemon off; pid {folder}/pid; error_log /dev/null;
events {{}}
http {{
  access_log off; client_max_body_size 0; ignore_invalid_headers off; underscores_in_headers on;
  large_client_header_buffers 8 64k; merge_slashes off;
  keepalive_timeout 100ms; client_header_timeout 100ms; client_body_timeout 100ms;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_request_buffering off;
      proxy_set_header Connection ""; proxy_set_header Host $http_host;
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], None]]:
    """Send bytes through an nginx that keeps its connection to the front, and compare."""
    assert shutil.which("nginx"), "this test needs nginx: apt-get install nginx"
    app = Recorder()
    folder: Path = tmp_path_factory.mktemp("nginx")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        serving = front.serving(app, limits=LIMITS)
        _, upstream = runner.run(serving.__aenter__())
        port = free_port()
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
        with subprocess.Popen(["nginx", "-c", config, "-p", folder]) as process:
            wait_for(port, process)
            client = Client(("127.0.0.1", port))

            def check(sent: bytes) -> None:
                app.whole.clear()
                answered = statuses(runner.run(client_deadline(client, sent)))
                # A 200 is the application's. Were two requests read where nginx sent one, or one
                # left over for the next client of its connection, there would be more than those.
                assert len(app.whole) == answered.count(200)

            yield check
            process.terminate()
        runner.run(serving.__aexit__(None, None, None))


async def client_deadline(client: Client, sent: bytes) -> bytes:
    """Say it as far as nginx listens: what it refuses early cannot be sent whole."""
    reader, writer = await client.open()
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("name", [*REFUSED, *SERVED])
def test_nginx_and_the_front_count_the_same_requests(
    name: str, behind: Callable[[bytes], None]
) -> None:
    behind((REFUSED | SERVED)[name][0])  # type: ignore[operator]
