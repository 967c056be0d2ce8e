"""The evidence of several processes, added up."""

import asyncio
import copy
from dataclasses import replace
from typing import Any

import pytest

from tollway.gateway.control_store.memory import MemoryControlStore
from tollway.gateway.rollouts import pool
from tollway.gateway.rollouts.collector import Collector
from tollway.gateway.rollouts.documents import FOLDED, RolloutDocuments
from tollway.gateway.rollouts.model import Criterion, RolloutPlan, RolloutState
from tollway.gateway.rollouts.rollout import Rollout

PLAN = RolloutPlan("r", "old", "new", criteria=(Criterion("error_rate"),))
STATE = RolloutState("r", "run", "salt", weight=0.5, number=3)
NOW_S = 1000.0


def rollout(values: int, state: RolloutState = STATE) -> Rollout:
    """Return a rollout whose process has seen some values of each version."""
    one = Rollout(PLAN, Collector(PLAN), state)
    for number in range(values):
        for candidate in (False, True):
            one.collector.request(
                candidate,
                number % 64,
                failed=False,
                invalid=False,
                latency_s=0.1,
                cost_nano=1,
                answer=None,
            )
    return one


def written(
    values: int, *, at_s: float = NOW_S, broken: str = "", **changes: Any
) -> dict[str, Any]:
    return pool.document(rollout(values, replace(STATE, **changes)), broken, at_s)


def pooled(one: Rollout, documents: dict[str, Any]) -> pool.Pooled:
    return asyncio.run(pool.pooled(one, documents, "me", "", NOW_S))


def count(found: pool.Pooled) -> int:
    return found.evidence.measures["error_rate"].candidate_count


def test_the_evidence_of_this_run_and_epoch_counts_whoever_wrote_it() -> None:
    documents = {
        "me": written(7),  # older than what this process knows
        "a": written(20),
        "gone": written(30, at_s=0.0),
        "b": written(40, run="another"),
        "c": written(50, epoch=1),
    }
    assert count(pooled(rollout(10), documents)) == 10 + 20 + 30


def test_processes_that_live_and_have_not_applied_the_state_are_behind() -> None:
    documents = {
        "a": written(1, number=2),
        "b": written(1, number=2, at_s=NOW_S - 2 * pool.ALIVE_S),
        "c": written(1),
    }
    assert pooled(rollout(1), documents).evidence.behind == 1


def test_a_candidate_that_is_broken_for_a_process_that_lives_is_broken() -> None:
    documents = {"a": written(1, broken="it is down")}
    assert pooled(rollout(1), documents).evidence.broken == "it is down"
    documents = {"a": written(1, broken="it is down", at_s=0.0)}
    assert pooled(rollout(1), documents).evidence.broken == ""


def test_what_many_processes_have_left_becomes_one_document_and_counts_once() -> None:
    one = rollout(10)
    documents = {f"gone{n}": written(5, at_s=float(n)) for n in range(pool.GONE_MAX + 1)}
    documents["a"] = written(20)
    found = pooled(one, documents)
    before = count(found)
    assert before == 10 + 20 + 5 * (pool.GONE_MAX + 1)
    assert found.fold is not None
    assert set(found.fold["of"]) == set(found.parts) == documents.keys() - {"a"}

    # The leader dies before it has deleted any of them.
    crashed = {**documents, FOLDED: found.fold}
    assert count(pooled(one, crashed)) == before
    assert pooled(one, crashed).fold is None
    folded = {"a": documents["a"], FOLDED: found.fold}
    assert count(pooled(one, folded)) == before


def test_a_sum_of_another_run_or_epoch_says_nothing_of_who_lives() -> None:
    one = rollout(10)
    for other in ({"run": "another"}, {"epoch": 7}):
        sum_ = {**written(5, at_s=0.0, **other), "of": ["a"]}
        assert count(pooled(one, {"sum": sum_, "a": written(20)})) == 30


def test_a_process_that_wakes_up_after_it_was_folded_counts_once() -> None:
    one = rollout(10)
    documents = {f"gone{n}": written(5, at_s=float(n)) for n in range(pool.GONE_MAX + 1)}
    first = pooled(one, documents).fold
    later = {FOLDED: first, **{f"late{n}": written(5, at_s=50.0 + n) for n in range(pool.GONE_MAX)}}
    second = pooled(one, copy.deepcopy(later)).fold
    assert second is not None
    assert set(second["of"]) == documents.keys() | later.keys() - {FOLDED}
    awake = {FOLDED: second, "gone3": written(6)}
    assert count(pooled(one, awake)) == 10 + 5 * (2 * pool.GONE_MAX + 1)


