"""Keys: how they are made, hashed and matched, and which tenant a request's key belongs to.

A key is `tw_`, 43 random base-62 characters (256 bits) and a 6-character checksum, so that a secret
scanner finds it and a typo is told from a wrong key. With that much entropy a plain SHA-256 is
enough at rest: there is nothing to guess, and a slow hash would be paid on the request path. With a
pepper it is HMAC-SHA256, so that a stolen configuration cannot even confirm a stolen key.

A key comes where clients put keys: `Authorization: Bearer KEY` (or the bare key there),
`x-api-key`, `api-key` or `x-goog-api-key`. A request may carry other credentials beside it, which
are ignored.

On the path a key costs one dictionary look-up: headers that were accepted are remembered, bounded.
Nothing is remembered of those that were refused, so that guessing cannot push anyone out.
"""

import base64
import hashlib
import hmac
import re
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Mapping

ANONYMOUS = "anonymous"
"""The tenant of callers without a key, where the configuration says `open = true`."""

PREFIX = "tw_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS = 43  # log2(62^43) = 256 bits
_CHECK_CHARS = 6  # 62^6 > 2^32: room for a CRC-32
_HASH = re.compile(r"(sha256|hmac-sha256):[0-9a-f]{64}")
_KEY = re.compile(rb"tw_[0-9A-Za-z]{49}")
_HEADER_BYTES_MAX = 512  # ours take 59 with "Bearer "; longer ones are nobody's
_AUTHORIZATION = b"authorization"
KEY_HEADERS = frozenset({_AUTHORIZATION, b"x-api-key", b"api-key", b"x-goog-api-key"})
"""Where clients put keys: OpenAI's SDKs, Anthropic's, Azure's, Google's."""
_REMEMBERED_MAX = 65_536  # headers of callers in good standing; about 15 MB if it were ever full

Header = tuple[bytes, bytes]
Headers = Iterable[Header]


def new_key() -> str:
    """Return a new random key with its checksum."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARS))
    return f"{PREFIX}{body}{_checksum(body)}"


def is_key(text: str) -> bool:
    """Say whether a text is a key of ours that was copied whole (not whether anyone owns it)."""
    body, check = text[len(PREFIX) : -_CHECK_CHARS], text[-_CHECK_CHARS:]
    return text.startswith(PREFIX) and len(body) == _RANDOM_CHARS and _checksum(body) == check


def hash_key(key: str, pepper: str | None = None) -> str:
    """Return a key's hash as configurations hold it: `sha256:<hex>`, or `hmac-sha256:<hex>`."""
    if pepper is None:
        return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    return f"hmac-sha256:{hmac.digest(pepper.encode(), key.encode(), 'sha256').hex()}"


def verify(key: str, hashed: str, pepper: str | None = None) -> bool:
    """Say, in time that does not depend on the answer, whether `hashed` is the hash of `key`."""
    peppered = hashed.startswith("hmac-")
    if peppered and pepper is None:
        return False
    return hmac.compare_digest(hash_key(key, pepper if peppered else None), hashed)


def check_hash(text: str) -> None:
    """Raise ValueError unless a text is a key's hash."""
    if is_key(text):
        raise ValueError("is a key, not its hash; write what this prints: tollway keys hash")
    if _HASH.fullmatch(text) is None:
        raise ValueError(
            "must be sha256: or hmac-sha256: and 64 hex digits, as printed by: tollway keys new"
        )


