"""Recognizes a server's refusal of our client certificate from its TLS alert.

In TLS 1.3 a client completes its part of the handshake before its certificate is checked (RFC 8446
4.4.2, 2): when the server's refusal arrives the request has been sent, and was never read.
"""

import ssl


def refuses_us(exc: BaseException | None) -> bool:
    """Return whether a server ended TLS because our certificate is missing or not accepted."""
    reason = (exc.reason or "") if isinstance(exc, ssl.SSLError) else ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
