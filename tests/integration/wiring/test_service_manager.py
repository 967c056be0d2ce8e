"""A gateway that systemd starts says when it serves and when it stops."""

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from tests.support.configs import one_model
from tests.support.harness import run
from tests.support.http_client import http_client
from tests.support.process import Process, free_port

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("workers", "grace_s"), [(1, 0), (1, 1), (2, 0)])
def test_it_says_when_it_serves_and_when_it_stops(
    tmp_path: Path, workers: int, grace_s: int
) -> None:
    async def main() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        server = f'listen = "{url.removeprefix("http://")}"\nworkers = {workers}\n'
        config = one_model(
            "http://127.0.0.1:9",
            server=server + f"grace_s = {grace_s}",
            ledger="sqlite:///tollway.db",
        )
        file = tmp_path / "tollway.toml"
        file.write_text(config)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.setblocking(False)
            process = Process(file, variables={"NOTIFY_SOCKET": str(tmp_path / "notify")})
            try:
                assert await asyncio.wait_for(loop.sock_recv(manager, 100), 60) == b"READY=1"
                async with http_client(timeout=20) as http:
                    assert (await http.get(url + "/readyz")).status_code == 200
                process.tell(signal.SIGTERM)
                assert await asyncio.wait_for(loop.sock_recv(manager, 100), 60) == b"STOPPING=1"
                assert await asyncio.to_thread(process.wait) == 0
            finally:
                process.stop()

    run(main)
