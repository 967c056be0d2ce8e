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
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tollway.gateway import settings as config
from tollway.gateway.cli import service_manager
from tollway.gateway.learning.device_costs import column
from tollway.gateway.listener import server as front
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.listener.request_head import HeadLimits
from tollway.gateway.observability import log_format
from tollway.gateway.observability.log_writer import Background
from tollway.gateway.security import admin_key
from tollway.gateway.settings import hard_bounds
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.settings.signals import notes as signal_notes
from tollway.gateway.storage import audit_log, folder_lock
from tollway.gateway.storage.audit_log import AuditLog
from tollway.gateway.wiring import Gateway, build, made_admin_key
from tollway.gateway.wiring.reload import Reloader, check
from tollway.gateway.wiring.settings_changes import checksum
from tollway.gateway.workers.identity import SharedCounters, WorkerIdentity
from tollway.gateway.workers.supervisor import OK, Start, Supervisor

log = logging.getLogger(__name__)

THRESHOLDS = (2000, 20, 100)  # Python's defaults are 700, 10, 10


Read = Callable[[], config.Settings]


def serve(read: Read, note: str = "") -> int:
    """Serve until SIGTERM or SIGINT; once serving, print the address on stdout.

    `read` reads the configuration, at the start and at every SIGHUP. `note` is logged. Returns the
    exit code of the process. Raises ConfigError if the configuration is invalid at the start.
    """
    settings = read()
    log_format.write(settings.log.format, settings.log.level)
    for one in [note, *hard_bounds.notes(settings), *signal_notes.notes(settings)]:
        if one:
            log.warning("%s", one)
    made = make_admin_key(settings)
    with _own_journal(settings), _recorded(settings, made):
        if settings.server.workers > 1:
            return _in_workers(settings, read, made)
        return _alone(settings, read, made)


@contextmanager
def _own_journal(settings: config.Settings) -> Iterator[None]:
    """Lock the journal's folder, for this gateway and its workers.

    Raises ConfigError if another gateway uses it, or if it cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_lock.held(settings.journal.dir))
        except folder_lock.FolderInUse as exc:
            why = f"{exc}; give each gateway a folder of its own"
            raise ConfigError([Problem("", "journal.dir", why)]) from None
        except OSError as exc:
            raise ConfigError([Problem("", "journal.dir", f"cannot be written: {exc}")]) from None
        yield


@contextmanager
def _recorded(settings: config.Settings, made: bool) -> Iterator[None]:
    """Write into the audit log that the gateway starts, whether it made a key, and its stop.

    If the log cannot be written, that is logged and the gateway serves.
    """
    audit = AuditLog(settings.state.dir / audit_log.NAME)

    def write(act: str, about: str) -> None:
        try:
            audit.write(act, audit_log.MACHINE, audit_log.DONE, about=about)
        except OSError as exc:
            log.error("the audit log cannot be written, so it lacks %r: %s", act, exc)

    if made:
        write("make admin key", str(settings.state.dir / admin_key.NAME))
    process = f"tollway {version('tollway')}, process {os.getpid()}"
    write("start", f"{process}, configuration {checksum(settings)[:16]}")
    try:
        yield
    finally:
        write("stop", process)


def _alone(settings: config.Settings, read: Read, made: bool) -> int:
    listener = front.bind(settings.server.listen)
    missed = note_hangups()
    with _logging(settings) as lines:
        gateway = build(settings, lines=lines)
        reloader = Reloader(gateway, read)

        def opened() -> None:
            _announce(listener, settings, made, gateway.grpc.address if gateway.grpc else "")

        _run(gateway, listener, reloader, opened, missed)
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
    lines = log_format.background(settings.log.format)
    log_format.write(settings.log.format, settings.log.level, lines.put)
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


def make_admin_key(settings: config.Settings) -> bool:
    """Make an admin key if none is configured; return whether it is new.

    Raises ConfigError if it cannot be written, or if the one made earlier is unusable.
    """
    server = settings.server
    if server.admin_key is not None or server.admin_key_hash is not None:
        return False
    try:
        made = admin_key.make(settings.state.dir)
    except OSError as exc:
        why = f"an admin key cannot be written: {exc}"
        raise ConfigError([Problem("", "state.dir", why)]) from None
    made_admin_key(settings)
    return made


def _announce(
    listener: socket.socket, settings: config.Settings, made: bool, grpc: str = ""
) -> None:
    """Print the address, that of the listener for gRPC if there is one, and a new admin key.

    The key is in the fragment of the dashboard's address, which browsers never send: no access log
    and no Referer field contains it. A service manager is told too.
    """
    url = front.url_of(listener, "https" if settings.server.tls else "http")
    sys.stdout.write(f"tollway {version('tollway')} is listening on {url}\n")
    if grpc:
        sys.stdout.write(f"gRPC: {grpc}\n")
    if made and (key := made_admin_key(settings)) is not None:
        path = settings.state.dir / admin_key.NAME
        page = f"{url}/_tollway/dashboard#key={key}" if url.startswith("http") else key
        sys.stdout.write(
            f"No admin key is configured, so one was made (it is in {path}).\n"
            f"Open the dashboard with it: {page}\n"
        )
    sys.stdout.flush()
    service_manager.tell(service_manager.READY)


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

    # The supervisor of several workers tells it itself: only the main process may.
    told = partial(service_manager.tell, service_manager.STOPPING) if alone else _nothing

    def ready() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, reloader.begin)
        if missed:
            reloader.begin()
        collect_seldom()
        opened()

    def leaving() -> None:
        told()
        gateway.leave()

    def stopping() -> None:
        told()
        gateway.drain()

    gateway.opened = ready
    gateway.closed = reloader.close
    gateway.control.reload = reloader.reload if alone else reloader.ask_all
    limits = HeadLimits(
        fields=server.max_headers,
        head_bytes=server.max_header_bytes,
        body_bytes=server.max_body_bytes,
    )
    protocol = limited_protocol(limits, gateway.app.shape, gateway.app.caller, gateway.app.begin)
    gateway.limit_bodies = protocol.limit_bodies
    front.run(
        gateway.app,
        listen=listener,
        protocol=protocol,
        keep_alive_s=server.keep_alive_s,
        drain_s=server.drain_s,
        tls=reloader.tls,
        grace_s=server.grace_s,
        leaving=leaving,
        stopping=stopping,
    )


def _in_workers(settings: config.Settings, read: Read, made: bool) -> int:
    server = settings.server
    listeners = front.bind_each(server.listen, server.workers)
    grpc = None if settings.grpc is None else front.hold(settings.grpc.listen)
    devices = [column(backend.name) for backend in settings.backends if backend.device]
    board = SharedCounters(server.workers, [*[r.name for r in settings.routes], *devices])
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
            if gateway.grpc is not None and grpc is not None:
                gateway.grpc.share(front.address_of(grpc))
            reloader = Reloader(gateway, read)
            _run(gateway, listener, reloader, lambda: _ready(start), missed, alone=False)
        return OK

    def stop() -> None:
        service_manager.tell(service_manager.STOPPING)
        for listener in listeners:
            listener.close()
        if grpc is not None:
            grpc.close()

    supervisor = Supervisor(
        work,
        server.workers,
        drain_s=server.grace_s + server.drain_s,
        on_ready=lambda: _announce(
            listeners[0], settings, made, front.address_of(grpc) if grpc else ""
        ),
        on_stop=stop,
    )
    try:
        return supervisor.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _nothing() -> None:
    pass


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
