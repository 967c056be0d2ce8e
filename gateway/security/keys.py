"""Keys: their generation, hashing and verification, and their place in a request.

A key is `tw_`, 43 random base-62 characters (256 bits) and a 6-character checksum, so that a secret
scanner finds it and a typo can be distinguished from a wrong key. With that much entropy a plain
SHA-256 is enough at rest: there is nothing to guess, and a slow hash would be paid on the request
path. With a pepper it is HMAC-SHA256, so that a stolen configuration cannot even confirm a stolen
key.

A key is read from the fields that clients use: `Authorization: Bearer KEY` (or the bare key),
`x-api-key`, `api-key` or `x-goog-api-key`. Other credentials in the same request are ignored.

On the request path a key costs one dictionary look-up: a bounded cache holds accepted headers.
Refused headers are not cached, so that guessing cannot evict anyone.
"""

import base64
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Iterable

ANONYMOUS = "anonymous"
"""The tenant of callers without a key, if `allow_anonymous = true`."""

PREFIX = "tw_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS = 43  # log2(62^43) = 256 bits
_CHECK_CHARS = 6  # 62^6 > 2^32: room for a CRC-32
_HASH = re.compile(r"(sha256|hmac-sha256):[0-9a-f]{64}")
_KEY = re.compile(rb"tw_[0-9A-Za-z]{49}")
_HEADER_BYTES_MAX = 512  # ours take 59 with "Bearer "; longer ones cannot be ours
_AUTHORIZATION = b"authorization"
KEY_HEADERS = frozenset({_AUTHORIZATION, b"x-api-key", b"api-key", b"x-goog-api-key"})
"""Fields in which the SDKs of OpenAI, Anthropic, Azure and Google send keys."""

Header = tuple[bytes, bytes]
Headers = Iterable[Header]


def new_key() -> str:
    """Return a new random key with its checksum."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARS))
    return f"{PREFIX}{body}{_checksum(body)}"


def is_key(text: str) -> bool:
    """Return whether a text is a complete key of this gateway (not whether a tenant owns it)."""
    body, check = text[len(PREFIX) : -_CHECK_CHARS], text[-_CHECK_CHARS:]
    return text.startswith(PREFIX) and len(body) == _RANDOM_CHARS and _checksum(body) == check


def hash_key(key: str, pepper: str | None = None) -> str:
    """Return a key's hash for the configuration: `sha256:<hex>`, or `hmac-sha256:<hex>`."""
    if pepper is None:
        return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    return f"hmac-sha256:{hmac.digest(pepper.encode(), key.encode(), 'sha256').hex()}"


def verify(key: str, hashed: str, pepper: str | None = None) -> bool:
    """Return, in constant time, whether `hashed` is the hash of `key`."""
    peppered = hashed.startswith("hmac-")
    if peppered and pepper is None:
        return False
    return hmac.compare_digest(hash_key(key, pepper if peppered else None), hashed)


def check_hash(text: str) -> None:
    """Raise ValueError unless a text is a valid key hash."""
    if is_key(text):
        raise ValueError("is a key, not a hash; write the hash that this prints: tollway keys hash")
    if _HASH.fullmatch(text) is None:
        raise ValueError(
            "must be sha256: or hmac-sha256: and 64 hex digits, as printed by: tollway keys new"
        )


def _credentials(headers: Headers) -> list[Header]:
    """Return the header fields in which clients send keys.

    The values of a repeated field are joined, so that they match no tenant's key.
    """
    fields = [field for field in headers if field[0] in KEY_HEADERS]
    if len(fields) < 2:
        return fields
    joined: dict[bytes, bytes] = {}
    for name, value in fields:
        joined[name] = value if name not in joined else joined[name] + b", " + value
    return list(joined.items())


def _key(name: bytes, header: bytes) -> str | None:
    """Return the key in a header field; None if it contains none that could be ours.

    `Authorization` holds the key after `Bearer`, or bare if it has our prefix. The other fields
    hold it bare.
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
    """Return whether any word of a header field starts like our keys, in any scheme."""
    prefix = PREFIX.encode()
    return prefix in header and any(
        word.startswith(prefix) for word in header.replace(b",", b" ").split()
    )


def _basic(header: bytes) -> bytes:
    """Return the `user:password` of a `Basic` credential; empty if it is not one."""
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
