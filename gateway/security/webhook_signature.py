"""The signature of webhooks, as in Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import hashlib
import hmac


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> bytes:
    """Return the value of `webhook-signature`; `timestamp` in seconds since 1970.

    It covers the id, the time and the body, so a receiver can verify all three.
    """
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return b"v1," + base64.b64encode(digest)
