"""Webhooks: send events to external receivers.

An event is sent as a CloudEvent 1.0 in JSON, or as a Slack message. It is signed as in Standard
Webhooks (https://www.standardwebhooks.com): `webhook-signature: v1,` and the base64 of HMAC-SHA256
over `{id}.{timestamp}.{body}`, so that the receiver can verify its origin and detect replays.
Delivery is at least once: an event without a 2xx response is sent again with the same id, after
increasing pauses. After the last attempt it is dropped, and the log says so.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import orjson

from tollway.backends.errors import BackendError
from tollway.backends.http.factory import open_transport
from tollway.backends.ports import Transport
from tollway.backends.types import Call
from tollway.gateway.observability.events import Event
from tollway.gateway.security.addresses import is_link_local
from tollway.gateway.security.webhook_signature import signature

log = logging.getLogger(__name__)

WAITING_MAX = 1000  # events; if a webhook is down for longer, the oldest are dropped
TRIES = 8
PAUSE_S = 1.0  # doubled after every attempt: two minutes in total
TIMEOUT_S = 5.0
REPLY_BYTES_MAX = 64 << 10
DRAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """One webhook. `kinds` are the kinds of events to send; empty for all."""

    name: str
    url: str
    format: str = "cloudevents"
    secret: bytes = b""
    kinds: frozenset[str] = frozenset()

    @property
    def origin(self) -> str:
        """Scheme, host and port of its URL."""
        return urlunsplit((*urlsplit(self.url)[:2], "", "", ""))

    @property
    def path(self) -> bytes:
        """Path and query of its URL."""
        parts = urlsplit(self.url)
        return urlunsplit(("", "", parts.path or "/", parts.query, "")).encode()

    def wants(self, event: Event) -> bool:
        """Return whether the webhook receives an event."""
        return not self.kinds or event.kind in self.kinds


def cloud_event(event: Event, source: str) -> bytes:
    """Return an event as a CloudEvent in structured mode."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event.id,
            "source": source,
            "type": f"tollway.{event.kind}",
            "time": datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds"),
            "subject": event.about,
            "datacontenttype": "application/json",
            "data": {"text": event.text, **event.details},
        }
    )


def slack(event: Event, source: str) -> bytes:
    """Return an event as a message for Slack's incoming webhooks."""
    text = f"*{event.kind}* `{event.about}`: {event.text}"
    # Slack's own escapes; nothing else of a text is read as markup that could mislead.
    for char, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, escaped)
    return orjson.dumps({"text": text})


_FORMATS: dict[str, tuple[bytes, Callable[[Event, str], bytes]]] = {
    "cloudevents": (b"application/cloudevents+json", cloud_event),
    "slack": (b"application/json", slack),
}


class Webhooks:
    """Sends events to their targets, each independently."""

    # The mutable state is a queue and a task per target, and what was dropped.

    def __init__(
        self,
        targets: list[Target],
        *,
        source: str,
        wall: Callable[[], float] = time.time,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._source = source
        self._wall = wall
        self._pause_s = pause_s
        self._queues: list[tuple[Target, asyncio.Queue[Event]]] = [
            (target, asyncio.Queue(WAITING_MAX)) for target in targets
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self.dropped = 0

    def take(self, event: Event) -> None:
        """Queue an event for all targets that receive it; returns at once."""
        for target, queue in self._queues:
            if target.wants(event):
                if queue.full():
                    queue.get_nowait()
                    queue.task_done()
                    self.dropped += 1
                queue.put_nowait(event)

    def start(self) -> None:
        """Start sending, on the running loop."""
        self._tasks = [asyncio.create_task(self._serve(*one)) for one in self._queues]

    async def stop(self) -> None:
        """Send the queued events for a limited time, then stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                if self._tasks:
                    await asyncio.gather(*(queue.join() for _, queue in self._queues))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, target: Target, queue: asyncio.Queue[Event]) -> None:
        transport = open_transport(target.origin, connections=1, barred=is_link_local)
        try:
            while True:
                event = await queue.get()
                try:
                    await self._deliver(target, transport, event)
                finally:
                    queue.task_done()
        finally:
            await transport.aclose()

    async def _deliver(self, target: Target, transport: Transport, event: Event) -> None:
        pause_s = self._pause_s
        for _ in range(TRIES):
            why = await self._send(target, transport, event)
            if not why:
                return
            if why.startswith("4") and why != "429":  # it will never be accepted
                break
            await asyncio.sleep(pause_s)
            pause_s *= 2
        # Not the URL, which is often secret.
        log.error(
            "webhook %s did not accept event %s (%s): %s", target.name, event.id, event.kind, why
        )

    async def _send(self, target: Target, transport: Transport, event: Event) -> str:
        """Send once; return the reason for a failure: a status, or an error."""
        content_type, write = _FORMATS[target.format]
        body, timestamp = write(event, self._source), int(self._wall())
        headers = [
            (b"host", urlsplit(target.url).netloc.encode()),
            (b"content-type", content_type),
            (b"webhook-id", event.id.encode()),
            (b"webhook-timestamp", b"%d" % timestamp),
        ]
        if target.secret:
            signed = signature(target.secret, event.id, timestamp, body)
            headers.append((b"webhook-signature", signed))
        deadline_s = asyncio.get_running_loop().time() + TIMEOUT_S
        try:
            call = Call(b"POST", target.path, headers, body)
            reply = await transport.send(call, deadline_s)
            await reply.read(REPLY_BYTES_MAX)
        except BackendError as exc:
            return str(exc) or type(exc).__name__
        return "" if 200 <= reply.status < 300 else str(reply.status)
