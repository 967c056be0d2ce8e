"""Calls an operator's HTTP service: a POST of a JSON document, with limits of time and size."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import orjson

from tollway.backends.errors import BackendError
from tollway.backends.ports import Transport
from tollway.backends.types import Call
from tollway.gateway.signals.ports import HookFailed, encoded
from tollway.gateway.signals.slots import FairSlots

REPLY_BYTES_MAX = 1 << 20  # a guard's reply may hold the whole rewritten request


class Service:
    """One URL that is asked with POST, over a few connections."""

    def __init__(
        self,
        url: str,
        transport: Transport,
        *,
        timeout_s: float,
        most: int,
        wait_s: float | None = None,
    ) -> None:
        """`transport` carries calls to the origin of `url`; `most`: calls at once.

        `wait_s`: the time to wait until fewer than `most` are made; None for any.
        """
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        self._target = f"{parts.path or '/'}{query}".encode()
        self._fields = [
            (b"host", parts.netloc.encode()),
            (b"accept-encoding", b"identity"),
            (b"content-type", b"application/json"),
        ]
        self._transport = transport
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._slots = FairSlots(most)

    async def ask(self, document: Any, tenant: str = "") -> Any:
        """Return the document of a 200. Raises HookFailed.

        `tenant`: on behalf of which it is asked; tenants share the calls at once.
        """
        call = Call(b"POST", self._target, list(self._fields), encoded(document))
        try:
            async with asyncio.timeout(self._wait_s):
                await self._slots.acquire(tenant)
        except TimeoutError as exc:
            raise HookFailed(f"the service was busy for {self._wait_s:g} s") from exc
        try:
            async with asyncio.timeout(self._timeout_s):
                until_s = asyncio.get_running_loop().time() + self._timeout_s
                reply = await self._transport.send(call, until_s)
                body = await reply.read(REPLY_BYTES_MAX)
            if reply.status != 200:
                raise HookFailed(f"the service answered with status {reply.status}")
            return orjson.loads(body)
        except TimeoutError as exc:
            raise HookFailed(f"the service took longer than {self._timeout_s:g} s") from exc
        except (BackendError, orjson.JSONDecodeError) as exc:
            raise HookFailed(f"the service: {exc}") from exc
        finally:
            self._slots.release(tenant)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
