"""Adds up the evidence of all gateway processes on a rollout's present run.

Each process writes a document of its own. A process that is gone leaves its evidence behind, which
still counts; once more than GONE_MAX have, the leader folds them into one, so that a week of
restarts costs no more than the processes that live. The sum names its parts, and these are
skipped from then on, by the process itself too if it was only silent; and whoever replaces the sum
must know the one that is there. So whatever crashes or stalls in between, nothing counts twice.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tollway.gateway.rollouts.documents import FOLDED
from tollway.gateway.rollouts.model import Evidence, RolloutState
from tollway.gateway.rollouts.rollout import Rollout

ALIVE_S = 10.0  # a process whose evidence is older counts no more as behind
GONE_S = 60.0  # one whose evidence is older will write no more
GONE_MAX = 8
FOLDED_MAX = 1000  # names of processes that a sum remembers
INLINE_MAX = 4  # documents that are added up on the event loop, in half a millisecond


@dataclass(frozen=True, slots=True)
class Pooled:
    """All processes' evidence, how far mirrored answers agree, and a sum to be written, if any.

    `parts`: the processes whose documents the sum replaces.
    """

    evidence: Evidence
    agreement: tuple[float, float]
    fold: dict[str, Any] | None = None
    parts: tuple[str, ...] = ()


async def pooled(
    one: Rollout, documents: Mapping[str, Mapping[str, Any]], own: str, broken: str, now_s: float
) -> Pooled:
    """Return the evidence of a rollout that has a state.

    `documents` are those of the control store by process, the sum among them, of which `own` is not
    used: this process knows its evidence better. If the sum has `own` as a part, the process was
    silent for so long that it was taken for gone; what it saw since does not count. `broken` says
    why the candidate is out of service here, if it is.
    """
    state = one.state
    assert state is not None
    present = {
        name: each for name, each in documents.items() if name != own and each["run"] == state.run
    }
    behind = 0
    for each in present.values():
        if now_s - each["time"] < ALIVE_S:
            behind += each["number"] < state.number
            broken = broken or each["broken"]
    counted = {name: each for name, each in present.items() if each["epoch"] == state.epoch}
    folded = {name for each in counted.values() for name in each.get("of", ())}
    counted = {name: each for name, each in counted.items() if name not in folded}
    sums = one.collector.nothing() if own in folded else one.collector.sums()

    def add() -> None:
        for each in counted.values():
            sums.add(each["evidence"])

    if len(counted) <= INLINE_MAX:
        add()
    else:
        await asyncio.to_thread(add)
    evidence = Evidence(sums.measures(one.plan), broken, one.smoke, behind)
    gone = {n: each for n, each in counted.items() if now_s - each["time"] >= GONE_S}
    present_sum = documents.get(FOLDED)
    is_late = present_sum is not None and present_sum["number"] > state.number
    if len(gone) <= GONE_MAX or is_late:
        return Pooled(evidence, sums.agreed)
    if FOLDED in counted:
        gone[FOLDED] = counted[FOLDED]  # it is replaced, so it must be in, whatever the clocks say
    fold, parts = await asyncio.to_thread(_folded, one, state, gone)
    return Pooled(evidence, sums.agreed, fold if parts else None, parts)


def document(one: Rollout, broken: str, now_s: float) -> dict[str, Any]:
    """Return this process' evidence on a rollout that has a state, as a document."""
    assert one.state is not None
    return _document(one.state, one.collector.save(), broken, now_s)


def _document(
    state: RolloutState, evidence: dict[str, Any], broken: str, now_s: float
) -> dict[str, Any]:
    return {
        "run": state.run,
        "epoch": state.epoch,
        "number": state.number,
        "time": now_s,
        "broken": broken,
        "evidence": evidence,
    }


def _folded(
    one: Rollout, state: RolloutState, gone: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the sum of what processes that are gone have left, and these processes."""
    sums = one.collector.nothing()
    added = [name for name, each in gone.items() if sums.add(each["evidence"])]
    names = tuple([name for name in added if name != FOLDED])
    # Processes that were folded before may be asleep: should they wake up, they are skipped still.
    known = [name for each in added for name in gone[each].get("of", ())]
    newest = max(each["time"] for each in gone.values())
    found = {
        **_document(state, sums.save(), "", newest),
        "of": [*known, *names][-FOLDED_MAX:],
    }
    return found, names
