"""Serves an ASGI application with uvicorn's server and `LimitedHttpProtocol`."""

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from tollway.gateway.listener.http_protocol import LimitedHttpProtocol, limited_protocol, never
from tollway.gateway.listener.request_head import HeadLimits

ACCEPTED = 16  # connections in an iteration: a millisecond

__all__ = ["HeadLimits", "bind", "bind_each", "run", "server", "serving"]


def bind(listen: str, backlog: int = 2048, *, shared: bool = False) -> socket.socket:
    """Return a socket bound to `host:port`, `[ipv6]:port` (port 0: any free one) or `unix:/path`.

    `shared` lets other processes of this user bind the same port. Raises ValueError for another
    form and OSError if the address cannot be bound.
    """
    if listen.startswith("unix:"):
        return _bind_unix(listen.removeprefix("unix:"), backlog)
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{listen!r} is neither host:port nor unix:/path")
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    where = (bare, int(port))
    made = socket.create_server(where, family=family, backlog=backlog, reuse_port=shared)
    # asyncio turns Nagle's algorithm off only if the socket is declared as TCP, and connections
    # inherit that from their listener. Without this, a reply of two writes waits 40 ms for an ACK.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())


def bind_each(listen: str, count: int) -> list[socket.socket]:
    """Return `count` sockets bound to one address; the kernel balances connections among them.

    For a Unix socket it is one socket, `count` times: an idle worker accepts the connection.
    """
    first = bind(listen)  # not shared: it fails if another gateway of this user has the port
    if first.family == socket.AF_UNIX:
        return [first] * count
    host, _, _ = listen.rpartition(":")
    port = first.getsockname()[1]
    first.close()
    return [bind(f"{host}:{port}", shared=True) for _ in range(count)]


def hold(listen: str) -> socket.socket:
    """Return a socket that keeps a `host:port` for servers that bind it themselves (SO_REUSEPORT).

    It does not listen, so it gets no connections. Raises OSError if another process has the
    address.
    """
    host, _, _ = listen.rpartition(":")
    with bind(listen) as first:  # not shared: it fails if another gateway of this user has the port
        family, port = first.family, first.getsockname()[1]
    held = socket.socket(family, socket.SOCK_STREAM)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        held.setsockopt(socket.SOL_SOCKET, option, 1)
    held.bind((host.strip("[]"), port))
    return held


