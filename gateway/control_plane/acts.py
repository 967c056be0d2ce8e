"""Describes operators' acts, as the audit log has them, in words."""

import json
from collections.abc import Mapping
from typing import Any

from tollway.backends.money import format_usd
from tollway.gateway.storage.audit_log import DONE

MOST, USUAL = 1000, 100  # acts in one reply, at most and by default: some megabytes


def changes(act: Mapping[str, Any]) -> list[str]:
    """Return each value that an act changed: `limit $10.00 -> $20.00`."""
    before, after = act["before"], act["after"]
    return [
        f"{name.removesuffix('_nano')} {_value(name, before.get(name))} -> {_value(name, new)}"
        for name, new in after.items()
        if before.get(name) != new
    ]


def title(act: Mapping[str, Any]) -> str:
    """Return what was done, and its outcome unless it was simply done."""
    return str(act["act"]) + ("" if act["outcome"] == DONE else f" [{act['outcome']}]")


def event(act: Mapping[str, Any]) -> dict[str, Any]:
    """Return an act as the dashboard shows events."""
    told = "; ".join([*changes(act), *filter(None, [act["why"]])])
    text = f"by {act['who']}" + (f": {told}" if told else "")
    return {"time": act["time"], "kind": title(act), "about": act["about"], "text": text}


def _value(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name.endswith("_nano") and isinstance(value, int):
        return format_usd(value)
    return value if isinstance(value, str) else json.dumps(value)
