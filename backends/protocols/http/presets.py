"""What is known of servers that speak plain HTTP: one table.

free     what nobody bills below the root of the server: health, schema, metadata. GET and HEAD, or
         the method that is named. A final `/*` stands for all that is below.
answer, confidence, probabilities
         where a reply has them, as paths
target   the one path of all calls at the server; empty: the client's own
error    the shape of its errors: what stands for `$status`, `$title` and `$detail`
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_HEALTH = ("/health", "/health/*", "/ping", "/live", "/ready", "/version")
_SCHEMA = ("/openapi.json", "/docs", "/docs/*", "/redoc", "/schema", "/metadata", "/info")
_MODELS = ("/v1/models", "/v1/models/*", "/v2", "/v2/health/*", "/v2/models/*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A row of the table."""

    free: tuple[str, ...] = ()
    answer: str | None = None
    confidence: str | None = None
    probabilities: str | None = None
    target: str = ""
    error: Mapping[str, Any]


_TEXT = {"error": "$detail"}

PRESETS: Mapping[str, Preset] = {
    "bentoml": Preset(
        free=(*_HEALTH, "/healthz", "/livez", "/readyz", "/docs.json", "/schema.json"),
        error=_TEXT,
    ),
    "fastapi": Preset(free=(*_HEALTH, "/healthz", *_SCHEMA), error={}),
    "huggingface": Preset(
        free=(*_HEALTH, "/info"),
        answer="[0].label",
        confidence="[0].score",
        error=_TEXT,
    ),
    "ray-serve": Preset(free=("/-/routes", "/-/healthz", *_HEALTH, *_SCHEMA), error=_TEXT),
    "sagemaker": Preset(
        free=("/ping", "/execution-parameters"),
        target="/invocations",
        error={"ErrorCode": "$title", "Message": "$detail", "OriginalStatusCode": "$status"},
    ),
    "tei": Preset(
        free=(*_HEALTH, "/info", *_SCHEMA, "/api-doc/*", "POST /tokenize", "POST /decode"),
        error={"error": "$detail", "error_type": "$title"},
    ),
    "tgi": Preset(
        free=(*_HEALTH, "/info", *_SCHEMA, "/api-doc/*", "POST /tokenize"),
        answer="generated_text",
        error={"error": "$detail", "error_type": "$title"},
    ),
    "torchserve": Preset(
        free=("/ping", "/api-description"),
        error={"code": "$status", "type": "$title", "message": "$detail"},
    ),
    "vertex": Preset(
        free=_HEALTH,
        answer="predictions",
        error={"error": {"code": "$status", "message": "$detail", "status": "$title"}},
    ),
}

DEFAULT = Preset(free=(*_HEALTH, "/healthz", "/livez", "/readyz", *_SCHEMA, *_MODELS), error=_TEXT)
"""A server of which nothing is known: what its frameworks usually have."""


def filled(shape: Any, values: Mapping[str, Any]) -> Any:
    """Return a shape with its placeholders replaced."""
    if isinstance(shape, Mapping):
        return {name: filled(inner, values) for name, inner in shape.items()}
    return values[shape]
