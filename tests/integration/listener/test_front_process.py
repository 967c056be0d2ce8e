"""The listener as a process: how it starts, and how it stops."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.corpus import HOST, get
from tests.support.nginx import wait_for
from tests.support.process import free_port

pytestmark = pytest.mark.integration

APP = """
import asyncio, sys
from tollway.gateway.listener import server

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            print(message["type"], flush=True)
            await send({"type": message["type"] + ".complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b"last"})

server.run(app, listen=sys.argv[1], drain_s=120)
"""


@contextmanager
def running(port: int) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", APP, f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            wait_for(port, process)
            yield process
        finally:
            process.kill()


def test_sigterm_ends_streams_under_way_and_takes_no_more() -> None:
    port = free_port()

    async def main() -> None:
        with running(port) as process:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get(b"/", HOST))
            await reader.readuntil(b"first")
            silent = socket.create_connection(("127.0.0.1", port))
            half = socket.create_connection(("127.0.0.1", port))
            half.send(b"GET / HT")
            await asyncio.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert (await reader.read()).endswith(b"last\r\n0\r\n\r\n")
            await asyncio.to_thread(process.wait, 60)  # below `drain_s`: nobody held it up
            assert process.stdout is not None
            assert process.stdout.read() == b"lifespan.startup\nlifespan.shutdown\n"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            for one in (silent, half):
                one.close()
            writer.close()

    asyncio.run(main())


def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-c", APP, listen]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        assert done.returncode != 0
        assert b"Address already in use" in done.stderr
