"""The control plane as an OpenAPI 3.1 document, served at /_tollway/openapi.json.

It describes the requests and the response statuses; the figures themselves are described in docs/.
Tests send requests generated from it to verify it.
"""

from importlib.metadata import version
from typing import Any

from tollway.gateway.control_plane.dashboard_data import RANGES
from tollway.gateway.learning.feedback_items import FEEDBACK_MAX, PROBABILITY_MIN

Json = dict[str, Any]

PROBLEM: Json = {
    "description": "An RFC 9457 problem: what is wrong, and what to do.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
OBJECT: Json = {"type": "object"}
TEXT: Json = {"type": "string", "minLength": 1}
AMOUNT: Json = {"type": "string", "pattern": r"^\d{1,6}(\.\d{1,9})?$"}


def document() -> Json:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tollway's control plane", "version": version("tollway")},
        "security": [{"key": []}],
        "paths": {
            "/_tollway/feedback": {"post": _feedback()},
            "/_tollway/budgets": {"get": _get("Every budget in its current window")},
            "/_tollway/budgets/{name}": {
                "parameters": [_at("name")],
                "get": _get("One budget, who holds its money, and the changes to it", 404, 503),
                "post": _change(),
            },
            "/_tollway/decisions/{id}": {
                "parameters": [_at("id")],
                "get": _get("What happened on one request, and why", 404),
            },
            "/_tollway/spend": {"get": _get("What each route, backend and tenant has cost")},
            "/_tollway/events": {"get": _get("The newest events, newest first")},
            "/_tollway/routes": {"get": _get("The routes, and what their policies have learned")},
            "/_tollway/overview": {"get": {**_get("What the dashboard shows", 400), **_asked()}},
            "/_tollway/live": {"get": _live()},
            "/_tollway/reload": {"post": _reload()},
            "/_tollway/dashboard": {"get": _open("The dashboard", "text/html")},
            "/_tollway/openapi.json": {"get": _open("This document", "application/json")},
            "/metrics": {"get": _open("Figures for Prometheus", "text/plain")},
            "/livez": {"get": _open("Whether the process runs", "text/plain")},
            "/healthz": {"get": _open("As /livez", "text/plain")},
            "/readyz": {"get": _open("Whether new requests are welcome", "text/plain", 503)},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _problem(), "Feedback": _told()},
        },
    }


def _get(text: str, *more: int) -> Json:
    return {"summary": text, "responses": _responses(_json(), 401, *more)}


def _open(text: str, kind: str, *more: int) -> Json:
    answered = {"description": text, "content": {kind: {}}}
    responses: Json = {"200": answered}
    responses |= {str(status): {"description": "Not now", "content": {kind: {}}} for status in more}
    return {"summary": text, "security": [], "responses": responses}


def _responses(answered: Json, *problems: int) -> Json:
    return {"200": answered} | {str(status): PROBLEM for status in problems}


def _json() -> Json:
    return {"description": "As it is now", "content": {"application/json": {"schema": OBJECT}}}


def _at(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def _asked() -> Json:
    texts = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _FILTERS]
    ranges = {"name": "range", "in": "query", "schema": {"enum": list(RANGES)}}
    return {"parameters": [ranges, *texts]}


_FILTERS = ("route", "tenant")


def _live() -> Json:
    events = {
        "description": "Overviews, one each two seconds",
        "content": {"text/event-stream": {}},
    }
    responses = {"200": events, "400": PROBLEM, "401": PROBLEM}
    return {"summary": "The overview, live", **_asked(), "responses": responses}


def _body(schema: Json) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _feedback() -> Json:
    one: Json = {"$ref": "#/components/schemas/Feedback"}
    many = {"type": "array", "items": one, "maxItems": FEEDBACK_MAX}
    return {
        "summary": "What answers were worth, one or many; a tenant's key speaks of its own",
        "requestBody": _body({"oneOf": [one, many]}),
        "responses": {
            **_responses(_json(), 400, 401, 413, 429),
            "202": {**_json(), "description": "Learned"},
            "404": {**_json(), "description": "No decision of this id"},
            "422": {**_json(), "description": "It says nothing that can be learned"},
            "503": {**_json(), "description": "The disk refuses it; send it again later"},
        },
    }


def _told() -> Json:
    values = {
        "quality": {"type": "number", "minimum": 0, "maximum": 1},
        "correct": {"type": "boolean"},
        "label": {"type": ["string", "number", "boolean", "array", "object"]},
    }
    return {
        "type": "object",
        "required": ["decision"],
        "properties": {
            "decision": {"type": "string"},
            **values,
            "source": {"type": "string", "maxLength": 64},
            "probability": {"type": "number", "minimum": PROBABILITY_MIN, "maximum": 1},
        },
        "oneOf": [{"required": [name]} for name in values],
        "additionalProperties": False,
    }


def _change() -> Json:
    takes = {"limit": "limit_usd", "credit": "amount_usd", "reset": None, "release": "lease"}
    forms = []
    for action, key in takes.items():
        extra = {} if key is None else {key: TEXT if key == "lease" else AMOUNT}
        properties = {"action": {"const": action}, "who": TEXT, "why": TEXT, **extra}
        forms.append(
            {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        )
    return {
        "summary": "Change a budget; who and why are recorded",
        "requestBody": _body({"oneOf": forms}),
        "responses": _responses(_json(), 400, 401, 403, 404, 413, 422, 503),
    }


def _reload() -> Json:
    return {
        "summary": "Reload the configuration, atomically",
        "responses": _responses(_json(), 401, 403, 422, 501, 503),
    }


def _problem() -> Json:
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    }
