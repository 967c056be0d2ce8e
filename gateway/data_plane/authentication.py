"""Authentication: finds the tenant of a request by its key."""

import time
from collections.abc import Callable, Iterable, Mapping

from tollway.gateway.security.keys import (
    _KEY,
    ANONYMOUS,
    KEY_HEADERS,
    Header,
    Headers,
    _basic,
    _claims_to_be_ours,
    _credentials,
    _key,
    hash_key,
    verify,
)

_REMEMBERED_MAX = 65_536  # accepted headers; about 15 MB if the cache were ever full


class Authenticator:
    """Finds the tenant of a request by its key."""

    # The mutable state of an authenticator is its cache of accepted headers.

    def __init__(
        self,
        tenants: Mapping[str, str],
        *,
        ends: Mapping[str, float] | None = None,
        admin_hash: str | None = None,
        made_hash: str | None = None,
        viewer_hash: str | None = None,
        pepper: str | None = None,
        open_to_all: bool = False,
        labellers: Iterable[str] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`tenants` maps key hashes to tenants; `ends` maps key hashes to expiry times.

        With `open_to_all`, callers without a key of this gateway are ANONYMOUS. An unknown key with
        our prefix is refused even then. `made_hash` is the hash of the admin key that the gateway
        made for itself; it counts only if no `admin_hash` is configured.
        """
        self._tenants = dict(tenants)
        self._ends = dict(ends or {})
        self._ending = {self._tenants[key] for key in self._ends if key in self._tenants}
        self._wall = wall
        self._admin_hash = admin_hash or made_hash
        self._open_here = open_to_all and admin_hash is None
        self._viewer_hash = viewer_hash
        self._pepper = pepper
        self._open = open_to_all
        self._labellers = frozenset(labellers)
        self._remembered: dict[Header, tuple[str, float]] = {}

    @property
    def is_open_here(self) -> bool:
        """Whether the control plane serves programs on this machine without a key."""
        return self._open_here

    def tenant(self, headers: Headers) -> str | None:
        """Return the tenant of a request; None if the request must be refused (1 us).

        Refused are: no key (unless open), a key of ours that is unknown or expired, two different
        keys, and a repeated key header that holds one of our keys.
        """
        credential = None
        for field in headers:
            if field[0] in KEY_HEADERS:
                if credential is not None:
                    return self._tenant_of(_credentials(headers))
                credential = field
        if credential is None:
            return ANONYMOUS if self._open else None
        known = self._remembered.get(credential)
        if known is None or known[1]:  # rare: a key that is not cached, or one that expires
            return self._tenant_of((credential,))
        return known[0]

    def _tenant_of(self, fields: Headers) -> str | None:
        """Return the tenant whose key is in the given header fields, none of them repeated."""
        known: tuple[str, float] | None = None
        for header in fields:
            one = self._remembered.get(header) or self._find(header)
            if one is None:
                if _claims_to_be_ours(header[1]):
                    return None
            elif known is not None and one != known:
                return None
            else:
                known = one
        if known is None:
            return ANONYMOUS if self._open else None
        tenant, end_s = known
        if end_s and self._wall() >= end_s:
            return None
        return tenant

    def may_end(self, tenant: str) -> bool:
        """Return whether a tenant has a key that expires."""
        return tenant in self._ending

    def is_labeller(self, tenant: str) -> bool:
        """Return whether a tenant's labels are trusted."""
        return tenant in self._labellers

    def is_admin(self, headers: Headers) -> bool:
        """Return whether a request has the admin key."""
        return self._admin_hash is not None and self._bears(headers, self._admin_hash)

    def is_viewer(self, headers: Headers) -> bool:
        """Return whether a request may read the control plane."""
        if self._viewer_hash is not None and self._bears(headers, self._viewer_hash):
            return True
        return self.is_admin(headers)

    def is_ours(self, name: bytes, value: bytes) -> bool:
        """Return whether a header field holds a key of this gateway, which must not leave it.

        Anything that looks like a key of ours counts, known or not, and so does a key of another
        form that belongs to a tenant or an operator. Hashing the value takes 2 us, and is done only
        if a route forwards credentials.
        """
        if _KEY.search(value) or _claims_to_be_ours(value):
            return True
        if _KEY.search(_basic(value)):
            return True
        key = _key(name, value)
        if key is None:
            return False
        operators = (self._admin_hash, self._viewer_hash)
        return self._owner(key) is not None or any(
            hashed is not None and verify(key, hashed, self._pepper) for hashed in operators
        )

    def _bears(self, headers: Headers, hashed: str) -> bool:
        keys = [_key(*header) for header in _credentials(headers)]
        return any(key is not None and verify(key, hashed, self._pepper) for key in keys)

    def _find(self, header: Header) -> tuple[str, float] | None:
        key = _key(*header)
        known = None if key is None else self._owner(key)
        if known is not None:
            self._remember(header, known)
        return known

    def _owner(self, key: str) -> tuple[str, float] | None:
        # Looked up by hash: timing could reveal only the hash, from which no key can be derived.
        hashes = [hash_key(key)]
        if self._pepper is not None:
            hashes.append(hash_key(key, self._pepper))
        for hashed in hashes:
            if hashed in self._tenants:
                return self._tenants[hashed], self._ends.get(hashed, 0.0)
        return None

    def _remember(self, header: Header, known: tuple[str, float]) -> None:
        if len(self._remembered) >= _REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[header] = known
