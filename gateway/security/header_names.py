"""Header fields that the gateway does not forward: hop-by-hop, framing and credentials.

Names are in lower case, as in ASGI (RFC 9110 7.6.1).
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
"""Client credentials, for the gateway or, if the route forwards them, for a backend."""

# The transport sets the framing and the host. The gateway reads replies, so they must
# not be compressed. The listener has already answered an Expect field.
FRAMING = frozenset({b"host", b"content-length", b"accept-encoding", b"expect"})
