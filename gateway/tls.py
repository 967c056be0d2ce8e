"""TLS: the contexts of the listener and of the ways to backends, from the files that settings name.

TLS 1.2 at least. With `client_ca` the listener takes only clients who show a certificate from it;
with `cert` and `key` a backend is shown one. A reload reads the listener's files again, so that a
certificate that was renewed is used for the next connection.
"""

import ssl
from pathlib import Path

from gateway.settings.backend import BackendTls
from gateway.settings.listener import ListenerTls


def listening(settings: ListenerTls) -> ssl.SSLContext:
    """Return the listener's context. OSError (also ssl.SSLError) where its files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings.client_ca is not None:
        context.load_verify_locations(cafile=settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    renew(context, settings)
    return context


def renew(context: ssl.SSLContext, settings: ListenerTls) -> None:
    """Read the listener's certificate and key anew; connections that there are keep theirs."""
    context.load_cert_chain(settings.cert, settings.key)


def connecting(settings: BackendTls | None) -> ssl.SSLContext | None:
    """Return a backend's context; None: the system's trust, and no certificate shown."""
    if settings is None:
        return None
    context = ssl.create_default_context(cafile=settings.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert is not None:
        context.load_cert_chain(settings.cert, settings.key)
    return context


def trouble(exc: OSError, *files: Path | None) -> str:
    """Say what is wrong with the files of a context, and with which if that can be told."""
    for file in files:
        if file is not None and not file.is_file():
            return f"{file} cannot be read; write the path of a PEM file"
    return f"cannot be used: {exc.strerror or exc}; they must be PEM files that belong together"
