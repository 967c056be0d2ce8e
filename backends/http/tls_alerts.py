"""What a server says of our certificate as it ends TLS.

In TLS 1.3 a client has done its part of the handshake before its certificate is judged (RFC 8446
4.4.2, 2): by the time the server's refusal comes the request is on its way, and was never read.
"""

import ssl


def refuses_us(exc: BaseException | None) -> bool:
    """Say whether a server has ended TLS for want of a certificate of ours, or because of it."""
    reason = (exc.reason or "") if isinstance(exc, ssl.SSLError) else ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
