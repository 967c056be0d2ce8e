"""Pages of lists: those of several servers in one."""

from collections.abc import Collection, Sequence
from urllib.parse import parse_qsl, urlencode

import orjson

from tollway.backends.documents import load_reply
from tollway.backends.errors import InvalidAnswer
from tollway.backends.types import Page

CURSOR = "after"


def page(body: bytes) -> Page | None:
    """Return the ids on a page, and whether more follow; None if it is no page of a list."""
    try:
        document = load_reply(body)
    except InvalidAnswer:
        return None
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        return None
    names = [str(one["id"]) for one in data if isinstance(one, dict) and one.get("id")]
    return Page(tuple(names), document.get("has_more") is True)


def merged(pages: Sequence[tuple[bytes, Collection[str]]]) -> bytes:
    """Return one page with the entries of several, each without those whose ids are hidden."""
    documents = [load_reply(body) for body, _ in pages]
    data = [
        one
        for document, (_, hidden) in zip(documents, pages, strict=True)
        for one in document["data"]
        if not (isinstance(one, dict) and one.get("id") in hidden)
    ]
    whole = {**documents[0], "data": data}
    if "has_more" in whole:
        whole["has_more"] = documents[-1].get("has_more", False)
    for name, at in (("first_id", 0), ("last_id", -1)):
        if name in whole:
            whole[name] = data[at].get("id") if data else None
    return orjson.dumps(whole)


def cursor(target: bytes) -> str:
    """Return the id after which a request wants to read on; empty if from the beginning."""
    query = target.partition(b"?")[2].decode("latin-1")
    return dict(parse_qsl(query)).get(CURSOR, "")


def after(target: bytes, name: str) -> bytes:
    """Return a target that reads on after an object; from the beginning if `name` is empty."""
    path, _, query = target.partition(b"?")
    pairs = [pair for pair in parse_qsl(query.decode("latin-1")) if pair[0] != CURSOR]
    pairs += [(CURSOR, name)] if name else []
    return path + b"?" + urlencode(pairs).encode() if pairs else path
