"""The control plane as an OpenAPI 3.1 document, served at /_tollway/openapi.json.

It describes requests and response statuses. The members of the responses are described in docs/.
Tests send requests generated from it to verify it.
"""

from importlib.metadata import version
from typing import Any

from tollway.gateway.control_plane import acts
from tollway.gateway.control_plane.dashboard_data import RANGES
from tollway.gateway.control_plane.rollouts import ACTIONS
from tollway.gateway.learning.feedback_items import FEEDBACK_MAX, PROBABILITY_MIN, QUALITIES_MAX
from tollway.gateway.learning.warm_up import QUOTED_MAX

Json = dict[str, Any]

PROBLEM: Json = {
    "description": "An RFC 9457 problem: what is wrong, and how to fix it.",
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
            "/_tollway/budgets": {"get": _get("List the budgets, each in its current window")},
            "/_tollway/budgets/{name}": {
                "parameters": [_at("name")],
                "get": _get("Get a budget with its leases and its change history", 404, 503),
                "post": _change(),
            },
            "/_tollway/decisions/{id}": {
                "parameters": [_at("id")],
                "get": _get(
                    "Explain the decision of a request; tenants get their own costs",
                    404,
                ),
            },
            "/_tollway/spend": {
                "get": _get("Get the cost by route, backend and tenant since the start")
            },
            "/_tollway/events": {"get": _get("List the newest events, newest first")},
            "/_tollway/audit": {"get": _audit()},
            "/_tollway/routes": {"get": _get("List the routes with their backends and policies")},
            "/_tollway/scaling": {
                "get": _get("Explain the recommended numbers of replicas of all backends")
            },
            "/_tollway/scaling/{backend}": {
                "parameters": [_at("backend")],
                "get": _get("Explain the recommended number of replicas of a backend", 404),
            },
            "/_tollway/features": {"get": _get("List the groups of features from outside")},
            "/_tollway/features/{name}/{entity}": {
                "parameters": [_at("name"), _at("entity")],
                "get": _get("Get the features of an entity", 400, 403, 404, 503),
                "put": _put_features(),
                "delete": {
                    "summary": "Erase an entity from all tiers and from the journal, with proof",
                    "responses": _responses(_json(), 400, 401, 403, 404, 503),
                },
            },
            "/_tollway/features/{name}/{entity}/invalidate": {
                "parameters": [_at("name"), _at("entity")],
                "post": {
                    "summary": "Drop an entity from memory and Redis, on all gateways",
                    "responses": _responses(_json(), 400, 401, 403, 404, 503),
                },
            },
            "/_tollway/models": {
                "get": _get("List the registered models and the versions that serve", 503)
            },
            "/_tollway/models/{name}": {
                "parameters": [_at("name")],
                "get": _get("Get a registered model with its versions", 404, 503),
                "post": _move(),
            },
            "/_tollway/registry/webhook": {"post": _webhook()},
            "/_tollway/rollouts": {"get": _get("List the rollouts, with their evidence", 503)},
            "/_tollway/rollouts/{name}": {
                "parameters": [_at("name")],
                "get": _get("Get a rollout: its step, evidence and what it waits for", 404, 503),
                "post": _rollout(),
            },
            "/_tollway/rollouts/{name}/history": {
                "parameters": [_at("name")],
                "get": _get("List the moves of a rollout, newest first", 404, 503),
            },
            "/_tollway/overview": {
                "get": {**_get("Get the data of the dashboard", 400), **_asked()}
            },
            "/_tollway/live": {"get": _live()},
            "/_tollway/reload": {"post": _reload()},
            "/_tollway/warmup": {"post": _warm_up()},
            "/_tollway/dashboard": {"get": _open("Get the dashboard page", "text/html")},
            "/_tollway/openapi.json": {"get": _open("Get this document", "application/json")},
            "/metrics": {"get": _open("Get the metrics for Prometheus", "text/plain")},
            "/livez": {"get": _open("Liveness: 200 while the process runs", "text/plain")},
            "/healthz": {"get": _open("Liveness, the same as /livez", "text/plain")},
            "/readyz": {
                "get": _open("Readiness: 200 if new requests are accepted", "text/plain", 503)
            },
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _problem(), "Feedback": _feedback_schema()},
        },
    }


def _get(text: str, *more: int) -> Json:
    return {"summary": text, "responses": _responses(_json(), 401, *more)}


def _open(text: str, kind: str, *more: int) -> Json:
    answered = {"description": text, "content": {kind: {}}}
    responses: Json = {"200": answered}
    responses |= {
        str(status): {"description": "Not ready", "content": {kind: {}}} for status in more
    }
    return {"summary": text, "security": [], "responses": responses}


def _responses(answered: Json, *problems: int) -> Json:
    return {"200": answered} | {str(status): PROBLEM for status in problems}


