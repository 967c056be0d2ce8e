"""Idempotency: stores responses for retries with the same Idempotency-Key.

This follows the IETF draft (draft-ietf-httpapi-idempotency-key-header). The same key with the same
request returns the stored response, with another request it returns 422, and while the first
request is in progress it returns 409. The store is bounded by bytes and age, and evicts the oldest
first. A response is stored only in the worker that gave it. Refusals, failures (5xx) and streams
are not stored, so they can be retried.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

from tollway.backends.types import Call, Headers, record
from tollway.gateway.data_plane.problems import HttpProblem

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

    # The mutable state is the stored responses, oldest first, their size, and the keys in progress.

    def __init__(self, *, keeps_s: float, bytes_max: int) -> None:
        """Store responses for `keeps_s`, in at most `bytes_max` in total."""
        self._keeps_s = keeps_s
        self._bytes_max = bytes_max
        self._kept: OrderedDict[Key, tuple[float, bytes, StoredResponse]] = OrderedDict()
        self._under_way: dict[Key, bytes] = {}
        self.size_bytes = 0

    def begin(self, key: Key, print_: bytes, now_s: float) -> StoredResponse | None:
        """Return the stored response of a key; if None, the caller must call `end` later.

        Raises HttpProblem if the key was used with another request (422) or its request is still in
        progress (409).
        """
        self._expire(now_s)
        under_way = self._under_way.get(key)
        found = self._kept.get(key)
        before = under_way if found is None else found[1]
        if before is not None and before != print_:
            raise HttpProblem(
                422, "Idempotency key reused", "this key was used for another request"
            )
        if under_way is not None:
            refused = HttpProblem(
                409, "Request under way", "the first request with this key has not ended"
            )
            refused.headers.append((b"retry-after", b"1"))
            raise refused
        if found is None and len(self._under_way) < _UNDER_WAY_MAX:
            self._under_way[key] = print_
        return None if found is None else found[2]

    def end(self, key: Key, kept: StoredResponse | None, now_s: float) -> None:
        """Store a response; without one, the next request with the key counts as the first."""
        print_ = self._under_way.pop(key, None)
        if kept is None or print_ is None or kept.status >= 500:
            return
        size = _size(kept)
        if size > self._bytes_max:
            return
        self._kept[key] = (now_s, print_, kept)
        self.size_bytes += size
        while self.size_bytes > self._bytes_max:
            self._forget()

    def _expire(self, now_s: float) -> None:
        while self._kept and now_s - next(iter(self._kept.values()))[0] > self._keeps_s:
            self._forget()

    def _forget(self) -> None:
        _, (_, _, kept) = self._kept.popitem(last=False)
        self.size_bytes -= _size(kept)


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return a request's key (0.3 us); HttpProblem if it is too long or empty."""
    for name, value in headers:
        if name == HEADER:
            if not 0 < len(value) <= KEY_BYTES_MAX:
                why = f"Idempotency-Key has from 1 to {KEY_BYTES_MAX} bytes"
                raise HttpProblem(400, "Bad header", why)
            return value
    return None


def fingerprint(call: Call) -> bytes:
    """Return a digest of a request's method, target and body."""
    digest = hashlib.blake2b(b"%b %b\n" % (call.method, call.target), digest_size=16)
    digest.update(call.body)
    return digest.digest()


def _size(kept: StoredResponse) -> int:
    return _OVERHEAD_BYTES + len(kept.body) + sum(len(n) + len(v) for n, v in kept.headers)
