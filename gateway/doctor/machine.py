"""Examines the machine: versions, folders, disks, limits, and the address to listen on."""

import errno
import http
import http.client
import os
import platform
import resource
import ssl
import stat
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from tollway.gateway.doctor.finding import Finding, failure, ok, warning
from tollway.gateway.listener import server
from tollway.gateway.storage.disk_space import measure, shortage

LIBRARIES = ("httptools", "numpy", "orjson", "redis", "starlette", "uvicorn", "uvloop")
READY_S = 5.0
FILES_MIN = 4096  # a connection of a client and one of a backend are two files


def versions() -> Iterator[Finding]:
    """Yield the versions of Tollway, Python and the libraries that serving rests on."""
    installed = []
    for name in LIBRARIES:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield ok("versions", f"tollway {version('tollway')}, {python}, {', '.join(installed)}")


def open_files() -> Iterator[Finding]:
    """Yield whether the limit on open files is that of a server."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY or limit >= FILES_MIN:
        yield ok("open files", f"the limit is {limit:,}")
    else:
        yield warning(
            "open files",
            f"at most {limit:,}: about {limit // 2:,} connections at once",
            "raise it: ulimit -Hn, LimitNOFILE= of systemd, or the container's ulimit",
        )


def folders(named: Mapping[str, Path]) -> Iterator[Finding]:
    """Yield whether each folder can be written, and how much of its disk is free."""
    for name, folder in named.items():
        subject = f"folder of the {name}"
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            yield failure(subject, f"{there} is not a folder", "configure another path")
            continue
        if not os.access(there, os.W_OK | os.X_OK):
            seen = f"{there} cannot be written by {_user()}"
            yield failure(subject, seen, f"chown it to the gateway's user, or move {folder}")
            continue
        if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & stat.S_IWOTH:
            yield warning(subject, f"anyone can write to {folder}", f"chmod o-w {folder}")
            continue
        disk = measure(folder)
        room = f"{disk.free_bytes / 1e9:,.1f} of {disk.size_bytes / 1e9:,.1f} GB free"
        why = shortage(disk, 0.0)
        if why:
            yield warning(subject, f"{folder}: {why}", "make room: tollway journal, or a quota")
        else:
            yield ok(subject, f"{folder}, {room}")


def _user() -> str:
    return f"the user {os.geteuid()}"


def address(listen: str, secure: bool) -> Iterator[Finding]:
    """Yield whether the gateway can listen where it is configured to, or runs there already."""
    try:
        server.bind(listen).close()
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE and not listen.startswith("unix:"):
            yield _in_use(listen, secure)
        else:
            yield failure("address", f"{listen}: {exc.strerror or exc}", "change server.listen")
        return
    yield ok("address", f"{listen} is free: no gateway runs there")


def url_here(listen: str, *, secure: bool) -> str:
    """Return the URL by which a gateway that listens on `host:port` is reached on this machine."""
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return f"{'https' if secure else 'http'}://{host}:{port}"


def _in_use(listen: str, secure: bool) -> Finding:
    parts = urlsplit(url_here(listen, secure=secure))
    assert parts.hostname is not None
    context = ssl.create_default_context()
    # It may have a name that is not this address; nothing is sent that must stay secret.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = (
        http.client.HTTPSConnection(parts.hostname, parts.port, timeout=READY_S, context=context)
        if secure
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=READY_S)
    )
    try:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        told = reply.read(200).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as exc:
        seen = f"{listen} is in use, and GET /readyz fails: {exc}"
        return failure("address", seen, "ss -ltnp shows the program; stop it, or change the port")
    finally:
        connection.close()
    if reply.status == http.HTTPStatus.OK and told == "ok":
        return ok("address", f"a gateway runs at {listen} and is ready")
    if reply.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        return failure("address", f"a gateway runs at {listen}: {told}", "see its log")
    seen = f"{listen} is in use by a program that answers GET /readyz with {reply.status}"
    return failure("address", seen, "ss -ltnp shows the program; stop it, or change the port")
