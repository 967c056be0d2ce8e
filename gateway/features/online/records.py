"""The form in which the warm tier stores the values of an entity.

The time at which the source was asked, of fixed width, and then as JSON `[seconds that it took,
values or null]`. So a store can tell which of two records is newer by their first characters.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from tollway.gateway.features.online.counts import WARM
from tollway.gateway.features.online.memory import Entry
from tollway.gateway.features.online.model import FeatureGroup

KEY = "tollway:feature"
CLOCKS_DIFFER_S = 1.0  # at most, between machines
TIME_CHARS = 17  # microseconds since 1970, until the year 5138


def key(group: FeatureGroup, digest: str) -> str:
    """Return where the warm tier has an entity."""
    return f"{KEY}:{group.name}:{digest}"


def packed(entry: Entry, now_s: float, wall_s: float) -> bytes:
    """Return an entry as a record."""
    read_us = round((wall_s - (now_s - entry.read_s)) * 1e6)
    return b"%0*d%b" % (TIME_CHARS, read_us, orjson.dumps([entry.delta_s, entry.values]))


def barring(wall_s: float) -> bytes:
    """Return a record that nothing can be read from, and that none from before it replaces."""
    return b"%0*d-" % (TIME_CHARS, round((wall_s + CLOCKS_DIFFER_S) * 1e6))


def unpacked(
    group: FeatureGroup, digest: str, record: bytes, now_s: float, wall_s: float
) -> Entry | None:
    """Return a record's entry; None if it is damaged or of other features."""
    try:
        read_s = int(record[:TIME_CHARS]) / 1e6
        delta_s, given = orjson.loads(record[TIME_CHARS:])
        age_s = max(0.0, wall_s - read_s)  # the clocks of machines differ by milliseconds
        values = None if given is None else _checked(group, given)
        return Entry(group, digest, values, now_s - age_s, float(delta_s), tier=WARM)
    except (ValueError, TypeError):  # orjson's error is a ValueError
        return None


def _checked(group: FeatureGroup, given: Sequence[Any]) -> tuple[Any, ...]:
    """Return a record's values; ValueError if they are not those of the group."""
    return tuple([one.read(value) for one, value in zip(group.features, given, strict=True)])
