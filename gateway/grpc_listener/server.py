"""Serves the methods with grpcio's asyncio server, in the gateway's own event loop.

The only file that knows grpcio, and it is imported only if gRPC is configured. Why grpcio:
docs/decisions/0335.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
from grpc import aio

from tollway.backends.types import Headers
from tollway.gateway.grpc_listener.conversion import aside
from tollway.gateway.grpc_listener.exchange import Caller, Exchange
from tollway.gateway.grpc_listener.failures import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    INVALID_ARGUMENT,
    Failed,
)
from tollway.gateway.grpc_listener.methods import REFUSED, STREAM, Method, Methods, refusal
from tollway.gateway.grpc_listener.schema import SERVICE, Schema
from tollway.gateway.grpc_listener.slots import CallSlots

log = logging.getLogger(__name__)

_STATUSES = {code.value[0]: code for code in grpc.StatusCode}
SETTLED_S = 5.0  # for calls that were cancelled: a settlement takes milliseconds
# Beyond `max_body_bytes`, which counts the same request over REST: names, shapes, parameters.
_ENVELOPE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM format: see `[server.tls]`."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of the server.

    `calls`: calls and open streams at once. `idle_s`: how long a connection without any is kept,
    and how long a call waits for a message. `drain_s`: how long calls may take to finish at the
    end.
    """

    calls: int
    connections: int
    message_bytes: int
    reply_bytes: int
    metadata_bytes: int
    idle_s: int
    drain_s: int


class GrpcServer:
    """The listener for gRPC."""

    # The mutable state is the server, once it is open, its address, and the task that stops it.

    def __init__(
        self,
        app: Any,
        listen: str,
        *,
        limits: Limits,
        tls: TlsFiles | None = None,
        json_models: Collection[str] = (),
    ) -> None:
        """`app` is the gateway's ASGI application; `listen` is `host:port`.

        `json_models`: see `Methods`.
        """
        self._json_models = json_models
        self._listen = listen
        self._limits = limits
        self._certificates = None if tls is None else _Certificates(tls)
        self._shared = False
        self._server: Any = None
        self._stopping: asyncio.Task[None] | None = None
        self._exchange = Exchange(
            app, scheme="https" if tls else "http", reply_bytes_max=limits.reply_bytes
        )
        self.address = listen

    def share(self, listen: str) -> None:
        """Listen on an address together with other processes of this user (SO_REUSEPORT)."""
        self._listen, self._shared = listen, True

    async def open(self) -> None:
        """Start to serve; OSError if the address cannot be bound."""
        server = aio.server(options=self._options())
        handlers = _Service(self._exchange, self._limits, self._json_models).handlers()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            port = (
                server.add_insecure_port(self._listen)
                if self._certificates is None
                else server.add_secure_port(self._listen, self._certificates.credentials())
            )
        except RuntimeError as exc:
            raise OSError(f"grpc.listen {self._listen!r} cannot be bound: {exc}") from exc
        await server.start()
        self._server = server
        self.address = f"{self._listen.rpartition(':')[0]}:{port}"

    def renew(self) -> None:
        """Read the files of TLS again; OSError if they cannot be read."""
        if self._certificates is not None:
            self._certificates.renew()

    def drain(self) -> None:
        """Accept no more calls; those in progress have `drain_s` to finish, then are cancelled."""
        if self._server is not None and self._stopping is None:
            stopping = self._server.stop(self._limits.drain_s)
            self._stopping = asyncio.create_task(stopping)

    async def close(self) -> None:
        """Drain, and return when no call is left."""
        self.drain()
        if self._stopping is not None:
            await self._stopping
            await self._exchange.close(SETTLED_S)

    def _options(self) -> list[tuple[str, Any]]:
        limits = self._limits
        return [
            ("grpc.so_reuseport", int(self._shared)),
            ("grpc.max_receive_message_length", limits.message_bytes + _ENVELOPE_BYTES),
            ("grpc.max_send_message_length", -1),  # replies are limited where they arrive
            ("grpc.max_metadata_size", limits.metadata_bytes),
            ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
            ("grpc.max_allowed_incoming_connections", limits.connections),
            ("grpc.max_concurrent_streams", limits.calls),
            ("grpc.max_connection_idle_ms", limits.idle_s * 1000),
            ("grpc.keepalive_time_ms", limits.idle_s * 1000),  # finds peers that have vanished
        ]


