"""The paths of the Gemini API: `.../models/{model}:{method}`, and what each method does.

The model's name is in the path, and in some bodies again. Vertex AI has the same methods below
`/v1/projects/{project}/locations/{location}/publishers/google`.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from tollway.backends.types import Endpoint

_NAMED = re.compile(rb"/((?:tuned)?[mM]odels)/([^/:?]+):(\w+)$")
_VERSIONED = re.compile(rb"/v\d\w*(?:/|$)")
_TO_VERSION = re.compile(rb"(?!/upload/)(?:/[^/]+)*?/v\d\w*(?=/)")
"""What comes before what a path asks for, where it names no method of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Endpoint):
    """What a method does.

    generates: it writes an answer. streams: as an array, or (`is_sse`) as events. names: where its
    body names the model again, as `models/{model}`.
    """

    generates: bool = True
    streams: bool = False
    is_sse: bool = False
    names: tuple[str, ...] = ()


GENERATE = Method(name="generateContent")
STREAM_ARRAY = Method(name="streamGenerateContent", streams=True)
STREAM_EVENTS = Method(name="streamGenerateContent", streams=True, is_sse=True)
EMBED = Method(name="embedContent", generates=False, names=("model",))
EMBED_MANY = Method(name="batchEmbedContents", generates=False, names=("requests.*.model",))
COUNT = Method(name="countTokens", is_free=True, names=("generateContentRequest.model",))
READ = Method(name="reads", is_free=True)
DECLARED = Method(name="declared", is_declared=True, creates=True)
"""Batches, images, videos, stored caches: neither request nor reply says what they cost."""

_METHODS = {
    b"generateContent": GENERATE,
    b"embedContent": EMBED,
    b"batchEmbedContents": EMBED_MANY,
    b"countTokens": COUNT,
}


def method(verb: bytes, target: bytes) -> Method:
    """Return what a request asks for."""
    path, _, query = target.partition(b"?")
    found = _NAMED.search(path)
    name = found.group(3) if found else b""
    if name == b"streamGenerateContent":
        return STREAM_EVENTS if (b"alt", b"sse") in parse_qsl(query) else STREAM_ARRAY
    if name in _METHODS:
        return _METHODS[name]
    return READ if verb in (b"GET", b"HEAD") else DECLARED


def model(target: bytes) -> str:
    """Return the name of the model in a path; empty if it has none."""
    found = _NAMED.search(target.partition(b"?")[0])
    return unquote(found.group(2).decode("latin-1")) if found else ""


def readdressed(target: bytes, base: bytes, name: str | None) -> bytes:
    """Return the path at a backend, with its own name of the model.

    If `base` has a version (`/v1beta`, `/v1/projects/...`), it replaces all that comes before
    `models/`, or the client's version where no method of a model is called. A name with a slash
    says where the model is: `tunedModels/mine`.
    """
    path, mark, query = target.partition(b"?")
    found = _NAMED.search(path)
    if _VERSIONED.search(base):
        before = _TO_VERSION.match(path)
        if found is not None:
            path = path[found.start() :]
            found = _NAMED.search(path)
        elif before is not None:
            path = path[before.end() :]
    if found is not None and name is not None:
        wanted = name if "/" in name else f"{found.group(1).decode()}/{name}"
        path = b"%b/%b:%b" % (path[: found.start()], quote(wanted).encode(), found.group(3))
    return base + path + mark + query
