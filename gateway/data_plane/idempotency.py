"""Idempotency: stores responses for retries with the same Idempotency-Key.

This follows the IETF draft (draft-ietf-httpapi-idempotency-key-header). The same key with the same
request returns the stored response, with another request it returns 422, and while the first
request is in progress it returns 409. The store is bounded by bytes and age, and evicts the oldest
response of the tenant that stores most, so that a tenant cannot evict the responses of others and
make their retries be charged again. A response is stored only in the worker that gave it. Refusals,
failures (5xx) and streams are not stored, so they can be retried.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable

from tollway.backends.types import Call, Headers
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.record import record

HEADER = b"idempotency-key"
KEY_BYTES_MAX = 255  # Stripe's limit
_OVERHEAD_BYTES = 1024  # the size of an entry without its body and headers
_UNDER_WAY_MAX = 100_000

Key = tuple[str, str, bytes]
"""(tenant, route, the client's key)"""


@record
class StoredResponse:
    """A response as it was sent to the client."""

    status: int
    headers: Headers
    body: bytes


class IdempotencyStore:
    """The store of one worker."""

    # The mutable state is the stored responses of each tenant, oldest first, their sizes, and the
    # keys in progress.

    def __init__(self, *, keeps_s: float, bytes_max: int) -> None:
        """Store responses for `keeps_s`, in at most `bytes_max` in total."""
        self._keeps_s = keeps_s
        self._bytes_max = bytes_max
        self._responses: dict[str, OrderedDict[Key, tuple[float, bytes, StoredResponse]]] = {}
        self._sizes: Counter[str] = Counter()
        self._under_way: dict[Key, bytes] = {}
        self.size_bytes = 0

    def begin(self, key: Key, print_: bytes, now_s: float) -> StoredResponse | None:
        """Return the stored response of a key; if None, the caller must call `end` later.

        Raises HttpProblem if the key was used with another request (422) or its request is still in
        progress (409).
        """
        self._expire(key[0], now_s)
        under_way = self._under_way.get(key)
        responses = self._responses.get(key[0])
        entry = None if responses is None else responses.get(key)
        before = under_way if entry is None else entry[1]
        if before is not None and before != print_:
            raise HttpProblem(
                422, "Idempotency key reused", "this key was already used for a different request"
            )
        if under_way is not None:
            refused = HttpProblem(
                409, "Request under way", "the first request with this key is still in progress"
            )
            refused.headers.append((b"retry-after", b"1"))
            raise refused
        if entry is None and len(self._under_way) < _UNDER_WAY_MAX:
            self._under_way[key] = print_
        return None if entry is None else entry[2]

    def end(self, key: Key, response: StoredResponse | None, now_s: float) -> None:
        """Store a response; without one, the next request with the key counts as the first."""
        print_ = self._under_way.pop(key, None)
        if response is None or print_ is None or response.status >= 500:
            return
        size = _size(response)
        if size > self._bytes_max:
            return
        self._responses.setdefault(key[0], OrderedDict())[key] = (now_s, print_, response)
        self._sizes[key[0]] += size
        self.size_bytes += size
        while self.size_bytes > self._bytes_max:
            self._forget(max(self._sizes, key=self._sizes.__getitem__))

    def _expire(self, tenant: str, now_s: float) -> None:
        while responses := self._responses.get(tenant):
            if now_s - next(iter(responses.values()))[0] <= self._keeps_s:
                break
            self._forget(tenant)

    def _forget(self, tenant: str) -> None:
        responses = self._responses[tenant]
        _, (_, _, response) = responses.popitem(last=False)
        size = _size(response)
        self._sizes[tenant] -= size
        self.size_bytes -= size
        if not responses:
            del self._responses[tenant], self._sizes[tenant]


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return a request's key (0.3 us); HttpProblem if it is too long or empty."""
    for name, value in headers:
        if name == HEADER:
            if not 0 < len(value) <= KEY_BYTES_MAX:
                why = f"Idempotency-Key must have 1 to {KEY_BYTES_MAX} bytes"
                raise HttpProblem(400, "Bad header", why)
            return value
    return None


def fingerprint(call: Call) -> bytes:
    """Return a digest of a request's method, target and body."""
    digest = hashlib.blake2b(b"%b %b\n" % (call.method, call.target), digest_size=16)
    digest.update(call.body)
    return digest.digest()


def _size(response: StoredResponse) -> int:
    return _OVERHEAD_BYTES + len(response.body) + sum(len(n) + len(v) for n, v in response.headers)
