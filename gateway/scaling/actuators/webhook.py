"""The webhook actuator: posts each change to an HTTP service, signed.

    POST URL
    webhook-id: 2026-...        the same for every attempt of a change
    webhook-timestamp: 1790...
    webhook-signature: v1,...   HMAC-SHA256 over `{id}.{timestamp}.{body}`, if there is a secret
    idempotency-key: 2026-...   the id again, for services that know this field

    {"id": "...", "backend": "digits-gpu", "replicas": 3, "before": 2, "reason": "measured", ...}

A 2xx reply means that the change was made. Without one it is sent again after increasing pauses,
with the same id, so the service can tell a repetition from a new change.
"""

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import orjson

from tollway.backends.errors import BackendError
from tollway.backends.http.factory import open_transport
from tollway.backends.ports import Transport
from tollway.backends.types import Call
from tollway.gateway.scaling.actuators.port import Change, Outcome, readable
from tollway.gateway.security.addresses import is_link_local
from tollway.gateway.security.webhook_signature import signature

TRIES = 4
PAUSE_S = 1.0  # doubled after every attempt; the scaler tries again later
REPLY_BYTES_MAX = 64 << 10
OUTPUT_CHARS_MAX = 1000


class WebhookActuator:
    """Posts the changes of one backend."""

    # The mutable state is that of the transport.

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        secret: bytes = b"",
        wall: Callable[[], float] = time.time,
        pause_s: float = PAUSE_S,
        transport: Transport | None = None,
    ) -> None:
        """`timeout_s`: of one attempt. `transport`: by default one to the origin of `url`."""
        parts = urlsplit(url)
        origin = urlunsplit((*parts[:2], "", "", ""))
        self._host = parts.netloc.rpartition("@")[2].encode()
        self._path = urlunsplit(("", "", parts.path or "/", parts.query, "")).encode()
        self._timeout_s = timeout_s
        self._secret = secret
        self._wall = wall
        self._pause_s = pause_s
        self._transport = transport or open_transport(origin, connections=1, barred=is_link_local)

    async def apply(self, change: Change) -> Outcome:
        """Post a change until it is accepted, a few times at most."""
        body, pause_s = document(change), self._pause_s
        for left in range(TRIES - 1, -1, -1):
            outcome = await self._send(change.id, body)
            if not (outcome.problem and outcome.retry and left):
                return outcome
            await asyncio.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("unreachable")

    async def _send(self, change_id: str, body: bytes) -> Outcome:
        timestamp = int(self._wall())
        headers = [
            (b"host", self._host),
            (b"content-type", b"application/json"),
            (b"webhook-id", change_id.encode()),
            (b"webhook-timestamp", b"%d" % timestamp),
            (b"idempotency-key", change_id.encode()),
        ]
        if self._secret:
            signed = signature(self._secret, change_id, timestamp, body)
            headers.append((b"webhook-signature", signed))
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        try:
            call = Call(b"POST", self._path, headers, body)
            reply = await self._transport.send(call, deadline_s)
            data = await reply.read(REPLY_BYTES_MAX)
        except BackendError as exc:
            return Outcome(str(exc) or type(exc).__name__)
        output = readable(data.decode(errors="replace")[:OUTPUT_CHARS_MAX])
        if 200 <= reply.status < 300:
            return Outcome("", output)
        final = 400 <= reply.status < 500 and reply.status not in {408, 425, 429}
        return Outcome(f"status {reply.status}", output, retry=not final)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._transport.aclose()


def document(change: Change) -> bytes:
    """Return the body that tells of a change."""
    return orjson.dumps(
        {
            "id": change.id,
            "backend": change.backend,
            "replicas": change.replicas,
            "before": change.before,
            "reason": change.reason,
            "why": change.why,
        }
    )
