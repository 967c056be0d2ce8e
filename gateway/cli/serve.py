"""Serves a configuration, in this process or in several worker processes behind one address."""

import asyncio
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tollway.gateway import settings as config
from tollway.gateway.listener import server as front
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.listener.request_head import HeadLimits
from tollway.gateway.observability import access_log
from tollway.gateway.observability.log_writer import Background
from tollway.gateway.settings import hard_bounds
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.wiring import Gateway, build
from tollway.gateway.wiring.reload import Reloader, check
from tollway.gateway.workers.identity import SharedCounters, WorkerIdentity
from tollway.gateway.workers.supervisor import OK, Start, Supervisor

log = logging.getLogger("tollway.serve")

THRESHOLDS = (2000, 20, 100)  # Python's defaults are 700, 10, 10


Read = Callable[[], config.Settings]


def serve(read: Read, note: str = "") -> int:
    """Serve until SIGTERM or SIGINT; once serving, print the address on stdout.

    `read` reads the configuration, at the start and at every SIGHUP. `note` is logged. Returns the
    exit code of the process. Raises ConfigError if the configuration is invalid at the start.
    """
    settings = read()
    access_log.write(settings.log.format, settings.log.level)
    for one in [note, *hard_bounds.notes(settings)]:
        if one:
            log.warning("%s", one)
    if settings.server.workers > 1:
        return _in_workers(settings, read)
    listener = front.bind(settings.server.listen)
    missed = note_hangups()
    with _logging(settings) as lines:
        gateway = build(settings, lines=lines)
        reloader = Reloader(gateway, read)
        _run(gateway, listener, reloader, lambda: _announce(listener, settings), missed)
    return OK


def note_hangups() -> list[int]:
    """Record each SIGHUP in the list returned, until the event loop takes the signal over.

    One that comes after the configuration was read and before the loop runs asks for a reload too.
    """
    missed: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, frame: missed.append(number))
    return missed


@contextmanager
def _logging(settings: config.Settings) -> Iterator[Background]:
    """Write this process' log in a thread; on exit, wait a limited time for it to be written."""
    lines = access_log.background(settings.log.format)
    access_log.write(settings.log.format, settings.log.level, lines.put)
    try:
        yield lines
    finally:
        lines.close()


def collect_seldom() -> None:
    """Freeze the objects built at startup, and make the garbage collector run less often.

    About sixty thousand objects live as long as the process. A full collection that walks them
    pauses the process for longer than a hundred requests take. See docs/decisions/0305.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def _announce(listener: socket.socket, settings: config.Settings) -> None:
    url = front.url_of(listener, "https" if settings.server.tls else "http")
    sys.stdout.write(f"tollway {version('tollway')} is listening on {url}\n")
    sys.stdout.flush()


def _run(
    gateway: Gateway,
    listener: socket.socket,
    reloader: Reloader,
    opened: Callable[[], None],
    missed: list[int],
    *,
    alone: bool = True,
) -> None:
    """Serve; `missed`: the hang-ups so far; `alone` if no other workers must be reloaded too."""
    server = gateway.settings.server

    def ready() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, reloader.begin)
        if missed:
            reloader.begin()
        collect_seldom()
        opened()

    gateway.opened = ready
    gateway.closed = reloader.close
    gateway.control.reload = reloader.reload if alone else reloader.ask_all
    limits = HeadLimits(
        fields=server.max_headers,
        head_bytes=server.max_header_bytes,
        body_bytes=server.max_body_bytes,
    )
    protocol = limited_protocol(limits, gateway.app.shape)
    gateway.limit_bodies = protocol.limit_bodies
    front.run(
        gateway.app,
        listen=listener,
        protocol=protocol,
        keep_alive_s=server.keep_alive_s,
        drain_s=server.drain_s,
        tls=reloader.tls,
        grace_s=server.grace_s,
        leaving=gateway.leave,
    )


def _in_workers(settings: config.Settings, read: Read) -> int:
    server = settings.server
    listeners = front.bind_each(server.listen, server.workers)
    board = SharedCounters(server.workers, [route.name for route in settings.routes])
    # Short, because a Unix socket's path has at most 107 bytes; and private to this user.
    folder = Path(tempfile.mkdtemp(prefix="tollway-"))

    def work(start: Start) -> int:
        missed = note_hangups()
        identity = WorkerIdentity(start.index, server.workers, folder, board)
        listener = listeners[start.index]
        for other in listeners:
            if other is not listener:
                other.close()
        with _logging(settings) as lines:
            gateway = build(newest(settings, read), identity=identity, lines=lines)
            reloader = Reloader(gateway, read)
            _run(gateway, listener, reloader, lambda: _ready(start), missed, alone=False)
        return OK

    def stop() -> None:
        for listener in listeners:
            listener.close()

    supervisor = Supervisor(
        work,
        server.workers,
        drain_s=server.grace_s + server.drain_s,
        on_ready=lambda: _announce(listeners[0], settings),
        on_stop=stop,
    )
    try:
        return supervisor.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def newest(settings: config.Settings, read: Read) -> config.Settings:
    """Return the current configuration, or the previous one if the current one is not usable."""
    try:
        now = read()
        check(settings, now)
    except ConfigError as exc:
        log.error("a worker starts with the previous configuration: %s", exc)
        return settings
    return now


def _ready(start: Start) -> None:
    """Report readiness to the supervisor, and stop if the supervisor exits."""
    os.write(start.ready_fd, bytes([start.index]))
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(start.alive_fd)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(start.alive_fd, gone)
