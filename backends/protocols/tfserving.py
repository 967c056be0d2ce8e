"""TensorFlow Serving's REST API, which KServe calls V1: `/v1/models/MODEL:predict`.

Verbs are `predict`, `classify`, `regress` and `explain`; a version or label may stand before them.
Requests (rows in `instances`, columns in `inputs`, cloud events) are passed on as they are, but for
the model's name in the path. A reply has `predictions`, of columns `outputs`, `results` or
`explanations`. The status and the metadata of a model are free.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from tollway.backends.json_members import NO_EDITS, Edits
from tollway.backends.ports import FAILOVER_STATUSES, INFER, SERVER
from tollway.backends.protocols.http.predictions import PredictionReader
from tollway.backends.protocols.http.protocol import FREE, Http
from tollway.backends.protocols.oip.names import with_name
from tollway.backends.types import Call, Headers, Payload

MEMBERS = ("predictions", "outputs", "results", "explanations")
VERBS = ("predict", "classify", "regress", "explain")
_ROOT = b"/v1/models/"
_PATH = re.compile(rb"(?P<prefix>.*?)/v1/models/(?P<model>[^/:]+)(?P<rest>[/:].*)?")
_STATUS_BYTES_MAX = 16 << 10


class TfServing(Http):
    """The protocol; `answer`, `confidence` and `probabilities` are paths into the reply."""

    name = "tfserving"
    renames = True
    failover_statuses = FAILOVER_STATUSES

    def __init__(
        self,
        answer: str | None = None,
        confidence: str | None = None,
        probabilities: str | None = None,
    ) -> None:
        super().__init__(free=())
        self._read = PredictionReader(answer, confidence, probabilities, MEMBERS)

    def paths(self, path: str) -> tuple[str, ...]:
        """Return the paths that belong to a route at `path`: of its model, and of the server."""
        found = _PATH.fullmatch(path.encode())
        if found is None:
            return ()
        prefix = found["prefix"].decode()
        server = (f"{prefix}/", f"{prefix}/v1/models")
        if path.endswith("/*") or "{" in path:
            return server
        base = f"{prefix}/v1/models/{found['model'].decode()}"
        verbs = [f"{base}:{verb}" for verb in VERBS if not path.endswith(f":{verb}")]
        return (base, f"{base}/*", *verbs, *server)

    def operation(self, path: bytes) -> str:
        """Return what a path asks for; the status of a model is a free call."""
        return SERVER if path.endswith((b"/v1/models", b"/")) else INFER

    def server(self, path: bytes, models: Mapping[str, bool], ready: str) -> tuple[int, Any]:
        """Return (status, document) for a path about the server, as KServe answers it."""
        if path.endswith(b"/v1/models"):
            return 200, {"models": list(models)}
        return 200, {"status": "alive"}

    def named(self, path: str) -> str:
        """Return the name of the model in a route's path; empty if it has none."""
        found = _PATH.fullmatch(path.encode())
        return "" if found is None or "{" in path or path.endswith("*") else _model(found)

    def passes(self, method: str, path: bytes, pattern: str, *, is_written: bool) -> bool:
        """Return whether a request that a pattern of paths matches may be passed on."""
        if method in ("GET", "HEAD"):
            return True
        return method == "POST" and path.endswith(tuple(f":{verb}".encode() for verb in VERBS))

    def parse(self, call: Call) -> Payload:
        """Read a document, if the body is one; the status and the metadata of models are free."""
        if call.method in (b"GET", b"HEAD"):
            return Payload(endpoint=FREE)
        return super().parse(call)

    def readdress(
        self, call: Call, base: bytes, model: str | None, payload: Payload
    ) -> tuple[bytes, Edits]:
        """Return (target, edits), with the backend's name of the model in the path."""
        path, mark, query = call.target.partition(b"?")
        found = _PATH.fullmatch(path)
        if found is not None:
            name = found["model"] if model is None else quote(model, safe="").encode()
            path = _ROOT + name + (found["rest"] or b"")
        elif model is not None:  # a route may have any path
            path = b"%b%b:predict" % (_ROOT, quote(model, safe="").encode())
        return base + path + mark + query, NO_EDITS

    def renamed(self, call: Call, headers: Headers, body: bytes) -> tuple[Headers, bytes]:
        """Return a status of a model with the name that the client asked for."""
        if call.method != b"GET" or len(body) > _STATUS_BYTES_MAX:
            return headers, body
        found = _PATH.fullmatch(call.target.partition(b"?")[0])
        return headers, body if found is None else with_name(body, "name", _model(found))


def _model(found: re.Match[bytes]) -> str:
    return unquote(found["model"].decode("latin-1"))
