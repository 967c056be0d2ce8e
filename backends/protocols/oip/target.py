"""Paths of the Open Inference Protocol: `/v2/models/MODEL[/versions/VERSION][/infer|/ready|...]`.

`/v2` may stand below a prefix, which is the gateway's own and does not reach a backend.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from tollway.backends.ports import INFER, METADATA, READY, SERVER, STATISTICS

CALLS = (b"infer", b"generate", b"generate_stream", b"infer_stream")
"""Verbs that are calls: those of Triton's generate extension and MLServer's stream too."""
STREAMED = frozenset((b"generate_stream", b"infer_stream"))
_OF_MODEL = {b"": METADATA, b"ready": READY, b"config": METADATA, b"stats": METADATA}
_OF_MODEL |= dict.fromkeys(CALLS, INFER)
_OF_SERVER = {
    (): SERVER,
    (b"health", b"live"): SERVER,
    (b"health", b"ready"): SERVER,
    (b"models",): SERVER,
    (b"models", b"stats"): STATISTICS,
    (b"repository", b"index"): SERVER,
}
_VERBS: dict[tuple[bytes, ...], str] = {(): METADATA} | {
    (verb,): what for verb, what in _OF_MODEL.items() if verb
}


@dataclass(frozen=True, slots=True)
class OipTarget:
    """What a path requests (INFER, METADATA or READY), of which model and version.

    `verb`: the last segment, such as `infer` or `stats`; empty for metadata. `path`: from `/v2` on.
    """

    what: str
    model: str
    version: str | None = None
    verb: bytes = b""
    path: bytes = b""


def match(path: bytes) -> OipTarget | None:
    """Return what a raw path (without query) requests of a model; None for any other path."""
    own = _own(path)
    parts = own.split(b"/")
    if len(parts) < 4 or parts[:3] != [b"", b"v2", b"models"] or not parts[3]:
        return None
    rest = parts[4:]
    version = None
    if len(rest) >= 2 and rest[0] == b"versions" and rest[1]:
        version = _text(rest[1])
        rest = rest[2:]
    what = _VERBS.get(tuple(rest))
    if what is None or (not rest and parts[3:] == [b"stats"]):
        return None
    return OipTarget(what, _text(parts[3]), version, rest[0] if rest else b"", own)


def operation(path: bytes) -> str:
    """Return what a raw path asks for; a path that is not of the protocol is an inference."""
    own = tuple(_own(path).split(b"/")[1:])
    if own[:1] == (b"v2",) and own[1:] in _OF_SERVER:
        return _OF_SERVER[own[1:]]
    target = match(path)
    return INFER if target is None else target.what


def paths(path: str) -> tuple[str, ...]:
    """Return the paths that belong to a route at `path`: of its model, and of the server."""
    prefix, is_ours, rest = path.partition("/v2/models/")
    if not is_ours:
        prefix, is_ours, rest = path.partition("/v2/")
        prefix = prefix if is_ours else ""
    server = ["/".join((f"{prefix}/v2", *[_text(one) for one in parts])) for parts in _OF_SERVER]
    base, infer, _ = path.rpartition("/infer")
    if not infer or not rest:
        return tuple(server)
    verbs = [f"/{verb.decode()}" if verb else "" for verb in _OF_MODEL]
    model = [f"{base}{at}{verb}" for at in ("", "/versions/{version}") for verb in verbs]
    return (*[one for one in model if one != path], *server)


def readdress(target: bytes, base: bytes, model: str | None) -> bytes:
    """Return an origin-form target below the path `base`, with the model's name changed to `model`.

    A target that is not of the protocol (a route may have any path) becomes the inference path of
    `model`. If `model` is None, only what stands before `/v2` is replaced.
    """
    if model is None and target[:4] == b"/v2/":
        return base + target
    path, mark, query = target.partition(b"?")
    own = path if path[:4] == b"/v2/" else _own(path)
    if model is None:
        return base + own + mark + query
    parts = own.split(b"/")
    name = quote(model, safe="").encode()
    if len(parts) > 3 and parts[:3] == [b"", b"v2", b"models"]:
        parts[3] = name
        return base + b"/".join(parts) + mark + query
    return b"%b/v2/models/%b/infer%b%b" % (base, name, mark, query)


def about_server(path: bytes, models: Mapping[str, bool], ready: str) -> tuple[int, Any]:
    """Return (status, document) for a path about the server; see `WireProtocol.server`."""
    asked = _own(path)
    if asked == b"/v2/health/live":
        return 200, {"live": True}
    if asked == b"/v2/health/ready":
        return (503, {"ready": False, "error": ready}) if ready else (200, {"ready": True})
    if asked == b"/v2/models":
        return 200, {"models": list(models)}
    if asked == b"/v2/repository/index":
        return 200, [_index_entry(name, up) for name, up in models.items()]
    extensions = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
    extensions += ["generate"]
    return 200, {"name": "tollway", "version": version("tollway"), "extensions": extensions}


def described(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a model's metadata, configuration or statistics with the name `name`."""
    renamed = {**document, "name": name} if "name" in document else dict(document)
    stats = document.get("model_stats")
    if isinstance(stats, list):
        renamed["model_stats"] = [
            {**one, "name": name} if isinstance(one, dict) else one for one in stats
        ]
    return renamed


def _index_entry(name: str, up: bool) -> dict[str, str]:
    state, reason = ("READY", "") if up else ("UNAVAILABLE", "no backend is up")
    return {"name": name, "version": "1", "state": state, "reason": reason}


def _own(path: bytes) -> bytes:
    """Return a path without what stands before `/v2`."""
    if path[:4] == b"/v2/":
        return path
    _, found, rest = path.partition(b"/v2/models/")
    if found:
        return found + rest
    for parts in _OF_SERVER:
        own = b"/".join((b"/v2", *parts))
        if path.endswith(own):
            return own
    return path


def _text(segment: bytes) -> str:
    return unquote_to_bytes(segment).decode("utf-8", "replace")
