"""A backend's credential: the header field that authenticates the gateway, and its state.

Theory of operation. A provider that refuses the key refuses every request, so one refusal takes the
backend out of service: otherwise every request would fail. It is probed with one request after
60 s, then after twice as long, up to 10 minutes: a key is repaired by people, not by time. A
reload, or a secret that reads differently, ends the wait at once. Only calls sent after the last
change count, so calls in flight with the old key say nothing about the new one.

    state      accepted   refused                  key read again   time passes
    in         in         out for 60 s             in               -
    out        -          -                        in               probe after the wait
    probe      in         out for twice as long    in               another probe

A file is checked at most once a second, when a request is routed: 0.1 us per request and 2 us per
second. If a file is missing or unusable, the last key stays in force.
"""

import asyncio
import os
from collections.abc import Callable

import orjson

from tollway.backends.types import Headers
from tollway.gateway.security.google_tokens import GoogleToken
from tollway.gateway.security.secrets import FileSecret, Secret, Stamp

LOOK_S = 1.0
WAIT_S = 60.0
WAIT_MAX_S = 600.0
HIDDEN = "(hidden)"
_SECRET_BYTES_MIN = 8  # shorter values, such as `none`, are not keys and may occur in any field
_BODY_BYTES_MAX = 64 << 10  # such errors have a few hundred bytes; larger bodies are not parsed
_NO_CREDIT = "Your credit balance is too low"  # Anthropic's, a 400
_NO_QUOTA = frozenset({"insufficient_quota", "exceeded_current_quota_error"})  # OpenAI, Moonshot

Changing = FileSecret | GoogleToken
"""Secrets that may read differently later."""

Tell = Callable[[str, str, str], None]
"""Receives an event: its kind, its subject and its text."""


def tell_nobody(kind: str, about: str, text: str) -> None:
    """Discard an event."""


class Credential:
    """The header field that the gateway adds to a backend's calls."""

    # The mutable state is the field and its file's stamp, when the file was last checked, whether
    # the key is refused and with what status, the time from which sent calls count, the wait, the
    # time of the next probe, and whether no next token could be fetched.

    def __init__(
        self,
        backend: str,
        key: str,
        secret: Secret | GoogleToken,
        *,
        name: bytes,
        scheme: str = "",
        tell: Tell = tell_nobody,
    ) -> None:
        """`key` is the setting's name, such as `auth.bearer_env`. ValueError: invalid secret."""
        self.setting = f'[[backends]] "{backend}" {key}'
        self.name = name
        self.is_refused = False
        self._backend = backend
        self._secret = secret
        self._scheme = scheme
        self._notify = tell
        self._stamp: Stamp | None = None
        self._look_at_s = 0.0
        self._since_s = 0.0
        self._wait_s = WAIT_S
        self._probe_at_s = 0.0
        self._status = 0
        self._is_unreadable = False
        self._take(self._read())

    @property
    def field(self) -> tuple[bytes, bytes]:
        """The header field to send."""
        return self.name, self._value

    def allows(self, now_s: float) -> bool:
        """Return whether the backend may be called now; first load a file's new content."""
        if now_s >= self._look_at_s and isinstance(self._secret, Changing):
            self._look(self._secret, now_s)
        return not self.is_refused or now_s >= self._probe_at_s

    def probe(self, now_s: float) -> None:
        """Record that a call is made; with a refused key, no other follows until the next probe."""
        if self.is_refused:
            self._probe_at_s = now_s + self._wait_s

    def refused(self, status: int, started_s: float, now_s: float) -> None:
        """Take the backend out of service, for longer if a probe was refused."""
        if started_s < self._since_s:
            return  # sent with another key, or before the last refusal
        self._wait_s = min(WAIT_MAX_S, 2 * self._wait_s) if self.is_refused else WAIT_S
        self._since_s, self._probe_at_s = now_s, now_s + self._wait_s
        self._status = status
        self._look_at_s = 0.0  # a key may have been replaced a moment ago
        if not self.is_refused:
            self.is_refused = True
            self._notify(
                "credential_rejected",
                self._backend,
                f"{self.complaint(status)}; out of service, next probe in {self._wait_s:g} s",
            )

    def accepted(self, started_s: float) -> None:
        """Put the backend back in service (0.05 us if it already is)."""
        if self.is_refused and started_s >= self._since_s:
            self._restore("the provider accepts the key again")

    def renew(self, now_s: float) -> None:
        """Read the secret again and try it at once, regardless of its state: at a reload."""
        self._renew(now_s, always=True)

    async def refresh(self, wall_s: float) -> None:
        """Fetch the next token if this one ends soon; `wall_s` in seconds since 1970."""
        secret = self._secret
        if not (isinstance(secret, GoogleToken) and secret.is_due(wall_s)):
            return
        try:
            await asyncio.to_thread(secret.refresh)
        except ValueError as exc:
            if not self._is_unreadable:
                self._notify("credential_unreadable", self._backend, f"{self.setting}: {exc}")
            self._is_unreadable = True
        else:
            self._is_unreadable = False

    def complaint(self, status: int = 0) -> str:
        """Return a description of a refusal (0: the last one), without the provider's text."""
        status = status or self._status
        return f"status {status}: the provider does not accept the key of {self.setting}"

    def hide(self, text: str) -> str:
        """Return a text with the secret removed."""
        return text.replace(self._plain, HIDDEN) if self._plain in text else text

    def hide_in(self, body: bytes) -> bytes:
        """Return a body with the secret removed."""
        plain = self._plain.encode("latin-1")
        return body.replace(plain, HIDDEN.encode()) if plain in body else body

    def hide_in_fields(self, headers: Headers) -> Headers:
        """Return header fields with the secret removed (1 us if none contains it)."""
        plain = self._plain.encode("latin-1")
        if len(plain) < _SECRET_BYTES_MIN or all(plain not in value for _, value in headers):
            return headers
        return [(name, value.replace(plain, HIDDEN.encode())) for name, value in headers]

    # -- inside

    def _look(self, secret: Changing, now_s: float) -> None:
        self._look_at_s = now_s + LOOK_S
        stamp = secret.stamp()
        if stamp is not None and stamp != self._stamp:
            self._renew(now_s, always=False)
            self._stamp = stamp if self._stamp is None else self._stamp

    def _renew(self, now_s: float, *, always: bool) -> None:
        before = self._plain
        try:
            self._take(self._read())
        except ValueError as exc:
            self._stamp = self._secret.stamp() if isinstance(self._secret, Changing) else None
            text = f"{self.setting}: {exc}; the previous key stays in use"
            self._notify("credential_unreadable", self._backend, text)
            return
        if self._plain != before:
            self._since_s = now_s
            if not isinstance(self._secret, GoogleToken):  # an hourly event would tell nothing
                self._notify(
                    "credential_renewed", self._backend, f"the key of {self.setting} was replaced"
                )
        if self.is_refused and (always or self._plain != before):
            self._since_s = now_s
            self._restore("its key was read again")

    def _restore(self, why: str) -> None:
        self.is_refused, self._wait_s = False, WAIT_S
        self._notify("credential_restored", self._backend, f"back in service: {why}")

    def _read(self) -> str:
        if not isinstance(self._secret, Changing):
            return self._secret.read(os.environ)
        text, self._stamp = self._secret.read_with_stamp()
        return text

    def _take(self, plain: str) -> None:
        self._plain = plain
        self._value = f"{self._scheme}{plain}".encode("latin-1")


