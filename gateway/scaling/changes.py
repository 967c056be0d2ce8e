"""Decides when replicas are changed: the rates that limit it, and what is tried again.

Pure: the state goes in, and the change to make comes out. The state of a backend is a document that
all gateways share, so another process goes on where one has ended. A change is written down before
it is made; one that has not ended, because its process died, is made again under the same id.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tollway.gateway.scaling.actuators.port import Change

HOUR_S = 3600.0
RETRY_S, RETRY_MAX_S = 15.0, 600.0  # after the first failure, doubled by each further one
CHANGES_KEPT = 1000  # the most that a rate can allow in an hour


@dataclass(frozen=True, slots=True)
class Rates:
    """How often replicas may be changed: a shortest interval, and a number in an hour."""

    interval_s: float
    per_hour: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What was set of a backend. `replicas` is None if nothing was.

    `pending` is the change that is being made, or has failed; `failures` in a row and `failed_s`
    are about it. `changed` are the times of changes in the last hour, tries not counted.
    """

    replicas: int | None = None
    pending: Change | None = None
    changed: tuple[float, ...] = ()
    failures: int = 0
    failed_s: float = 0.0

    def document(self) -> dict[str, Any]:
        """Return the state as JSON types."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Applied":
        """Return the state that a document describes."""
        pending = document["pending"]
        return cls(
            replicas=document["replicas"],
            pending=None if pending is None else Change(**pending),
            changed=tuple(document["changed"]),
            failures=document["failures"],
            failed_s=document["failed_s"],
        )


def due(rates: Rates, applied: Applied, wanted: Change, now_s: float) -> Change | str:
    """Return the change to make now, or why none is made; "" if none is needed.

    `wanted` names the replicas that are recommended, under an id that was not used before.
    """
    pending = applied.pending
    if pending is None and applied.replicas == wanted.replicas:
        return ""
    if pending is not None and pending.replicas == wanted.replicas:
        wait_s = retry_wait_s(applied.failures)
        if applied.failures and now_s - applied.failed_s < wait_s:
            return f"it failed, and is tried again {wait_s:g} s after that"
        return pending
    recent = [at_s for at_s in applied.changed if now_s - at_s < HOUR_S]
    if recent and now_s - recent[-1] < rates.interval_s:
        return f"the last change is less than {rates.interval_s:g} s ago"
    if len(recent) >= rates.per_hour:
        return f"there were {len(recent)} changes in the last hour"
    return wanted


def begun(applied: Applied, change: Change, now_s: float) -> Applied:
    """Return the state when a change begins; one that is tried again begins no new one."""
    if applied.pending is not None and applied.pending.id == change.id:
        return applied
    recent = tuple([at_s for at_s in applied.changed if now_s - at_s < HOUR_S])
    changed = (*recent, now_s)[-CHANGES_KEPT:]
    return replace(applied, pending=change, changed=changed, failures=0, failed_s=0.0)


def ended(applied: Applied, change: Change, *, made: bool, now_s: float) -> Applied:
    """Return the state when a change has ended, well or badly."""
    if made:
        return replace(applied, replicas=change.replicas, pending=None, failures=0, failed_s=0.0)
    return replace(applied, failures=applied.failures + 1, failed_s=now_s)


def retry_wait_s(failures: int) -> float:
    """Return the pause after so many failures in a row."""
    return min(RETRY_MAX_S, RETRY_S * 2.0 ** max(0, min(failures, 10) - 1))
