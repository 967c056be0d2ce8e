"""The HTTP client that tests use towards servers on loopback."""

from typing import Any

import httpx

PLAIN = {"trust_env": False, "verify": False}
"""Use no proxy, and trust no authority: loading those takes 20 ms."""


def http_client(**options: Any) -> httpx.AsyncClient:
    """Return a client for plain HTTP."""
    return httpx.AsyncClient(**PLAIN, **options)