def address_of(listener: socket.socket) -> str:
    """Return the `host:port` of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Return the URL of a bound socket."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{address}"
    return f"{scheme}://{address_of(listener)}"


class Server(uvicorn.Server):
    """uvicorn's server, which serves for a grace period after SIGTERM so that others notice."""

    # The mutable state is its event loop, and whether it has been asked to stop.

    def __init__(
        self,
        config: uvicorn.Config,
        grace_s: float,
        leaving: Callable[[], None],
        handshake_s: float,
        stopping: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._grace_s = grace_s
        self._handshake_s = handshake_s
        self._leaving = leaving
        self._stopping = stopping
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, on copies of each socket too.

        libuv accepts one connection of a socket in each iteration of the loop. When a flood makes
        iterations long and opens connections, those of others would wait in the kernel for seconds.
        """
        loop = self._loop = asyncio.get_running_loop()
        if sockets is not None:
            sockets = [copy for one in sockets for copy in _copies(one)]
        if not self.config.is_ssl:
            await super().startup(sockets)
            return
        # uvicorn sets no handshake timeout, and the default of asyncio is a minute.
        create_server = loop.create_server
        client_deadline = partial(create_server, ssl_handshake_timeout=self._handshake_s)
        loop.create_server = client_deadline  # type: ignore[method-assign]
        try:
            await super().startup(sockets)
        finally:
            loop.create_server = create_server  # type: ignore[method-assign]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and let requests in progress finish."""
        self._stopping()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after the grace period on SIGTERM; at once on SIGINT or a second signal."""
        if sig != signal.SIGTERM or self._left or not self._grace_s or self._loop is None:
            super().handle_exit(sig, frame)
            return
        self._left = True
        self._leaving()
        later = partial(super().handle_exit, sig, None)
        self._loop.call_soon_threadsafe(self._loop.call_later, self._grace_s, later)


def server(
    app: Any,
    *,
    limits: HeadLimits | None = None,
    protocol: type[LimitedHttpProtocol] | None = None,
    connections: int = 10_000,
    keep_alive_s: float = 75.0,
    drain_s: float = 30.0,
    log_level: str = "warning",
    tls: ssl.SSLContext | None = None,
    grace_s: float = 0.0,
    leaving: Callable[[], None] = lambda: None,
    stopping: Callable[[], None] = lambda: None,
) -> uvicorn.Server:
    """Return the server of an ASGI application; it still needs a socket (`bind`) to serve.

    An idle connection is kept for `keep_alive_s` (nginx keeps its connections to the gateway for
    60 s, and must be the first to close). On SIGTERM, `leaving` is called and requests are served
    for `grace_s` more; then `stopping` is called, no more are accepted, and those in progress have
    `drain_s` to finish.
    The application sets `date` and `server` itself, so that a proxied reply has them once.
    `protocol` is for callers that change its limits later (see `limited_protocol`); otherwise it is
    created with `limits` and `connections`, and with the `begin` of the application, if it has one.
    """
    if protocol is None:
        protocol = limited_protocol(
            replace(limits or HeadLimits(), connections=connections),
            begin=getattr(app, "begin", never),
        )
    logging.getLogger("uvicorn.error").addFilter(_is_unexpected)  # once, however often it is called
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        loop="auto",
        interface="asgi3",
        access_log=False,
        log_level=log_level,
        log_config=None,  # the process configures logging itself
        date_header=False,
        server_header=False,
        proxy_headers=False,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
        timeout_keep_alive=keep_alive_s,  # type: ignore[arg-type] # any number works
        timeout_graceful_shutdown=drain_s,  # type: ignore[arg-type]
    )
    return Server(config, grace_s, leaving, protocol.limits.head_s, stopping)


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Drop uvicorn's error about a response without an end.

    That is how a stream that broke off is told from a complete one, as often as backends hang up.
    """
    return record.msg != "ASGI callable returned without completing response."


def run(app: Any, *, listen: str | socket.socket, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT; `options` are those of `server`."""
    bound = bind(listen) if isinstance(listen, str) else listen
    one = server(app, **options)
    # uvicorn handles the signal once it runs, and raises it again when it has stopped. A signal
    # before that must not be lost; one raised after it needs no action.
    signal.signal(signal.SIGTERM, one.handle_exit)
    one.run(sockets=[bound])


@asynccontextmanager
async def serving(
    app: Any, *, listen: str = "127.0.0.1:0", **options: Any
) -> AsyncIterator[tuple[str, int]]:
    """Serve inside the running loop, and yield the bound address; for tests and demos."""
    bound = bind(listen)
    one = server(app, **options)
    task = asyncio.create_task(one.serve(sockets=[bound]))
    try:
        while not one.started and not task.done():  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.001)
        if task.done():
            await task
        yield bound.getsockname()[:2]
    finally:
        one.should_exit = True
        await task
        for connection in list(
            one.server_state.connections
        ):  # connections still open after `drain_s`
            connection.transport.abort()
        await asyncio.sleep(0)


def _copies(one: socket.socket) -> list[socket.socket]:
    """Return a socket and its copies; whoever serves them closes them."""
    return [one, *[one.dup() for _ in range(ACCEPTED - 1)]]


def _bind_unix(path: str, backlog: int) -> socket.socket:
    with suppress(FileNotFoundError):
        if Path(path).is_socket():  # left by a process that was killed
            Path(path).unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(path)
    bound.listen(backlog)
    return bound
