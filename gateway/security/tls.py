"""TLS contexts of the listener and of connections to backends, from the configured files.

The minimum version is TLS 1.2. With `client_ca`, the listener accepts only clients with a
certificate that it signed. With `cert` and `key`, the gateway presents a client certificate to a
backend. A reload reads the listener's files again, so that the next connection uses a renewed
certificate.
"""

import ssl
from pathlib import Path


def listening(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """Return the listener's context. OSError (also ssl.SSLError) if its files are unusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        context.load_verify_locations(cafile=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    renew(context, cert, key)
    return context


def renew(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Read the listener's certificate and key again; open connections keep the old ones."""
    context.load_cert_chain(cert, key)


def connecting(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """Return a backend's context: the CA (None: the system's), and the certificate to present."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def trouble(exc: OSError, *files: Path | None) -> str:
    """Return what is wrong with the files of a context, and which file if that is known."""
    for file in files:
        if file is not None and not file.is_file():
            return f"{file} cannot be read; write the path of a PEM file"
    return f"cannot be used: {exc.strerror or exc}; write PEM files that match each other"
