"""Azure's paths for OpenAI's API, as clients ask for them and as a backend has them.

    /v1/chat/completions                                      OpenAI, and servers like it
    /openai/v1/chat/completions                               Azure, without a version
    /openai/deployments/NAME/chat/completions?api-version=V   Azure, with one: NAME is the model
    /openai/files?api-version=V                               the same, where no model is asked

A client may use any of them before any backend: its path is read into what follows the root of the
API, and written again as the backend has it.
"""

import re
from urllib.parse import quote, unquote

_ROOT = re.compile(rb"/openai/deployments/([^/?]+)/|/openai/v\d+/|/openai/|/v\d+/")
_VERSION = re.compile(rb"(?<![^&])api-version=[^&]*&?")
_DEPLOYED = re.compile(rb"(?:chat/)?completions$|embeddings$|audio/|images/")
_ROOTS = (b"/openai/v1", b"/openai", b"/v1")


def deployment(target: bytes) -> str:
    """Return the deployment that a path names; empty if it names none (0.2 us)."""
    if b"/deployments/" not in target:
        return ""
    found = _ROOT.search(target.partition(b"?")[0])
    return unquote((found.group(1) or b"").decode("latin-1")) if found else ""


def asks_azure(target: bytes) -> bool:
    """Return whether a path is one of Azure's (0.1 us if it is not)."""
    return b"/openai/" in target and _is_azure(target)


def at_openai(target: bytes, base: bytes) -> bytes:
    """Return the target at a server without Azure's paths."""
    before, rest, query = _split(target)
    if base.endswith(b"/v1"):
        base = base.removesuffix(b"/v1")
    return b"%b%b/v1/%b%b" % (base, before, rest, _query(query))


def at_azure(target: bytes, base: bytes, version: str, model: str) -> bytes:
    """Return the target at Azure; `version`: that of the API, empty for the one without versions.

    Without a version, a client's own path of a deployment is kept. `model`: the deployment.
    """
    before, rest, query = _split(target)
    for root in _ROOTS:
        base = base.removesuffix(root)
    named = deployment(target)
    if version:
        query = b"&".join([part for part in (b"api-version=" + version.encode(), query) if part])
    else:  # what the client says of a version is for Azure
        query = target.partition(b"?")[2]
        if not named:
            return b"%b%b/openai/v1/%b%b" % (base, before, rest, _query(query))
    where = b""
    if (model or named) and _DEPLOYED.match(rest):
        where = b"deployments/%b/" % quote(model or named, safe="").encode()
    return b"%b%b/openai/%b%b%b" % (base, before, where, rest, _query(query))


def _is_azure(target: bytes) -> bool:
    found = _ROOT.search(target.partition(b"?")[0])
    return found is not None and found.group().startswith(b"/openai/")


def _split(target: bytes) -> tuple[bytes, bytes, bytes]:
    """Return what is before the root of the API, what is below it, and the query.

    The query is without the version of Azure's API.
    """
    path, _, query = target.partition(b"?")
    query = _VERSION.sub(b"", query).rstrip(b"&")
    found = _ROOT.search(path)
    if found is None:
        return b"", path.lstrip(b"/"), query
    return path[: found.start()], path[found.end() :], query


def _query(query: bytes) -> bytes:
    return b"?" + query if query else b""
