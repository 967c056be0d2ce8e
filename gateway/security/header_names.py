"""Header fields that stay at the gateway: of the connection, of its framing, and credentials.

Names are in lower case, as ASGI has them (RFC 9110 7.6.1).
"""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
CREDENTIALS = frozenset(
    {
        b"authorization",
        b"x-api-key",  # Anthropic
        b"api-key",  # Azure OpenAI
        b"x-goog-api-key",  # Gemini
        b"ocp-apim-subscription-key",  # Azure API Management
        b"x-amz-security-token",  # AWS, beside a signed Authorization
        b"cookie",
    }
)
"""What clients prove themselves with: to us, or to a backend where the route passes it on."""

# The framing is the transport's; the host is the backend's; a reply has to be read here, so it may
# not come compressed; an expectation was answered by the listener.
FRAMING = frozenset({b"host", b"content-length", b"accept-encoding", b"expect"})
