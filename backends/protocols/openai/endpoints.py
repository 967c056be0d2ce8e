"""The endpoints of OpenAI's API and of servers that speak it: one table.

A row says how a path looks below the root of the API, what its request must have, and who pays:

    billed     the reply reports the usage, or the request bounds it
    free       nothing is billed: objects are read, listed, cancelled or deleted, files are stored
    declared   work of unknown size, which no request and no reply tells the cost of: batches,
               fine-tuning, runs, vector stores, videos

`{id}` is one segment of a path. The root is what stands before, up to a version (`/v1`,
`/openai/v1`); endpoints that are billed, or count tokens, are also found at the end of any other
path, and all else is a billed call of which nothing is known.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tollway.backends.output import MAX_OUTPUT_TOKENS, MAX_TOKENS
from tollway.backends.types import Endpoint

GET, POST, DELETE, HEAD = b"GET", b"POST", b"DELETE", b"HEAD"
Requires = tuple[tuple[str, tuple[type, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiEndpoint(Endpoint):
    """A row. `requires`: members of the request, of which one must be there, with their types.

    model_required: whether it must name a model. limit_field: where a limit of the output can be
    written. generates: whether there is output to pay for. asks_for_usage: a stream reports its
    usage only if `stream_options` asks for it. stream_field: the member that asks for a stream, and
    its value. is_media: a reply that is no document is relayed as it comes. is_known: it is in the
    table.
    """

    requires: Requires = ()
    model_required: bool = False
    limit_field: str = ""
    generates: bool = True
    asks_for_usage: bool = False
    stream_field: tuple[str, object] = ("stream", True)
    is_media: bool = False
    is_known: bool = True


_CHAT = ApiEndpoint(
    name="chat",
    creates=True,
    requires=(("messages", (list,)),),
    model_required=True,
    limit_field=MAX_TOKENS,
    asks_for_usage=True,
)
_COMPLETIONS = ApiEndpoint(
    name="completions",
    requires=(("prompt", (str, list)),),
    model_required=True,
    limit_field=MAX_TOKENS,
    asks_for_usage=True,
)
_RESPONSES = ApiEndpoint(
    name="responses",
    creates=True,
    # A stored prompt, an earlier response or a conversation may hold all that is asked.
    requires=(
        ("input", (str, list)),
        ("prompt", (dict,)),
        ("previous_response_id", (str,)),
        ("conversation", (str, dict)),
    ),
    limit_field=MAX_OUTPUT_TOKENS,
)
_COMPACT = ApiEndpoint(
    name="compact", requires=(("input", (str, list)), ("previous_response_id", (str,)))
)
_EMBEDDINGS = ApiEndpoint(
    name="embeddings",
    requires=(("input", (str, list)),),
    model_required=True,
    generates=False,
)
_SPEECH = ApiEndpoint(
    name="speech",
    requires=(("input", (str,)),),
    unit="characters",
    stream_field=("stream_format", "sse"),
    is_media=True,
)
_TRANSCRIPTIONS = ApiEndpoint(name="transcriptions", unit="audio_s")
_IMAGES = ApiEndpoint(name="images", unit="images")
_NUMBERS = ApiEndpoint(name="numbers", generates=False)

_FREE = ApiEndpoint(name="objects", is_free=True, is_media=True)
_NEW = ApiEndpoint(name="new", is_free=True, creates=True)
_DECLARED = ApiEndpoint(name="declared", is_declared=True, creates=True)
_LIST = ApiEndpoint(name="list", is_free=True, is_list=True)
_MODELS = ApiEndpoint(name="models", is_free=True)
_COUNT = ApiEndpoint(name="counts", is_free=True)

UNKNOWN = ApiEndpoint(name="unknown", is_known=False)
"""A path that is not in the table."""

READS = ApiEndpoint(name="reads", is_free=True, is_known=False, is_media=True)
"""GET or HEAD of such a path: health, metadata."""

_READ = (GET,)
_READ_OR_DELETE = (GET, DELETE)

_ROWS: tuple[tuple[tuple[bytes, ...], str, ApiEndpoint], ...] = (
    ((POST,), "chat/completions", _CHAT),
    ((GET,), "chat/completions", _LIST),
    ((GET, POST, DELETE), "chat/completions/{id}", _FREE),
    ((GET,), "chat/completions/{id}/messages", _FREE),
    ((POST,), "chat/completions/input_tokens", _COUNT),  # of llama.cpp
    ((POST,), "completions", _COMPLETIONS),
    ((POST,), "responses", _RESPONSES),
    ((POST,), "responses/compact", _COMPACT),
    ((POST,), "responses/input_tokens", _COUNT),
    ((GET, DELETE), "responses/{id}", _FREE),
    ((POST,), "responses/{id}/cancel", _FREE),
    ((GET,), "responses/{id}/input_items", _FREE),
    ((POST,), "conversations", _NEW),
    ((GET, POST, DELETE), "conversations/{id}", _FREE),
    ((GET, POST), "conversations/{id}/items", _FREE),
    ((GET, DELETE), "conversations/{id}/items/{item}", _FREE),
    ((POST,), "embeddings", _EMBEDDINGS),
    ((POST,), "audio/speech", _SPEECH),
    ((POST,), "audio/transcriptions", _TRANSCRIPTIONS),
    ((POST,), "audio/translations", _TRANSCRIPTIONS),
    ((POST,), "images/generations", _IMAGES),
    ((POST,), "images/edits", _IMAGES),
    ((POST,), "images/variations", _IMAGES),
    ((POST,), "moderations", _NUMBERS),
    # Of vLLM, SGLang, TEI, llama.cpp, transformers, Cohere, Jina and Voyage.
    ((POST,), "rerank", _NUMBERS),
    ((POST,), "score", _NUMBERS),
    ((POST,), "classify", _NUMBERS),
    ((POST,), "pooling", _NUMBERS),
    ((POST,), "systemone", _NUMBERS),
    # Of the same: no model runs, and no reply has usage.
    ((POST,), "tokenize", _COUNT),
    ((POST,), "detokenize", _COUNT),
    ((POST,), "apply-template", _COUNT),
    ((GET,), "models", _MODELS),
    ((GET,), "models/{id}", _MODELS),
    ((POST,), "files", _NEW),
    ((GET,), "files", _LIST),
    ((GET, DELETE), "files/{id}", _FREE),
    ((GET,), "files/{id}/content", _FREE),
    ((POST,), "uploads", _NEW),
    ((POST,), "uploads/{id}/parts", _FREE),
    ((POST,), "uploads/{id}/complete", _NEW),
    ((POST,), "uploads/{id}/cancel", _FREE),
    # Work of unknown size, and the objects that it leaves.
    ((POST,), "batches", _DECLARED),
    ((GET,), "batches", _LIST),
    ((GET,), "batches/{id}", _FREE),
    ((POST,), "batches/{id}/cancel", _FREE),
    ((POST,), "fine_tuning/jobs", _DECLARED),
    ((GET,), "fine_tuning/jobs", _LIST),
    ((GET,), "fine_tuning/jobs/{id}", _FREE),
    ((GET,), "fine_tuning/jobs/{id}/events", _FREE),
    ((GET,), "fine_tuning/jobs/{id}/checkpoints", _FREE),
    ((POST,), "fine_tuning/jobs/{id}/cancel", _FREE),
    ((POST,), "fine_tuning/jobs/{id}/pause", _FREE),
    ((POST,), "fine_tuning/jobs/{id}/resume", _DECLARED),
    ((POST,), "vector_stores", _DECLARED),
    ((GET,), "vector_stores", _LIST),
    ((GET, POST, DELETE), "vector_stores/{id}", _FREE),
    ((POST,), "vector_stores/{id}/search", _DECLARED),
    ((POST,), "vector_stores/{id}/files", _DECLARED),
    ((GET,), "vector_stores/{id}/files", _FREE),
    ((GET, POST, DELETE), "vector_stores/{id}/files/{file}", _FREE),
    ((GET,), "vector_stores/{id}/files/{file}/content", _FREE),
    ((POST,), "vector_stores/{id}/file_batches", _DECLARED),
    ((GET,), "vector_stores/{id}/file_batches/{batch}", _FREE),
    ((POST,), "vector_stores/{id}/file_batches/{batch}/cancel", _FREE),
    ((GET,), "vector_stores/{id}/file_batches/{batch}/files", _FREE),
    ((POST,), "assistants", _NEW),
    ((GET,), "assistants", _LIST),
    ((GET, POST, DELETE), "assistants/{id}", _FREE),
    ((POST,), "threads", _NEW),
    ((GET, POST, DELETE), "threads/{id}", _FREE),
    ((GET, POST), "threads/{id}/messages", _FREE),
    ((GET, POST, DELETE), "threads/{id}/messages/{message}", _FREE),
    ((POST,), "threads/runs", _DECLARED),
    ((POST,), "threads/{id}/runs", _DECLARED),
    ((GET,), "threads/{id}/runs", _FREE),
    ((GET, POST), "threads/{id}/runs/{run}", _FREE),
    ((GET,), "threads/{id}/runs/{run}/steps", _FREE),
    ((GET,), "threads/{id}/runs/{run}/steps/{step}", _FREE),
    ((POST,), "threads/{id}/runs/{run}/cancel", _FREE),
    ((POST,), "threads/{id}/runs/{run}/submit_tool_outputs", _DECLARED),
    ((POST,), "videos", _DECLARED),
    ((GET,), "videos", _LIST),
    ((GET, DELETE), "videos/{id}", _FREE),
    ((GET,), "videos/{id}/content", _FREE),
    ((POST,), "videos/{id}/remix", _DECLARED),
    ((POST,), "videos/edits", _DECLARED),
    ((POST,), "videos/extensions", _DECLARED),
    ((POST,), "containers", _DECLARED),
    ((GET,), "containers", _LIST),
    ((GET, DELETE), "containers/{id}", _FREE),
    ((GET, POST), "containers/{id}/files", _FREE),
    ((GET, DELETE), "containers/{id}/files/{file}", _FREE),
    ((GET,), "containers/{id}/files/{file}/content", _FREE),
    ((POST,), "evals", _NEW),
    ((GET,), "evals", _LIST),
    ((GET, POST, DELETE), "evals/{id}", _FREE),
    ((POST,), "evals/{id}/runs", _DECLARED),
    ((GET,), "evals/{id}/runs", _FREE),
    ((GET, POST, DELETE), "evals/{id}/runs/{run}", _FREE),
    ((GET,), "evals/{id}/runs/{run}/output_items", _FREE),
    ((GET,), "evals/{id}/runs/{run}/output_items/{item}", _FREE),
)

_OF_THE_ACCOUNT = frozenset(
    (
        *(b"organization", b"organizations", b"projects", b"vaults", b"safety"),
        *(b"webhook_endpoints", b"webhook_event_types"),
    )
)
"""First segments of paths by which an account is administered: its keys, users and bills."""

_VERSION = re.compile(rb"v\d+(?:(?:alpha|beta)\d*)?")
_SEGMENTS_MAX = 16  # of a path: the longest endpoint has six, and a root a few


def _segments(path: str) -> tuple[bytes, ...]:
    return tuple(path.encode().split(b"/"))


def _fixed() -> Iterator[tuple[tuple[bytes, bytes], ApiEndpoint]]:
    """Yield the endpoints without a segment that varies, below no root and below `/v1`."""
    for methods, path, endpoint in _ROWS:
        if "{" not in path:
            for method in methods:
                yield (method, b"/" + path.encode()), endpoint
                yield (method, b"/v1/" + path.encode()), endpoint


_FIXED = dict(_fixed())
_VARIED = tuple((methods, _segments(path), row) for methods, path, row in _ROWS if "{" in path)
_ENDINGS = tuple(
    (methods, _segments(path), row)
    for methods, path, row in _ROWS
    if row is _COUNT or not (row.is_free or row.is_declared)
)


def find(method: bytes, path: bytes) -> ApiEndpoint:
    """Return the endpoint at a path, as it was sent (0.2 us; 5 us with an id in it)."""
    endpoint = _FIXED.get((method, path))
    return _search(method, path)[0] if endpoint is None else endpoint


def subject(method: bytes, path: bytes) -> str:
    """Return the id of the object that a path names; empty if it names none."""
    return _search(method, path)[1]


def administers(path: bytes) -> bool:
    """Return whether a path is a call by which an account is administered."""
    return family(path).lower() in _OF_THE_ACCOUNT


def family(path: bytes) -> bytes:
    """Return the first segment of a path below its root, such as `responses`."""
    return (_below_root(path) or (b"",))[0]


def _search(method: bytes, path: bytes) -> tuple[ApiEndpoint, str]:
    method = GET if method == HEAD else method
    given = _below_root(path)
    known = _FIXED.get((method, b"/" + b"/".join(given)))
    if known is not None:  # `threads/runs` is no thread
        return known, ""
    for methods, segments, endpoint in _VARIED:
        if method in methods and _fits(segments, given):
            at = next(n for n, one in enumerate(segments) if one.startswith(b"{"))
            return endpoint, given[at].decode(errors="replace")
    for methods, segments, endpoint in _ENDINGS:
        if method in methods and given[-len(segments) :] == segments:
            return endpoint, ""
    return (READS if method == GET else UNKNOWN), ""


def _below_root(path: bytes) -> tuple[bytes, ...]:
    """Return the segments of a path, decoded, without those of its root."""
    segments = tuple([unquote_to_bytes(one) for one in path.split(b"/", _SEGMENTS_MAX) if one])
    at = next((n + 1 for n, one in enumerate(segments) if _VERSION.fullmatch(one)), 0)
    return segments[at + (segments[at : at + 1] == (b"openai",)) :]


def _fits(segments: tuple[bytes, ...], given: tuple[bytes, ...]) -> bool:
    if len(segments) != len(given):
        return False
    pairs = zip(segments, given, strict=True)
    return all(one == its or one.startswith(b"{") for one, its in pairs)
