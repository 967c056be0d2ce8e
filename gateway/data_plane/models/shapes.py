"""The shapes in which clients expect a list of models: OpenAI's, Anthropic's and Gemini's.

One path, `/v1/models`, is in the APIs of all three. The header fields tell who asks; if they tell
nothing, the protocols of the routes at that path do.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tollway.backends.types import Headers
from tollway.gateway.data_plane.problems import HttpProblem

Entry = Mapping[str, Any]
Query = Mapping[str, str]
"""The fields of a request's query."""

ANTHROPIC_LIMIT, GEMINI_LIMIT = 20, 50
"""The models of a page, unless the client says how many it wants."""
LIMIT_MAX = 1000  # of both APIs


@dataclass(frozen=True, slots=True)
class ModelShape:
    """How clients of a protocol read models.

    entry: the description of a model, given its name and what a server says of it (None: nothing).
    page: the part of a list that a query asks for. HttpProblem 400 if there is no such part.
    """

    protocol: str
    entry: Callable[[str, Entry | None], Entry]
    page: Callable[[list[Entry], Query], Entry]


def asked(headers: Headers, protocols: Iterable[str]) -> ModelShape:
    """Return the shape for a request with these fields; `protocols`: of the routes at its path."""
    names = {name for name, _ in headers}
    known = set(protocols)
    if b"anthropic-version" in names or known == {"anthropic"}:
        return ANTHROPIC
    if b"x-goog-api-key" in names or known == {"gemini"}:
        return GEMINI
    return OPENAI


def _openai_entry(name: str, told: Entry | None) -> Entry:
    if told is not None and "id" in told and ("object" in told or told.get("type") != "model"):
        return told
    # 0: a mix of models has no creation date, and clients expect a number.
    return {"id": name, "object": "model", "created": 0, "owned_by": "tollway"}


def _openai_page(entries: list[Entry], query: Query) -> Entry:
    return {"object": "list", "data": entries}


def _anthropic_entry(name: str, told: Entry | None) -> Entry:
    if told is not None and told.get("type") == "model":
        return told
    model = {"type": "model", "id": name, "display_name": name}
    return model | {"created_at": "1970-01-01T00:00:00Z", "lifecycle": "active"}


def _anthropic_page(entries: list[Entry], query: Query) -> Entry:
    """Return the models after `after_id` or before `before_id`.

    https://platform.claude.com/docs/en/api/models-list
    """
    limit = _limit(query, "limit", ANTHROPIC_LIMIT)
    ids = [str(entry["id"]) for entry in entries]
    if before := query.get("before_id"):
        end = _place(ids, "before_id", before)
        start = max(0, end - limit)
        has_more = start > 0
    else:
        after = query.get("after_id")
        start = _place(ids, "after_id", after) + 1 if after else 0
        end = min(len(ids), start + limit)
        has_more = end < len(ids)
    first, last = (ids[start], ids[end - 1]) if start < end else (None, None)
    return {"data": entries[start:end], "has_more": has_more, "first_id": first, "last_id": last}


def _gemini_entry(name: str, told: Entry | None) -> Entry:
    if told is not None and "name" in told and "id" not in told:
        return told
    methods = ["generateContent", "countTokens", "embedContent"]
    return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}


def _gemini_page(entries: list[Entry], query: Query) -> Entry:
    """Return a page; its token is the place of the next model. https://ai.google.dev/api/models"""
    size = _limit(query, "pageSize", GEMINI_LIMIT)
    token = query.get("pageToken", "0")
    if not (token.isascii() and token.isdigit() and int(token[:9]) <= len(entries)):
        raise _unreadable("pageToken", token, "is no token of a page of this list")
    start, end = int(token), int(token) + size
    page = {"models": entries[start:end]}
    return {**page, "nextPageToken": str(end)} if end < len(entries) else page


def _limit(query: Query, key: str, usual: int) -> int:
    """Return how many models a page may have; more than are allowed count as the maximum."""
    told = query.get(key) or str(usual)
    if not (told.isascii() and told.isdigit() and int(told[:9]) > 0):
        raise _unreadable(key, told, "is not a number above 0")
    return min(int(told[:9]), LIMIT_MAX)


def _place(ids: list[str], key: str, name: str) -> int:
    if name not in ids:
        raise _unreadable(key, name, "is not a model of this list")
    return ids.index(name)


def _unreadable(key: str, value: str, what: str) -> HttpProblem:
    return HttpProblem(400, "Bad request", f"{key}: {value[:64]!r} {what}")


OPENAI = ModelShape("openai", _openai_entry, _openai_page)
ANTHROPIC = ModelShape("anthropic", _anthropic_entry, _anthropic_page)
GEMINI = ModelShape("gemini", _gemini_entry, _gemini_page)
