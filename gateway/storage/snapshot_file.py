"""Snapshots: what routes' policies and estimators have learned, preserved across restarts.

A snapshot is a JSON line (time, lengths of the parts, SHA-256 of all parts) followed by the parts.
It is written to a temporary file and renamed, so a complete one always exists. A damaged snapshot
is rejected and never loaded in part.
"""

import contextlib
import hashlib
import os
from pathlib import Path

import orjson

from tollway.gateway.security.private_files import make_folder, opener


def pack(parts: dict[str, bytes], time_s: float) -> bytes:
    """Return a snapshot's bytes."""
    data = b"".join(parts.values())
    head = {
        "tollway_snapshot": 1,
        "time": time_s,
        "parts": {name: len(part) for name, part in parts.items()},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return orjson.dumps(head) + b"\n" + data


def unpack(blob: bytes) -> tuple[dict[str, bytes], float]:
    """Return (parts, time). Raises ValueError if the snapshot is truncated or damaged."""
    line, newline, data = blob.partition(b"\n")
    head = orjson.loads(line) if newline else {}
    if not isinstance(head, dict) or head.get("tollway_snapshot") != 1:
        raise ValueError("not a snapshot")
    if hashlib.sha256(data).hexdigest() != head.get("sha256"):
        raise ValueError("the snapshot is damaged: its checksum does not match")
    parts, at = {}, 0
    try:
        for name, length in head["parts"].items():
            parts[name] = data[at : at + length]
            at += length
        return parts, float(head["time"])
    except (AttributeError, KeyError, TypeError) as exc:  # the checksum does not cover the head
        raise ValueError("the snapshot is damaged: its header is invalid") from exc


def set_aside(path: Path) -> Path:
    """Move a damaged snapshot out of the way, and return where it is now.

    Several workers may find the same file damaged; the first one moves it.
    """
    aside = path.with_suffix(".damaged")
    with contextlib.suppress(FileNotFoundError):
        path.replace(aside)
    return aside


def write(path: Path, blob: bytes, *, durable: bool = True) -> None:
    """Write a file whole or not at all. Raises OSError if the disk rejects it.

    A file that is not `durable` may be lost in a power loss.
    """
    make_folder(path.parent)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(beside, "wb", opener=opener) as file:
            file.write(blob)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