class _Certificates:
    """The certificate that new connections get; grpcio asks for it at each handshake."""

    # The mutable state is the certificate.

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._now = self._read()

    def _read(self) -> Any:
        files = self._files
        ca = None if files.client_ca is None else files.client_ca.read_bytes()
        pair = (files.key.read_bytes(), files.cert.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=ca)

    def renew(self) -> None:
        self._now = self._read()

    def credentials(self) -> Any:
        return grpc.dynamic_ssl_server_credentials(
            self._now,
            lambda: self._now,
            require_client_authentication=self._files.client_ca is not None,
        )


class _Service:
    """The methods as grpcio wants them; they get and return messages as bytes.

    All are registered as if the client sent a stream, which is the same on the wire: grpcio would
    read the message of a call before anything could refuse it, and wait for it for ever.
    """

    def __init__(self, exchange: Exchange, limits: Limits, json_models: Collection[str]) -> None:
        self._exchange = exchange
        self._schema = Schema()
        self._methods = Methods(exchange, self._schema, json_models)
        self._slots = CallSlots(limits.calls)
        self._idle_s = limits.idle_s

    def handlers(self) -> dict[str, Any]:
        """Return the handler of each method."""
        handlers = {
            name: grpc.stream_unary_rpc_method_handler(self._unary(method, f"{name}Request"))
            for name, method in self._methods.unary.items()
        }
        handlers[STREAM] = grpc.stream_stream_rpc_method_handler(self._stream)
        for name in REFUSED:
            handlers[name] = grpc.stream_unary_rpc_method_handler(self._refused(name))
        return handlers

    def _unary(self, method: Method, name: str) -> Any:
        async def serve(requests: Any, context: Any) -> Any:
            async with _failing(context):
                caller = _caller(context)
                needs_key = method not in self._methods.need_no_key
                with self._slots.taken(self._exchange.who(caller, needs_key=needs_key)):
                    raw = await self._message(context)
                    if raw is aio.EOF:
                        raise Failed(INVALID_ARGUMENT, "the call has no message")
                    request = await aside(len(raw), partial(self._schema.read, name, raw))
                    # The message has taken a part of the time that the caller has.
                    now = replace(caller, remaining_s=context.time_remaining())
                    response, fields = await method(request, now)
                context.set_trailing_metadata(_metadata(fields))
                return response.SerializeToString()

        return serve

    async def _stream(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async with _failing(context):
            caller = _caller(context)
            with self._slots.taken(self._exchange.who(caller, needs_key=True)):
                given = self._messages(context)
                async for response in self._methods.streamed(given, lambda: _caller(context)):
                    yield response.SerializeToString()

    async def _messages(self, context: Any) -> AsyncIterator[Any]:
        while (raw := await self._message(context)) is not aio.EOF:
            yield await aside(len(raw), partial(self._schema.read, "ModelInferRequest", raw))

    async def _message(self, context: Any) -> Any:
        """Return the next message of a call; Failed if none comes for as long as idle clients have.

        A time for the whole message, not a rate: its size is not known before it is there.
        """
        try:
            async with asyncio.timeout(self._idle_s):
                return await context.read()
        except TimeoutError:
            why = f"no message has come within {self._idle_s} s"
            raise Failed(DEADLINE_EXCEEDED, why) from None

    def _refused(self, name: str) -> Any:
        async def serve(requests: Any, context: Any) -> None:
            await _abort(context, refusal(name))

        return serve


@asynccontextmanager
async def _failing(context: Any) -> AsyncIterator[None]:
    """End a call whose block fails by its status, and say nothing of errors of the gateway."""
    try:
        yield
    except Failed as exc:
        failure = exc
    except Exception:
        log.exception("a call could not be answered")
        failure = Failed(INTERNAL, "the gateway could not answer; see its log")
    else:
        return
    await _abort(context, failure)


async def _abort(context: Any, failed: Failed) -> None:
    """End a call with the status of its failure; grpcio unwinds the call by an exception."""
    await context.abort(_STATUSES[failed.code], failed.details, _metadata(failed.trailers))


def _caller(context: Any) -> Caller:
    metadata = [
        (name.encode(), value.encode("latin-1", "replace"))
        for name, value in context.invocation_metadata() or ()
        if isinstance(value, str)  # those in bytes are no header fields
    ]
    return Caller(metadata, peer_of(context.peer()), context.time_remaining())


def peer_of(peer: str) -> tuple[str, int] | None:
    """Return the address (host, port) of a peer as grpcio writes it: `ipv6:%5B::1%5D:50051`."""
    kind, _, address = unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    return host.strip("[]"), int(port)


def _metadata(fields: Headers) -> tuple[tuple[str, str], ...]:
    """Return header fields as metadata, which is printable ASCII only."""
    return tuple((name.decode("ascii"), _printable(value)) for name, value in fields)


def _printable(value: bytes) -> str:
    text = value.decode("latin-1")
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)