def refuses_key(status: int, body: bytes) -> bool:
    """Return whether a reply refuses the gateway's key, rather than the request.

    These do: 401 and 403, except a 403 from a provider's moderation (OpenRouter lists its
    `reasons`); 402, and 429 with OpenAI's `insufficient_quota`: the account has no money;
    Anthropic's 400 for the same, recognized by its fixed first sentence; and Google's 400 with
    API_KEY_INVALID. Texts that a client can influence are not searched.
    """
    if status in (401, 402):
        return True
    if status not in (400, 403, 429):
        return False
    error = _error(body)
    if status == 403:
        return not isinstance(_member(error, "metadata"), dict) or not _member(
            _member(error, "metadata"), "reasons"
        )
    if status == 429:
        return any(_member(error, key) in _NO_QUOTA for key in ("code", "type"))
    if _member(error, "type") == "invalid_request_error":
        message = _member(error, "message")
        return isinstance(message, str) and message.startswith(_NO_CREDIT) and _is_anthropic(body)
    details = _member(error, "details")
    return isinstance(details, list) and any(
        _member(detail, "reason") == "API_KEY_INVALID" for detail in details
    )


def without_cookies(headers: Headers) -> Headers:
    """Return a reply's fields without Set-Cookie: clients must not get our account's session."""
    return [pair for pair in headers if pair[0] != b"set-cookie"]


def _is_anthropic(body: bytes) -> bool:
    """Return whether an error has Anthropic's shape.

    Messages of other servers may begin with a model name that the client chose.
    """
    document = orjson.loads(body)
    return isinstance(document, dict) and document.get("type") == "error"


def _error(body: bytes) -> object:
    """Return the error object of an API's reply; None if there is none."""
    if len(body) > _BODY_BYTES_MAX:
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(document, list) and document:  # Google's OpenAI API puts it into a list
        document = document[0]
    return _member(document, "error")


def _member(value: object, key: str) -> object:
    member = value.get(key) if isinstance(value, dict) else None
    return member if isinstance(member, (str, dict, list)) else None
