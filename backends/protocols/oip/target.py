"""Paths of the Open Inference Protocol: `/v2/models/MODEL[/versions/VERSION][/infer|/ready]`."""

from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

INFER, METADATA, READY = "infer", "metadata", "ready"
_VERBS = {(): METADATA, (b"infer",): INFER, (b"ready",): READY}


@dataclass(frozen=True, slots=True)
class OipTarget:
    """What a path requests (`infer`, `metadata` or `ready`), of which model and version."""

    verb: str
    model: str
    version: str | None = None


def match(path: bytes) -> OipTarget | None:
    """Return what a raw path (without query) requests; None for a path not of this protocol."""
    parts = path.split(b"/")
    if len(parts) < 4 or parts[:3] != [b"", b"v2", b"models"] or not parts[3]:
        return None
    rest = parts[4:]
    version = None
    if len(rest) >= 2 and rest[0] == b"versions" and rest[1]:
        version = _text(rest[1])
        rest = rest[2:]
    verb = _VERBS.get(tuple(rest))
    return None if verb is None else OipTarget(verb, _text(parts[3]), version)


def readdress(target: bytes, base: bytes, model: str | None) -> bytes:
    """Return an origin-form target below the path `base`, with the model's name changed to `model`.

    A target that is not of the protocol (a route may have any path) becomes the inference path of
    `model`. If `model` is None, only the base is prepended.
    """
    base = base.rstrip(b"/")
    if model is None:
        return base + target
    path, mark, query = target.partition(b"?")
    parts = path.split(b"/")
    name = quote(model, safe="").encode()
    if len(parts) > 3 and parts[:3] == [b"", b"v2", b"models"]:
        parts[3] = name
        return base + b"/".join(parts) + mark + query
    return b"%b/v2/models/%b/infer%b%b" % (base, name, mark, query)


def _text(segment: bytes) -> str:
    return unquote_to_bytes(segment).decode("utf-8", "replace")
