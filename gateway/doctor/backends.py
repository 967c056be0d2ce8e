"""Examines backends: whether each can be reached, its certificate, and the cost of a call."""

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from tollway.backends.errors import BackendError, BadRequest
from tollway.backends.http.proxies import proxy_url
from tollway.backends.money import format_usd
from tollway.backends.types import Call, Headers, HttpReply
from tollway.gateway.doctor.finding import Finding, failure, ok, warning
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.metering import evaluate_reply
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.replies.decoding import readable
from tollway.gateway.routing.replies.redaction import discreet
from tollway.gateway.security import tls
from tollway.gateway.settings import BackendConfig
from tollway.gateway.wiring.backends import own_fields

REACH_S = 10.0
REPLY_BYTES_MAX = 1 << 20
RENEW_DAYS = 14
DATED_S = 1.0  # the date of a slower reply says too little
_FREE = Quote(0, 0, 0)

_SAY = [{"role": "user", "content": "ping"}]
CALLS: dict[str, tuple[str, dict[str, object]]] = {
    "openai": ("/v1/chat/completions", {"messages": _SAY, "max_completion_tokens": 16}),
    "anthropic": ("/v1/messages", {"messages": _SAY, "max_tokens": 16}),
    "gemini": (
        "/v1beta/models/{model}:generateContent",
        {"contents": [{"parts": [{"text": "ping"}]}], "generationConfig": {"maxOutputTokens": 16}},
    ),
}
"""The test call of protocols whose servers answer any prompt: path and body, by protocol."""


async def reach(
    settings: BackendConfig, target: Target, environ: Mapping[str, str], offsets_s: dict[str, float]
) -> list[Finding]:
    """Ask a backend for its health path, or for `/`: whatever it answers, it can be reached.

    That is no model's work, and free. Adds the offset of the clock in its reply to `offsets_s`.
    """
    subject = f"backend {settings.name}"
    if settings.url is None:
        return [ok(subject, "rules, which run in the gateway")]
    path = settings.health_path or "/"
    headers = [(b"host", target.host), *own_fields(target.headers, target.credential)()]
    began_s = time.time()
    try:
        reply, _ = await _sent(target, Call(b"GET", path.encode(), headers))
    except BackendError as exc:
        remedy = "check that it runs, its url, and the network or proxy between"
        return [failure(subject, f"{settings.url} cannot be reached: {exc}", remedy)]
    took_s = time.time() - began_s
    dated_s = _date(reply.headers)
    if dated_s is not None and took_s < DATED_S:
        # The date was cut to the second at some time while we waited.
        offsets_s[subject] = dated_s + 0.5 - (began_s + took_s / 2)
    seen = f"{settings.url} answers GET {path} with {reply.status} in {took_s * 1000:.0f} ms"
    found = [_reached(subject, settings, reply.status, seen)]
    by_proxy = proxy_url(settings.url, settings.proxy_setting, environ)[0]
    if settings.url.startswith("https:") and not by_proxy:
        found.append(await _certificate(settings))
    return found


def _reached(subject: str, settings: BackendConfig, status: int, seen: str) -> Finding:
    if settings.health_path and not 200 <= status < 300:
        return failure(subject, seen, "see its log, or correct health_path")
    if status >= 500:
        return warning(subject, seen, "see its log; give health_path what it answers with 200")
    return ok(subject, seen)


async def _certificate(settings: BackendConfig) -> Finding:
    """Return how long a server's certificate is still valid."""
    subject, parts = f"certificate of {settings.name}", urlsplit(settings.url or "")
    files = settings.tls
    context = (
        ssl.create_default_context()
        if files is None
        else tls.connecting(files.ca, files.cert, files.key)
    )
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 443, ssl=context
            )
    except (OSError, TimeoutError) as exc:
        return failure(subject, f"{exc}", "renew it there, or give its CA with tls.ca")
    shown = writer.get_extra_info("peercert") or {}
    writer.transport.abort()
    left_days = (ssl.cert_time_to_seconds(shown["notAfter"]) - time.time()) / 86_400
    seen = f"valid until {shown['notAfter']}, {left_days:.0f} days"
    if left_days < RENEW_DAYS:
        return warning(subject, seen, "renew it: all calls fail when it ends")
    return ok(subject, seen)


def test_call(settings: BackendConfig, path: str | None, body: bytes | None) -> Call | None:
    """Return the test call of a backend: to `path` with `body`, or its protocol's own if None.

    Return None if its protocol has none: only its users know what its model reads.
    """
    headers: Headers = [(b"content-type", b"application/json")]
    if body is not None and path is not None:
        return Call(b"POST", path.encode(), headers, body)
    if settings.url is None or settings.protocol not in CALLS:
        return None
    path, document = CALLS[settings.protocol]
    model = settings.model or ""
    if settings.protocol != "gemini":
        document = {"model": model, **document}
    if settings.protocol == "openai" and settings.limit_field:
        document[settings.limit_field] = document.pop("max_completion_tokens")
    return Call(b"POST", path.format(model=model).encode(), headers, json.dumps(document).encode())


async def ask(settings: BackendConfig, target: Target, call: Call) -> Finding:
    """Make a call, and say what came of it and what it cost by the backend's price."""
    subject = f"call to {settings.name}"
    try:
        call.payload = target.protocol.parse(call)
    except BadRequest as exc:
        return failure(
            subject, f"the body is not of protocol {settings.protocol}: {exc}", "mend it"
        )
    sent = target.address(call)
    began_s = time.monotonic()
    try:
        reply, body = await _sent(target, sent)
    except BackendError as exc:
        billed = "; it may be billed" if exc.ran else ""
        return failure(subject, f"{exc}{billed}", "see the backend's log")
    took_s = time.monotonic() - began_s
    outcome = evaluate_reply(target, sent, reply, body, quote=_FREE, latency_s=took_s)
    outcome = discreet(target, outcome)
    if reply.status >= 300 or outcome.error:
        if target.credential is not None:  # before the cut, which could leave a part of the key
            body = target.credential.hide_in(body)
        said = " ".join(body[:300].decode("utf-8", "replace").split())
        seen = f"{reply.status}: {outcome.error or said}"
        if outcome.error and said:
            seen += f" ({said})"
        return failure(subject, seen, _remedy(reply.status))
    cost = format_usd(outcome.cost_nano)
    seen = f"{reply.status} in {took_s * 1000:.0f} ms, costs {cost} ({outcome.provenance})"
    if outcome.no_answer:
        return warning(
            subject, f"{seen}; no answer is read: {outcome.no_answer}", "see docs/http.md"
        )
    return ok(subject, seen)


def _remedy(status: int) -> str:
    if status in {401, 403}:
        return "check the backend's auth, and what the key may do"
    if status in {404, 405, 410}:
        return "check url and model"
    if status == 429:
        return "its limit is reached: wait, or ask the provider for more"
    return "see the backend's log, or give a body that it accepts with --body"


async def _sent(target: Target, call: Call) -> tuple[HttpReply, bytes]:
    """Return the reply to a call, and its body; BackendError if there is none in REACH_S.

    A call may take as long as the gateway would wait.
    """
    limit_s = target.timeout_s if call.body else REACH_S
    deadline_s = asyncio.get_running_loop().time() + limit_s
    reply = readable(await target.transport.send(call, deadline_s), b"")
    return reply, await reply.read(REPLY_BYTES_MAX)


def _date(headers: Headers) -> float | None:
    for name, value in headers:
        if name == b"date":
            try:
                return parsedate_to_datetime(value.decode("latin-1")).timestamp()
            except ValueError:
                return None
    return None
