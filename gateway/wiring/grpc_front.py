"""Builds the listener for gRPC, if one is configured."""

from typing import Any

from tollway.gateway import settings as config
from tollway.gateway.wiring.gateway import GrpcFront


def build_grpc(settings: config.Settings, app: Any) -> GrpcFront | None:
    """Return the listener of an application, not yet open; None if none is configured."""
    if settings.grpc is None:
        return None
    # Imported here: grpcio takes a quarter of the time of a start, and few gateways use it.
    from tollway.gateway.grpc_listener.server import (  # noqa: PLC0415
        GrpcServer,
        Limits,
        TlsFiles,
    )

    server = settings.server
    limits = Limits(
        calls=settings.grpc.max_calls,
        connections=settings.grpc.max_connections,
        message_bytes=server.max_body_bytes,
        reply_bytes=server.max_reply_bytes,
        metadata_bytes=server.max_header_bytes,
        idle_s=server.keep_alive_s,
        drain_s=server.drain_s,
    )
    files = server.tls
    tls = None if files is None else TlsFiles(files.cert, files.key, files.client_ca)
    listen, json_models = settings.grpc.listen, frozenset(settings.grpc.json_models)
    return GrpcServer(app, listen, limits=limits, tls=tls, json_models=json_models)
