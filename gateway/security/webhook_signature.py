"""The signature of webhooks, as in Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"  # of secrets in the form of Standard Webhooks: the key follows in base64
KEY_BYTES_MIN = 16


def key_of(secret: str) -> bytes:
    """Return the key that a configured secret stands for.

    A secret that begins with `whsec_` is decoded; any other is used as it is, in UTF-8. Raises
    ValueError, with the correct form, for one that begins so and cannot be decoded.
    """
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            "begins with whsec_ but is not base64 after it; copy the whole secret, or use one "
            "that begins otherwise"
        ) from None
    if len(key) < KEY_BYTES_MIN:
        raise ValueError(f"has fewer than {KEY_BYTES_MIN} bytes after whsec_; use a longer secret")
    return key


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> bytes:
    """Return the value of `webhook-signature`; `timestamp` in seconds since 1970.

    It covers the id, the time and the body, so a receiver can verify all three.
    """
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return b"v1," + base64.b64encode(digest)
