"""Packs learned state into bytes in which any damage is detected.

One JSON line (kind, values, the parts' lengths, a SHA-256 over values and parts), then the parts.
The model formats do not detect damage themselves: Vowpal Wabbit loads cut and bit-flipped models
silently.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def pack(kind: str, values: Mapping[str, Any], parts: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a state; `values` is anything JSON can hold."""
    head: dict[str, Any] = {
        "kind": kind,
        "values": values,
        "parts": {name: len(part) for name, part in parts.items()},
    }
    data = b"".join(parts.values())
    head["sha256"] = _digest(head, data)
    return json.dumps(head).encode() + b"\n" + data


def unpack(kind: str, state: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return (values, parts); ValueError if the bytes are damaged or of another kind."""
    line, _, data = state.partition(b"\n")
    try:
        head = json.loads(line)
        digest = head.pop("sha256")
        saved_kind = str(head["kind"])
        lengths = dict(head["parts"])
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ValueError("not a saved state, or a damaged one") from exc
    if digest != _digest(head, data):
        raise ValueError("the saved state is damaged: its checksum does not fit")
    if saved_kind != kind:
        raise ValueError(f"a saved state of {saved_kind!r}, not of {kind!r}")
    parts, at = {}, 0
    for name, length in lengths.items():
        parts[name] = data[at : at + length]
        at += length
    return head["values"], parts


def _digest(head: Mapping[str, Any], data: bytes) -> str:
    return hashlib.sha256(json.dumps(head).encode() + b"\n" + data).hexdigest()
