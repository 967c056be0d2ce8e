"""An answer that is kept: its reply, where it comes from, and until when it is fresh."""

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson

from tollway.backends.types import Headers

FRESH, EARLY, STALE, DEAD = "fresh", "early", "stale", "dead"
"""How old an entry is. EARLY: it is fresh, but this request is chosen to replace it before others
find it expired. STALE: it has expired, and may be given while it is replaced."""

OVERHEAD_BYTES = 3 << 10  # of an entry: its objects, measured with tracemalloc
FORMAT = 1


@dataclass(slots=True, eq=False)
class Entry:
    """A kept answer. Times are Unix times, in seconds.

    `pieces`: the sizes of the parts in which a stream came; empty if it was none. `backend`: whose
    answer it is; `cost_nano`: what it cost. `took_s`: how long the call took. `tenant`: who made
    it, which counts it against that tenant's share. `echoed`: the `id` of its request, where
    replies repeat it (`oip`). `quality`: what was expected of it when a cascade accepted it, having
    seen it. `target` is built from it when it is first given; `memo` is
    how it was drawn last.
    """

    headers: Headers
    body: bytes
    pieces: tuple[int, ...]
    backend: str
    cost_nano: int
    made_s: float
    took_s: float
    expires_s: float
    dies_s: float
    tenant: str
    echoed: str | None = None
    quality: float | None = None
    target: Any = field(default=None, repr=False)
    memo: Any = field(default=None, repr=False)

    @property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        return (
            OVERHEAD_BYTES
            + len(self.body)
            + sum(len(name) + len(value) for name, value in self.headers)
            + 8 * len(self.pieces)
        )

    def age_s(self, now_s: float) -> float:
        """Return its age."""
        return max(0.0, now_s - self.made_s)

    def is_surely_fresh(self, now_s: float, early: float) -> bool:
        """Return whether `state` is FRESH whatever is drawn."""
        return self.expires_s - now_s >= 20.0 * early * self.took_s and now_s < self.expires_s

    def state(self, now_s: float, early: float, rng: Random) -> str:
        """Return FRESH, EARLY, STALE or DEAD.

        Each request takes the entry for expired with a probability that rises towards the expiry,
        the earlier the longer an answer takes: optimal probabilistic early expiration (XFetch;
        Vattani, Chierichetti, Lowenstein, VLDB 2015). `early` is its beta; 0 turns it off.
        """
        if now_s < self.expires_s:
            if early and self.expires_s - now_s < 20.0 * early * self.took_s:  # else 1 in 5e8
                lead_s = -early * self.took_s * math.log(1.0 - rng.random())
                if now_s + lead_s >= self.expires_s:
                    return EARLY
            return FRESH
        return STALE if now_s < self.dies_s else DEAD


def packed(entry: Entry) -> bytes:
    """Return the bytes of an entry: one line of JSON, then the body."""
    head = {
        "format": FORMAT,
        "headers": [
            [name.decode("latin-1"), value.decode("latin-1")] for name, value in entry.headers
        ],
        "pieces": entry.pieces,
        "backend": entry.backend,
        "cost_nano": entry.cost_nano,
        "times_s": [entry.made_s, entry.took_s, entry.expires_s, entry.dies_s],
        "tenant": entry.tenant,
        "echoed": entry.echoed,
        "quality": entry.quality,
        "bytes": len(entry.body),
    }
    return orjson.dumps(head) + b"\n" + entry.body


def unpacked(data: bytes) -> Entry:
    """Return the entry of its bytes; ValueError if they are damaged or of another version."""
    line, _, body = data.partition(b"\n")
    try:
        head = orjson.loads(line)
        if head["format"] != FORMAT or head["bytes"] != len(body):
            raise ValueError("an entry of another format, or a cut one")
        made_s, took_s, expires_s, dies_s = map(float, head["times_s"])
        pieces = tuple(map(int, head["pieces"]))
        if pieces and sum(pieces) != len(body):
            raise ValueError("the pieces do not add up to the body")
        return Entry(
            [(str(n).encode("latin-1"), str(v).encode("latin-1")) for n, v in head["headers"]],
            body,
            pieces,
            str(head["backend"]),
            int(head["cost_nano"]),
            made_s,
            took_s,
            expires_s,
            dies_s,
            str(head["tenant"]),
            None if head["echoed"] is None else str(head["echoed"]),
            None if head.get("quality") is None else float(head["quality"]),
        )
    except (KeyError, TypeError, UnicodeEncodeError) as exc:
        raise ValueError(f"a damaged entry: {exc}") from exc
