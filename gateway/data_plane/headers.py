"""Headers: which header fields are dropped, read and added in each direction.

RFC 9110 7.6.1: a proxy drops Connection, every field that Connection names, and the hop-by-hop
fields, in both directions; 7.6.3: it adds itself to Via. Tollway's own request fields are read here
and are not forwarded.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from tollway.backends.money import NANO_PER_USD
from tollway.backends.types import Headers
from tollway.gateway.caching import directives
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.security.header_names import CREDENTIALS, FRAMING, HOP_BY_HOP
from tollway.gateway.signals.conversations import said

_OWN = b"x-tollway-"
_OWN_BYTES = len(_OWN)
_CODING = b"content-encoding"
_NOT_FORWARDED = HOP_BY_HOP | FRAMING | CREDENTIALS | {_CODING}
_CORS = (b"origin", b"credentials", b"methods", b"headers", b"private-network")
_NOT_RETURNED = (
    HOP_BY_HOP
    | {b"content-length", b"server", b"access-control-max-age", b"access-control-expose-headers"}
    | {b"access-control-allow-" + name for name in _CORS}  # what pages may do is the gateway's
)
TAGS_MAX = 16  # a call usually has a few: cost center, environment, team, feature
TAG_CHARS_MAX = 64


@dataclass(slots=True)
class RequestOptions:
    """Options for the gateway itself, from the request's headers."""

    tags: dict[str, str] = field(default_factory=dict)
    floor: float | None = None
    cost_nano_max: int | None = None
    deadline_s: float | None = None
    accepts: bytes = b""
    cache_mode: str = ""
    is_coded: bool = False
    feedback: float | None = None

    @property
    def is_ordinary(self) -> bool:
        """Whether nothing is asked for but what is usual; tags are usual."""
        asked = (self.floor, self.cost_nano_max, self.deadline_s, self.feedback)
        return not (self.is_coded or self.cache_mode) and all(one is None for one in asked)


def forwarded(
    headers: Iterable[tuple[bytes, bytes]], via: bytes, version: str = "1.1"
) -> tuple[Headers, RequestOptions]:
    """Return (fields for the backend, options); HttpProblem if one of Tollway's fields is invalid.

    `version` is the HTTP version of the request.
    """
    fields: Headers = []
    options = RequestOptions()
    named: list[bytes] = []
    passed_by = b""
    for name, value in headers:
        if name[:_OWN_BYTES] == _OWN:
            _demand(options, name, value)
        elif name == b"via":
            passed_by += value + b", "
        elif name not in _NOT_FORWARDED:
            fields.append((name, value))
        elif name == b"connection":
            named += [token.strip().lower() for token in value.split(b",")]
        elif name == b"accept-encoding":
            options.accepts += b"," + value
        elif name == _CODING:  # it goes on if the body is not decoded here
            options.is_coded = True
            fields.append((name, value))
    if via in passed_by:
        raise HttpProblem(
            508, "Loop detected", "this request has already passed through this gateway"
        )
    if named:
        dropped = frozenset(named)
        fields = [(name, value) for name, value in fields if name not in dropped]
    fields.append((b"via", passed_by + version.encode() + b" " + via))
    return fields, options


def passed_on(
    headers: Iterable[tuple[bytes, bytes]],
    names: Collection[bytes],
    is_ours: Callable[[bytes, bytes], bool],
) -> Headers:
    """Return the credential fields of a request that its route forwards: those in `names`.

    Keys of this gateway (`is_ours`) and fields named by Connection are left out.
    """
    if not names:
        return []
    given = list(headers)
    dropped = {
        token.strip().lower()
        for name, value in given
        if name == b"connection"
        for token in value.split(b",")
    }
    wanted = CREDENTIALS.intersection(names) - dropped
    return [(name, value) for name, value in given if name in wanted and not is_ours(name, value)]


def unwithheld(headers: Headers, withholds: re.Pattern[bytes], names: Collection[bytes]) -> Headers:
    """Return the fields that a protocol does not withhold from backends, and those in `names`."""
    return [pair for pair in headers if pair[0] in names or not withholds.match(pair[0])]


def returned(headers: Headers, via: bytes) -> Headers:
    """Return the fields of a backend's reply that go to the client."""
    named: list[bytes] = []
    for name, value in headers:
        if name == b"connection":
            named += [token.strip().lower() for token in value.split(b",")]
    dropped = _NOT_RETURNED.union(named) if named else _NOT_RETURNED
    fields = [pair for pair in headers if pair[0] not in dropped and pair[0][:_OWN_BYTES] != _OWN]
    fields.append((b"via", b"1.1 " + via))
    return fields


def _demand(options: RequestOptions, name: bytes, value: bytes) -> None:
    text = value.decode("latin-1").strip()
    try:
        if name == b"x-tollway-tags":
            options.tags = parse_tags(text)
        elif name == b"x-tollway-min-accuracy":
            options.floor = _between(float(text), 0.0, 1.0)
        elif name == b"x-tollway-max-cost-usd":
            options.cost_nano_max = _nano(text)
        elif name == b"x-tollway-deadline-ms":
            options.deadline_s = _between(float(text), 1.0, 86_400_000.0) / 1000
        elif name == directives.OWN:
            options.cache_mode = _one_of(text.lower(), directives.MODES)
        elif name == b"x-tollway-feedback":
            options.feedback = said(text)
    except (ValueError, InvalidOperation) as exc:
        raise HttpProblem(
            400, "Bad header", f"{name.decode()} is invalid: {text[:80]!r} ({exc})"
        ) from None


def _between(number: float, low: float, high: float) -> float:
    if not low <= number <= high:  # NaN fails this too
        raise ValueError(f"must be from {low:g} to {high:g}")
    return number


def _one_of(text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise ValueError(f"must be one of {', '.join(known)}")
    return text


def _nano(text: str) -> int:
    usd = Decimal(text)
    if not usd.is_finite() or not 0 < usd < 1_000_000:
        raise ValueError("must be dollars above 0 and below 1000000")
    return int(usd * NANO_PER_USD)  # rounded down: a ceiling is never raised


def parse_tags(text: str) -> dict[str, str]:
    """Parse `cost_center=ads,environment=staging`; ValueError says what is wrong."""
    tags: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise ValueError("write tags like cost_center=ads,environment=staging")
        if len(key) > TAG_CHARS_MAX or len(value) > TAG_CHARS_MAX:
            raise ValueError(f"a tag's key and value have at most {TAG_CHARS_MAX} characters each")
        if key in tags:
            raise ValueError(f"tag {key!r} is given twice")
        tags[key] = value
    if len(tags) > TAGS_MAX:
        raise ValueError(f"more than {TAGS_MAX} tags")
    return tags
