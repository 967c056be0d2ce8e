"""The key of a request: equal for requests that must get the same answer.

Theory of operation. The key is a digest of the route's settings, the tenant, the method, the
target, the header fields that matter, and the body. Two bodies are the same if they are the same
bytes. Beyond that, JSON documents are the same if they differ only in white space, in the order of
their members, and in members that do not matter, such as `user`. Integers of any length stay
distinct, fractions are compared as doubles. A document that has a name twice is compared as bytes:
two servers may read it differently, so one tenant could plant an answer under the key of another
request.

Reading a document takes ten times as long as hashing it, so the keys of recent bodies are
remembered by the digests of their bytes.
"""

import json
from collections import OrderedDict
from collections.abc import Collection
from hashlib import blake2b
from typing import Any

from tollway.backends.types import Call
from tollway.gateway.caching.determinism import IGNORED, is_deterministic
from tollway.gateway.caching.plan import CachePlan

CANONICAL_BYTES_MAX = (
    16 << 10
)  # larger documents are compared as bytes: reading them takes too long
BODY_BYTES_MAX = 4 << 20  # of a request with a key: hashing takes a millisecond a MiB
REMEMBERED = 8192  # keys of recent bodies: about a megabyte
DIGEST_BYTES = 20
ALWAYS_MATTER = frozenset(
    (
        b"accept",
        b"accept-language",
        b"anthropic-beta",
        b"anthropic-version",
        b"content-encoding",
        b"content-type",
        b"inference-header-content-length",
        b"openai-beta",
        b"range",
    )
)
OF_PROVIDERS = frozenset(
    (b"anthropic-beta", b"anthropic-version", b"inference-header-content-length", b"openai-beta")
)
"""Those of `ALWAYS_MATTER` that mean nothing to a server of plain HTTP."""
HARMLESS = frozenset(
    (
        *(b"accept-encoding", b"cache-control", b"content-length", b"host", b"if-modified-since"),
        *(b"if-none-match", b"traceparent", b"tracestate", b"user-agent", b"via", b"x-request-id"),
    )
)
"""Fields that backends are sent though they are in no key: no answer depends on them. Others, such
as `x-forwarded-host`, are not sent on where tenants share answers: one of them could have an answer
kept that is wrong for the rest."""
_METHODS = frozenset((b"POST", b"GET"))


class Keys:
    """Computes keys."""

    # The mutable state is the keys of recent bodies, least recent first.

    def __init__(self) -> None:
        self._recent: OrderedDict[bytes, bytes] = OrderedDict()

    def of(self, plan: CachePlan, call: Call, tenant: str) -> bytes | None:
        """Return the key of a request (3 us for a body seen before); None if it has none.

        It has none if it samples, uploads a form, concerns objects that a server keeps, or is so
        large that hashing it would hold up other requests.
        """
        payload = call.payload
        if len(call.body) > BODY_BYTES_MAX:
            return None
        if call.method not in _METHODS or payload.form is not None or payload.refers:
            return None
        if payload.creates or payload.defers or payload.fault or payload.endpoint.is_free:
            return None
        head = blake2b(plan.version, digest_size=DIGEST_BYTES)
        matter = plan.headers
        parts = [b"" if plan.is_public else tenant.encode(), call.method, call.target]
        for pair in call.headers:
            if pair[0] in matter:
                parts += pair
        text = b"\0".join([b"%d" % len(part) + b":" + part for part in parts])
        head.update(b"%d:" % len(text) + text)  # so that no body can pass for part of a head
        whole = head.copy()
        whole.update(b"bytes\0")
        whole.update(call.body)
        exact = whole.digest()
        known = self._recent.get(exact)
        if known is not None:
            return known or None
        key = b""
        if plan.always or is_deterministic(plan.protocol, payload):
            document = canonical(call, plan.ignored)
            if document is None:
                key = exact
            else:
                head.update(b"canonical\0" + document)
                key = head.digest()
        self._recent[exact] = key
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return key or None


def canonical(call: Call, ignored: Collection[str]) -> bytes | None:
    """Return the text that equal documents share; None if the body's bytes must be compared."""
    if not call.body or len(call.body) > CANONICAL_BYTES_MAX or call.payload.binary:
        return None
    if not isinstance(call.payload.data, dict):
        return None
    try:
        document = json.loads(call.body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    for name in ignored:
        document.pop(name, None)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return text.encode()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is there more than once")
    return members


def ignored_members(protocol: str, more: Collection[str]) -> frozenset[str]:
    """Return the members that do not matter: those known of a protocol, and `more`."""
    return IGNORED.get(protocol, frozenset()) | frozenset(more)
