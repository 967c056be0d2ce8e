"""Headers: which header fields are dropped, read and added in each direction.

RFC 9110 7.6.1: a proxy drops Connection, every field that Connection names, and the hop-by-hop
fields, in both directions; 7.6.3: it adds itself to Via. Tollway's own request fields are read here
and are not forwarded.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from tollway.backends.money import NANO_PER_USD
from tollway.backends.types import Headers
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.security.header_names import CREDENTIALS, FRAMING, HOP_BY_HOP

_NOT_FORWARDED = HOP_BY_HOP | FRAMING | CREDENTIALS
_NOT_RETURNED = HOP_BY_HOP | {b"content-length", b"server"}
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


def forwarded(
    headers: Iterable[tuple[bytes, bytes]], via: bytes, version: str = "1.1"
) -> tuple[Headers, RequestOptions]:
    """Return (fields for the backend, options); HttpProblem if a field of ours is invalid.

    `version` is the HTTP version of the request.
    """
    kept: Headers = []
    options = RequestOptions()
    named: list[bytes] = []
    passed_by: list[bytes] = []
    for name, value in headers:
        if name.startswith(b"x-tollway-"):
            _demand(options, name, value)
        elif name == b"via":
            passed_by.append(value)
        elif name not in _NOT_FORWARDED:
            kept.append((name, value))
        elif name == b"connection":
            named += [token.strip().lower() for token in value.split(b",")]
        elif name == b"accept-encoding":
            options.accepts += b"," + value
    if passed_by and any(via in value for value in passed_by):
        raise HttpProblem(
            508, "Loop detected", "this request has already passed through this gateway"
        )
    if named:
        dropped = frozenset(named)
        kept = [(name, value) for name, value in kept if name not in dropped]
    passed_by.append(version.encode() + b" " + via)
    kept.append((b"via", b", ".join(passed_by)))
    return kept, options


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


def returned(headers: Headers, via: bytes) -> Headers:
    """Return the fields of a backend's reply that go to the client."""
    named: list[bytes] = []
    kept = []
    for name, value in headers:
        if name not in _NOT_RETURNED:
            if not name.startswith(b"x-tollway-"):
                kept.append((name, value))
        elif name == b"connection":
            named += [token.strip().lower() for token in value.split(b",")]
    if named:
        dropped = frozenset(named)
        kept = [(name, value) for name, value in kept if name not in dropped]
    kept.append((b"via", b"1.1 " + via))
    return kept


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
    except (ValueError, InvalidOperation) as exc:
        raise HttpProblem(
            400, "Bad header", f"{name.decode()} cannot be read: {text[:80]!r} ({exc})"
        ) from None


def _between(number: float, low: float, high: float) -> float:
    if not low <= number <= high:  # NaN fails this too
        raise ValueError(f"must be from {low:g} to {high:g}")
    return number


def _nano(text: str) -> int:
    usd = Decimal(text)
    if not usd.is_finite() or not 0 < usd < 1_000_000:
        raise ValueError("must be dollars, above 0")
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
        raise ValueError(f"at most {TAGS_MAX} tags")
    return tags
