"""The faults that can be injected into a connection, and the syntax that names them.

    latency=200ms,jitter=50ms     reset=1000,side=requests     none

A fault applies to what the server sends (`side=replies`), unless `side` is set to what the client
sends (`requests`) or to both. Byte offsets count from the start of a reply or a request, that is,
from when the other side last sent something.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields

SIDES = ("replies", "requests", "both")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(b|kb|mb)?", re.IGNORECASE)
_BYTES = {"b": 1, "kb": 1_000, "mb": 1_000_000}


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults active together. Times in seconds, sizes in bytes; `Faults()` means no fault.

    latency_s, jitter_s: delay data by a fixed time, plus a random time up to `jitter_s`
    bytes_per_s: limit the throughput
    slice_bytes: deliver data in pieces of at most this size
    corrupt: the share of bytes that have one bit flipped
    swallow: discard this many replies and close their connections
    cut, reset: close (FIN) or reset (RST) the connection after this many bytes
    hang: hold data back while the fault lasts, then deliver it
    drop: a network partition: hold both sides back and complete no new connection
    refuse: stop listening: refuse new connections and reset the open ones
    side: the side whose data the faults apply to
    share: the share of connections affected; drawn once per connection
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    slice_bytes: int | None = None
    corrupt: float = 0.0
    swallow: int = 0
    cut: int | None = None
    reset: int | None = None
    hang: bool = False
    drop: bool = False
    refuse: bool = False
    side: str = "replies"
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.share != 1.0 and (self.drop or self.refuse):
            raise ValueError("drop and refuse affect all connections; remove share")
        if self.swallow and self.side != "replies":
            raise ValueError("swallow applies to replies only; remove side")

    def strikes(self, side: str, lot: float) -> bool:
        """Whether these apply to a side of a connection; `lot` in [0, 1) is its random draw."""
        return self.side in (side, "both") and lot < self.share

    @property
    def holds(self) -> bool:
        """Whether data is held back."""
        return self.hang or self.drop

    def __str__(self) -> str:
        """Return the faults in the syntax that `parse` reads."""
        parts = []
        for word, (name, _, write) in _WORDS.items():
            value = getattr(self, name)
            if value != _DEFAULTS[name]:
                parts.append(word if value is True else f"{word}={write(value)}")
        return ",".join(parts) or "none"


NOTHING = Faults()


def parse(text: str) -> Faults:
    """Parse faults; raise ValueError with the reason if the text is invalid."""
    if text.strip() in ("", "none"):
        return NOTHING
    values: dict[str, object] = {}
    for part in text.split(","):
        word, given, value = (piece.strip() for piece in part.partition("="))
        if word not in _WORDS:
            raise ValueError(f"unknown fault {word!r}; the faults are: {', '.join(_WORDS)}")
        name, read, _ = _WORDS[word]
        if name in values:
            raise ValueError(f"{word} is given twice")
        try:
            values[name] = read(value if given else None)
        except ValueError as exc:
            raise ValueError(f"{part.strip()}: {exc}") from None
    return Faults(**values)  # type: ignore[arg-type]


def duration(text: str | None) -> float:
    """Parse a duration such as `200ms`, `1.5s` or `10m` into seconds."""
    match = _DURATION.fullmatch(text or "")
    if match is None:
        raise ValueError("write a time with its unit, such as 200ms, 1.5s or 10m")
    return float(match[1]) * _SECONDS[match[2]]


def _size(text: str | None) -> int:
    match = _SIZE.fullmatch(text or "")
    if match is None:
        raise ValueError("write a number of bytes, such as 100, 20kB or 1MB")
    return round(float(match[1]) * _BYTES[(match[2] or "b").lower()])


def _some(text: str | None) -> int:
    if (size := _size(text)) == 0:
        raise ValueError("write a number above 0")
    return size


def _offset(text: str | None) -> int:
    return 0 if text is None else _size(text)


def _count(text: str | None) -> int:
    if text is not None and not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError("write a whole number above 0, such as 1")
    return int(text or 1)


def _share(text: str | None) -> float:
    try:
        share = float(text or "")
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ValueError("write a share above 0 and up to 1, such as 0.25")
    return share


def _flag(text: str | None) -> bool:
    if text is not None:
        raise ValueError("it takes no value")
    return True


def _side(text: str | None) -> str:
    if text not in SIDES:
        raise ValueError(f"write one of {', '.join(SIDES)}")
    return text


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


_WORDS: dict[str, tuple[str, Callable[[str | None], object], Callable[..., str]]] = {
    "latency": ("latency_s", duration, _seconds),
    "jitter": ("jitter_s", duration, _seconds),
    "rate": ("bytes_per_s", _some, "{:g}".format),
    "slice": ("slice_bytes", _some, str),
    "corrupt": ("corrupt", _share, str),
    "swallow": ("swallow", _count, str),
    "cut": ("cut", _offset, str),
    "reset": ("reset", _offset, str),
    "hang": ("hang", _flag, str),
    "drop": ("drop", _flag, str),
    "refuse": ("refuse", _flag, str),
    "side": ("side", _side, str),
    "share": ("share", _share, str),
}
_DEFAULTS = {field.name: field.default for field in fields(Faults)}
assert {name for name, _, _ in _WORDS.values()} == set(_DEFAULTS), (
    "each fault has a name in the syntax"
)
