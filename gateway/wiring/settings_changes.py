"""Compares two configurations: the settings that differ, by name, and a checksum of each."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from tollway.gateway.settings import Settings


def checksum(settings: Settings) -> str:
    """Return the SHA-256 of a configuration in effect; hidden secrets do not change it."""
    text = json.dumps(settings.effective(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def differing(old: Settings, new: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that differ, before and after, by name: `budgets.day.limit_usd`.

    A setting that only one of them has is None in the other. Secrets are hidden, so a secret that
    changes does not differ.
    """
    before, after = dict(_flat(old.effective())), dict(_flat(new.effective()))
    names = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting with its name; tables of a list are known by their own names."""
    if isinstance(value, list) and value and all(_is_named(one) for one in value):
        value = {one["name"]: one for one in value}
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and "name" in value