@pytest.mark.parametrize("damage", [{}, {"comparisons": {}}])
def test_evidence_of_another_kind_is_left_out_and_stays(damage: dict[str, Any]) -> None:
    documents = {f"gone{n}": written(5, at_s=float(n)) for n in range(pool.GONE_MAX + 1)}
    documents["odd"] = {**written(5, at_s=0.0), "evidence": damage}
    found = pooled(rollout(10), documents)
    assert found.fold is not None
    assert "odd" not in found.fold["of"]
    assert count(found) == 10 + 5 * (pool.GONE_MAX + 1)


def test_the_documents_that_a_sum_replaces_are_deleted() -> None:
    async def main() -> None:
        store = MemoryControlStore(lambda: 0.0)
        documents = RolloutDocuments(store, "me")
        for name in ("a", "b", "c"):
            await store.write(f"rollouts/r/evidence/{name}", {})
        _, revision = await documents.evidence("r")
        assert await documents.fold("r", {"of": ["x", "a", "b"]}, ("a", "b"), revision)
        assert set((await documents.evidence("r"))[0]) == {"c", FOLDED}

    asyncio.run(main())


def test_a_leader_that_stalled_while_another_folded_folds_nothing_twice() -> None:
    async def main() -> None:
        store = MemoryControlStore(lambda: NOW_S)
        slow, quick = RolloutDocuments(store, "slow"), RolloutDocuments(store, "quick")

        async def look(of: RolloutDocuments) -> tuple[pool.Pooled, int]:
            documents, revision = await of.evidence("r")
            return await pool.pooled(rollout(0), documents, of.member, "", NOW_S), revision

        gone = pool.GONE_MAX + 1
        for turn in (1, 2):  # the second time there is a sum already
            for n in range(gone):
                name = f"rollouts/r/evidence/gone{turn}-{n}"
                await store.write(name, written(5, at_s=float(n)))
            for of in (quick, slow):
                await of.write_evidence("r", pool.document(rollout(0), "", NOW_S))
            (stale, old), (found, revision) = await look(slow), await look(quick)
            assert stale.fold is not None and found.fold is not None
            assert await quick.fold("r", found.fold, found.parts, revision)
            assert not await slow.fold("r", stale.fold, stale.parts, old)
            for of in (quick, slow):
                assert count((await look(of))[0]) == 5 * gone * turn
        assert set((await slow.evidence("r"))[0]) == {"quick", "slow", FOLDED}

    asyncio.run(main())


def test_a_process_that_was_folded_while_it_was_silent_does_not_count_itself_again() -> None:
    documents = {f"gone{n}": written(5, at_s=float(n)) for n in range(pool.GONE_MAX)}
    documents["me"] = written(100, at_s=900.0)
    leader = rollout(10)
    found = asyncio.run(pool.pooled(leader, documents, "leader", "", NOW_S))
    assert found.fold is not None and "me" in found.parts
    truth = count(found)
    assert truth == 10 + 100 + 5 * pool.GONE_MAX
    after = {"leader": pool.document(leader, "", NOW_S), FOLDED: found.fold}
    assert count(pooled(rollout(100), after)) == truth
    assert count(pooled(rollout(100), {**after, "me": written(100)})) == truth


def test_a_sum_is_replaced_only_with_what_is_in_it_and_never_by_an_older_state() -> None:
    many = {f"gone{n}": written(5, at_s=float(n)) for n in range(pool.GONE_MAX + 1)}
    odd = {**written(5), "of": ["x"]}  # by another clock, it is as if it had just been written
    found = pooled(rollout(0), {**many, FOLDED: odd})
    assert found.fold is not None and FOLDED not in found.parts
    assert set(found.fold["of"]) == {"x", *many}
    assert count(pooled(rollout(0), {FOLDED: found.fold})) == 5 * (pool.GONE_MAX + 2)

    later = {**written(5, at_s=0.0, run="next", number=STATE.number + 1), "of": ["x"]}
    assert pooled(rollout(0), {**many, FOLDED: later}).fold is None
    earlier = {**written(5, at_s=0.0, run="last", number=STATE.number - 1), "of": ["x"]}
    replaced = pooled(rollout(0), {**many, FOLDED: earlier}).fold
    assert replaced is not None and set(replaced["of"]) == many.keys()


def test_evidence_that_cannot_be_added_up_is_no_reason_to_write_a_sum() -> None:
    odd = {**written(5, at_s=0.0), "evidence": {}}
    documents = {f"odd{n}": odd for n in range(pool.GONE_MAX + 1)}
    assert pooled(rollout(1), documents).fold is None
