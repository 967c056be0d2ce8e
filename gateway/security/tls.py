"""TLS: the contexts of the listener and of the ways to backends, from the files that settings name.

TLS 1.2 at least. With `client_ca` the listener takes only clients who show a certificate from it;
with `cert` and `key` a backend is shown one. A reload reads the listener's files again, so that a
certificate that was renewed is used for the next connection.
"""

import ssl
from pathlib import Path


def listening(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """Return the listener's context. OSError (also ssl.SSLError) where its files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        context.load_verify_locations(cafile=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    renew(context, cert, key)
    return context


def renew(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Read the listener's certificate and key again; open connections keep theirs."""
    context.load_cert_chain(cert, key)


def connecting(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """Return a backend's context: whom to trust (None: the system's choice), what to show."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def trouble(exc: OSError, *files: Path | None) -> str:
    """Say what is wrong with the files of a context, and with which if that can be told."""
    for file in files:
        if file is not None and not file.is_file():
            return f"{file} cannot be read; write the path of a PEM file"
    return f"cannot be used: {exc.strerror or exc}; they must be PEM files that belong together"