class Authenticator:
    """Finds the tenant of a request by the key that it carries."""

    # The mutable state of an authenticator is what it remembers of headers that it accepted.

    def __init__(
        self,
        tenants: Mapping[str, str],
        *,
        ends: Mapping[str, float] | None = None,
        admin_hash: str | None = None,
        viewer_hash: str | None = None,
        pepper: str | None = None,
        open_to_all: bool = False,
        labellers: Iterable[str] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Know `tenants` by the hashes of their keys, of which some end at a time (`ends`).

        Where it is `open_to_all`, callers without a key of ours are ANONYMOUS and, if there is no
        admin key, administrators too. A key with our prefix that nobody owns is refused even then.
        """
        self._tenants = dict(tenants)
        self._ends = dict(ends or {})
        self._wall = wall
        self._admin_hash = admin_hash
        self._viewer_hash = viewer_hash
        self._pepper = pepper
        self._open = open_to_all
        self._labellers = frozenset(labellers)
        self._remembered: dict[Header, tuple[str, float]] = {}

    @property
    def anyone_is_admin(self) -> bool:
        """Whether the control plane asks for no key."""
        return self._open and self._admin_hash is None

    def tenant(self, headers: Headers) -> str | None:
        """Return the tenant of a request; None where the request must be refused.

        Costs 1 us. Refused are: no key (unless open), a key of ours that is unknown or has ended,
        two different keys, and a header for keys that stands twice and holds one of ours.
        """
        found = None
        for field in headers:
            if field[0] in KEY_HEADERS:
                if found is not None:
                    return self._tenant_of(_credentials(headers))
                found = field
        if found is None:
            return ANONYMOUS if self._open else None
        known = self._remembered.get(found)
        if known is None or known[1]:  # nearly never: a key that is new here, or one that ends
            return self._tenant_of((found,))
        return known[0]

    def _tenant_of(self, fields: Headers) -> str | None:
        """Return the tenant whose key stands in header fields, of which none stands twice."""
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

    def is_labeller(self, tenant: str) -> bool:
        """Say whether a tenant's labels are trusted."""
        return tenant in self._labellers

    def is_admin(self, headers: Headers) -> bool:
        """Say whether a request may use all of the control plane."""
        if self._admin_hash is None:
            return self._open
        return self._bears(headers, self._admin_hash)

    def is_viewer(self, headers: Headers) -> bool:
        """Say whether a request may read the control plane."""
        if self._viewer_hash is not None and self._bears(headers, self._viewer_hash):
            return True
        return self.is_admin(headers)

    def is_ours(self, name: bytes, value: bytes) -> bool:
        """Say whether a header field holds a key of this gateway, which must not leave it.

        Whatever looks like a key of ours is one, known or not; so is a key of another form that a
        tenant or an operator has. Hashes the value: 2 us, paid where a route forwards credentials.
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
        # Looked up by its hash: what timing could tell is about the hash, which leads to no key.
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


def _credentials(headers: Headers) -> list[Header]:
    """Return the header fields in which clients put keys; of one that stands twice nothing is
    believed, so both values are joined to one that is nobody's.
    """
    found = [field for field in headers if field[0] in KEY_HEADERS]
    if len(found) < 2:
        return found
    joined: dict[bytes, bytes] = {}
    for name, value in found:
        joined[name] = value if name not in joined else joined[name] + b", " + value
    return list(joined.items())


def _key(name: bytes, header: bytes) -> str | None:
    """Return the key in a header field, None where it holds none that could be ours.

    `Authorization` holds it after `Bearer`, or bare where it has our prefix; the others hold it
    bare.
    """
    if len(header) > _HEADER_BYTES_MAX:
        return None
    text = header.strip()
    if name == _AUTHORIZATION:
        if text[:7].lower() == b"bearer ":
            text = text[7:].strip()
        elif not text.startswith(PREFIX.encode()):
            return None
    try:
        return text.decode("ascii") or None
    except UnicodeDecodeError:
        return None


def _claims_to_be_ours(header: bytes) -> bool:
    """Say whether any word of a header field begins like a key of ours, whatever the scheme."""
    prefix = PREFIX.encode()
    return prefix in header and any(
        word.startswith(prefix) for word in header.replace(b",", b" ").split()
    )


def _basic(header: bytes) -> bytes:
    """Return what a `Basic` credential says: `user:password`; nothing where it is none."""
    if header[:6].lower() != b"basic ":
        return b""
    try:
        return base64.b64decode(header[6:].strip())
    except ValueError:
        return b""


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECK_CHARS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
