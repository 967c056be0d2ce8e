"""Serves a configuration: in this process, or in several behind one address."""

import asyncio
import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from gateway import front
from gateway import settings as config
from gateway.heads import Limits
from gateway.seat import Board, Seat
from gateway.supervisor import OK, Start, Supervisor
from gateway.wiring import Gateway, build

THRESHOLDS = (2000, 20, 100)  # Python's own are 700, 10, 10


def serve(settings: config.Settings) -> int:
    """Serve until SIGTERM or SIGINT; a line on stdout says where, once it does.

    Returns the exit code of the process.
    """
    if settings.server.workers > 1:
        return _in_workers(settings)
    listener = front.bind(settings.server.listen)
    _run(build(settings), listener, lambda: _announce(listener))
    return OK


def collect_seldom() -> None:
    """Have the garbage collector pass over what was built at the start, and look at requests less.

    Some sixty thousand objects live as long as the process: a full collection that walks them stops
    everything for longer than a hundred requests take. See docs/decisions/0305.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def _announce(listener: socket.socket) -> None:
    sys.stdout.write(f"tollway {version('tollway')} is listening on {front.url_of(listener)}\n")
    sys.stdout.flush()


def _run(gateway: Gateway, listener: socket.socket, opened: Callable[[], None]) -> None:
    server = gateway.settings.server

    def ready() -> None:
        collect_seldom()
        opened()

    gateway.opened = ready
    front.run(
        gateway.app,
        listen=listener,
        limits=Limits(
            fields=server.max_headers,
            head_bytes=server.max_header_bytes,
            body_bytes=server.max_body_bytes,
        ),
        keep_alive_s=server.keep_alive_s,
        drain_s=server.drain_s,
    )


def _in_workers(settings: config.Settings) -> int:
    server = settings.server
    listeners = front.bind_each(server.listen, server.workers)
    board = Board(server.workers, [route.name for route in settings.routes])
    # Short, for a Unix socket's path has at most 107 bytes; and nobody else's.
    folder = Path(tempfile.mkdtemp(prefix="tollway-"))

    def work(start: Start) -> int:
        seat = Seat(start.index, server.workers, folder, board)
        listener = listeners[start.index]
        for other in listeners:
            if other is not listener:
                other.close()
        _run(build(settings, seat=seat), listener, lambda: _ready(start))
        return OK

    def stop() -> None:
        for listener in listeners:
            listener.close()

    supervisor = Supervisor(
        work,
        server.workers,
        drain_s=server.drain_s,
        on_ready=lambda: _announce(listeners[0]),
        on_stop=stop,
    )
    try:
        return supervisor.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ready(start: Start) -> None:
    """Tell the supervisor, and from now on watch that it is there."""
    os.write(start.ready_fd, bytes([start.index]))
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(start.alive_fd)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(start.alive_fd, gone)
