"""MLflow scoring: `POST /invocations`, as used by `mlflow models serve`, at any path of a route.

Requests are passed on as they are (JSON of any form that MLflow takes, csv, chat messages): MLflow
reads NaN, and each flavour of model has its own inputs. A reply has `predictions`. The server's
`/ping`, `/health` and `/version` stand beside the path of the route.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from tollway.backends.ports import FAILOVER_STATUSES
from tollway.backends.protocols.http.predictions import PredictionReader
from tollway.backends.protocols.http.protocol import Http

MEMBERS = ("predictions",)
_FREE = ("/ping", "/health", "/version")

_CODES = {400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
_OTHER_CODE = {4: "RESOURCE_EXHAUSTED", 5: "INTERNAL_ERROR"}


class Mlflow(Http):
    """The protocol; `answer` is a path into the reply, by default `predictions`."""

    name = "mlflow"
    failover_statuses = FAILOVER_STATUSES

    def __init__(
        self,
        answer: str | None = None,
        confidence: str | None = None,
        probabilities: str | None = None,
        path: str | None = None,
        free: Sequence[str] | None = None,
    ) -> None:
        super().__init__(path=path, free=_FREE if free is None else free)
        self._read = PredictionReader(answer, confidence, probabilities, MEMBERS)
        self._target = b"/invocations"

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the problem with MLflow's own `error_code` and `message` beside its members."""
        code = _CODES.get(status) or _OTHER_CODE.get(status // 100, "INTERNAL_ERROR")
        message = problem.get("detail") or problem.get("title") or f"status {status}"
        document = {"error_code": code, "message": message, **problem}
        return b"application/problem+json", orjson.dumps(document)