def _json() -> Json:
    return {"description": "The current state", "content": {"application/json": {"schema": OBJECT}}}


def _at(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def _asked() -> Json:
    texts = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _FILTERS]
    ranges = {"name": "range", "in": "query", "schema": {"enum": list(RANGES)}}
    return {"parameters": [ranges, *texts]}


_FILTERS = ("route", "tenant")


def _live() -> Json:
    events = {
        "description": "The data of the dashboard, every two seconds",
        "content": {"text/event-stream": {}},
    }
    responses = {"200": events, "400": PROBLEM, "401": PROBLEM}
    return {
        "summary": "Stream the data of the dashboard as server-sent events",
        **_asked(),
        "responses": responses,
    }


def _audit() -> Json:
    schema = {"type": "integer", "minimum": 1, "maximum": acts.MOST, "default": acts.USUAL}
    return {
        **_get("List the newest acts of operators, newest first", 400, 503),
        "parameters": [{"name": "limit", "in": "query", "schema": schema}],
    }


def _rollout() -> Json:
    schema = {
        "type": "object",
        "properties": {"action": {"enum": list(ACTIONS)}, "who": TEXT, "why": TEXT},
        "required": ["action", "who", "why"],
        "additionalProperties": False,
    }
    return {
        "summary": "Start, pause, resume, promote or abort a rollout",
        "requestBody": _body(schema),
        "responses": _responses(_json(), 400, 401, 404, 409, 422, 503),
    }


def _body(schema: Json) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _feedback() -> Json:
    one: Json = {"$ref": "#/components/schemas/Feedback"}
    many = {"type": "array", "items": one, "maxItems": FEEDBACK_MAX}
    return {
        "summary": "Send one item of feedback or a list; tenants only on their own decisions",
        "requestBody": _body({"oneOf": [one, many]}),
        "responses": {
            **_responses(_json(), 400, 401, 413, 429),
            "202": {**_json(), "description": "Learned"},
            "404": {**_json(), "description": "No decision with this id"},
            "422": {**_json(), "description": "Nothing can be learned from it"},
            "503": {**_json(), "description": "The journal cannot be written; send it again later"},
        },
    }


def _feedback_schema() -> Json:
    values = {
        "quality": {"type": "number", "minimum": 0, "maximum": 1},
        "correct": {"type": "boolean"},
        "label": {"type": ["string", "number", "boolean", "array", "object"]},
        "qualities": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": QUALITIES_MAX,
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
        },
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
        "summary": "Change a budget; `who` and `why` are recorded",
        "requestBody": _body({"oneOf": forms}),
        "responses": _responses(_json(), 400, 401, 403, 404, 413, 422, 503),
    }


def _put_features() -> Json:
    values = {"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}}
    schema = {"type": "object", "properties": {"values": values}, "required": ["values"]}
    return {
        "summary": "Write the features of an entity through all tiers",
        "requestBody": _body(schema),
        "responses": _responses(_json(), 400, 401, 403, 404, 409, 413, 422, 503),
    }


def _move() -> Json:
    properties = {
        "alias": {"enum": ["champion", "challenger"]},
        "version": {**TEXT, "maxLength": 64},
        "who": TEXT,
        "why": TEXT,
    }
    form = {
        "type": "object",
        "properties": properties,
        "required": ["alias", "who", "why"],
        "additionalProperties": False,
    }
    return {
        "summary": "Give an alias to a version, or to none; `who` and `why` are recorded",
        "requestBody": _body(form),
        "responses": _responses(_json(), 400, 401, 403, 404, 413, 422, 503),
    }


def _webhook() -> Json:
    return {
        "summary": "Look at the registry now: a webhook of MLflow, signed with the secret of both",
        "security": [],
        "requestBody": _body({"type": "object"}),
        "responses": _responses(_json(), 400, 401, 404, 413),
    }


def _reload() -> Json:
    return {
        "summary": "Reload the configuration, atomically",
        "responses": _responses(_json(), 401, 403, 422, 501, 503),
    }


def _warm_up() -> Json:
    names = {"route": TEXT, "path": TEXT, "tenant": TEXT}
    several = {"type": "array", "items": OBJECT, "maxItems": QUOTED_MAX}
    backends = {"type": "array", "items": TEXT}
    properties = {
        **names,
        "request": OBJECT,
        "requests": several,
        "backends": backends,
        "qualities": OBJECT,
        "context": OBJECT,
    }
    schema = {
        "type": "object",
        "required": ["route"],
        "properties": properties,
        "additionalProperties": False,
    }
    return {
        "summary": "Ask all backends of a route one request, or learn qualities that are known",
        "requestBody": _body(schema),
        "responses": _responses(_json(), 400, 401, 403, 404, 413, 503),
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
