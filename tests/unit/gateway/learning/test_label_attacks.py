"""One tenant's feedback harms no other tenant, no start, and not the event loop."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Upstream, run, running, serving
from tests.support.tenants import As, quality_hat, traffic, two_tenants
from tollway.gateway.learning.feedback import ADMIN, GATEWAY
from tollway.gateway.learning.feedback_items import (
    FEEDBACK_MAX,
    LABEL_BYTES_MAX,
    BadFeedback,
    parse,
)
from tollway.gateway.learning.importance_weights import WEIGHT_MAX, Weights
from tollway.gateway.storage.journal import Journal, segments
from tollway.gateway.storage.journal_format import seal

# -- what a client says is bounded before it is believed


@pytest.mark.parametrize("probability", [5e-324, 1e-300, 0.000999, 0, -1, 1.001, "1", None, True])
def test_a_probability_outside_its_bounds_is_refused_by_name(probability: Any) -> None:
    if probability is None:
        probability = math.nan
    with pytest.raises(BadFeedback, match=r"probability must be a number from 0\.001 to 1"):
        parse({"decision": "d", "quality": 1, "probability": probability})


@pytest.mark.parametrize("probability", [0.001, 1, 0.5])
def test_a_probability_within_its_bounds_is_taken(probability: float) -> None:
    assert parse({"decision": "d", "quality": 1, "probability": probability}).probability > 0


def nested(levels: int) -> Any:
    label: Any = 1
    for _ in range(levels):
        label = [label]
    return label


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("x" * LABEL_BYTES_MAX, "bytes"),
        ([0.123456789] * 1000, "bytes"),
        ({"a": "é" * 2100}, "bytes"),
        (nested(9), "nested"),
        (nested(190), "nested"),
        ([[[[[[[[{}]]]]]]]], "nested"),
    ],
)
def test_a_label_that_is_too_large_or_too_deep_is_refused(label: Any, why: str) -> None:
    with pytest.raises(BadFeedback, match=why):
        parse({"decision": "d", "label": label})


@pytest.mark.parametrize("label", ["x" * 4000, [0.5] * 900, nested(6), {"a": {"b": [1]}}, [], ""])
def test_a_label_within_its_bounds_is_taken(label: Any) -> None:
    assert parse({"decision": "d", "label": label}).label == label


def test_one_sources_probabilities_never_change_the_weight_of_anothers_labels() -> None:
    alone, beside = Weights(), Weights()
    honest = [0.1, 0.2, 0.05, 0.1, 1.0, 0.02] * 10
    expected = [alone.weigh("m", "honest", p) for p in honest]
    found = []
    for p in honest:
        beside.weigh("m", "mallory", 0.001)
        found.append(beside.weigh("m", "honest", p))
        beside.weigh("m", "mallory", 1.0)
    assert found == expected
    assert max(beside.weigh("m", "mallory", p) for p in (1.0, 0.001, 1.0, 0.001)) <= WEIGHT_MAX


@pytest.mark.integration
def test_probabilities_of_one_tenant_cannot_stop_the_next_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            async with running(two_tenants(a, a), tmp_path) as tollway:
                mallory = As(tollway, "mallory")
                decision = await mallory.ask()
                bad = await mallory.tell(
                    {"decision": decision, "quality": 0, "probability": 5e-324}
                )
                assert bad.status_code == 422
                assert "probability" in bad.json()["detail"]
                told = {"decision": decision, "quality": 0, "probability": 0.001}
                assert (await mallory.tell(told)).status_code == 202
            async with running(two_tenants(a, a), tmp_path) as tollway:
                assert await As(tollway, "honest").ask()

    run(main)


# -- one bad row never stops a start


BAD_MEMBERS: list[dict[str, Any]] = [
    {"probability": 5e-324},
    {"probability": 0},
    {"probability": "often"},
    {"known": {"cheap": None}},
    {"known": {"cheap": "right"}},
    {"known": {"cheap": 1e300}},
    {"known": None},
    {"known": {}},
    {"time": None},
    {"time": "now"},
    {"route": ["m"]},
    {"id": 7},
    {"id": None},
]


@pytest.mark.integration
def test_rows_that_cannot_be_learned_from_are_skipped_counted_and_said(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            toml = two_tenants(a, a)
            async with running(toml, tmp_path) as tollway:
                honest = As(tollway, "honest")
                ids = [await honest.ask() for _ in range(len(BAD_MEMBERS) + 2)]
                folder = tollway.gateway.settings.journal.dir
                found = tollway.gateway.journal.find(ids[0])
            good = {
                "kind": "feedback",
                "id": ids[0],
                "time": found[0]["time"] + 1e6,
                "route": "m",
                "tenant": "honest",
                "quality": 1.0,
                "known": {"cheap": 1.0, "nobody": 0.5},
                "label": None,
                "source": "",
                "probability": 1.0,
            }
            bad = [
                {**good, "id": decision, **member}
                for decision, member in zip(ids[1:], BAD_MEMBERS, strict=False)
            ]
            last = {**good, "id": ids[-1]}
            with segments(folder)[-1].open("ab") as file:
                file.writelines(map(seal, [good, *bad, last, last]))
                file.write(b'{"kind":"feedback","crc":"00000000"}\n')
            async with running(toml, tmp_path) as tollway:
                events = tollway.gateway.events.newest()
                kinds = {event["kind"]: event for event in events}
                assert kinds["caught_up"]["text"].startswith("learned from 2 items")
                assert kinds["journal_rows_skipped"]["details"] == {"rows": len(bad) + 1}
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                assert f"tollway_journal_rows_skipped_total {len(bad) + 1}.0" in metrics
                again = await As(tollway, "honest").tell({"decision": ids[0], "quality": 1})
                assert again.json()["result"] == "duplicate"
                assert await As(tollway, "mallory").ask()

    run(main)


DAMAGE: list[dict[str, Any]] = [
    {"pmf": [0.0, 0.0]},
    {"pmf": [1.0]},
    {"pmf": [-1.0, 2.0]},
    {"arm": "other"},
    {"arms": "cheap"},
    {"dense": [None]},
    {"dense": ["x"]},
    {"sparse": [[1]]},
    {"sparse": [[-4, 1.0]]},
    {"quality_hat": [5, 5]},
    {"reached": -1},
    {"held": 3},
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_decision_is_refused_and_teaches_nothing(
    tmp_path: Path, damage: dict[str, Any]
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, running(two_tenants(a, a), tmp_path) as tollway:
            honest = As(tollway, "honest")
            found = tollway.gateway.journal.find(await honest.ask())
            journal = tollway.gateway.journal
            decision = journal.new_id()
            journal.append(*[{**row, "id": decision, **damage} for row in found])
            before = tollway.gateway.routes["m"].policy.save()
            reply = await honest.tell({"decision": decision, "quality": 0.0})
            assert (reply.status_code, reply.json()["result"]) == (422, "refused")
            assert tollway.gateway.routes["m"].policy.save() == before

    run(main)


# -- checked, then written, then marked, then learned


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.integration
@pytest.mark.parametrize("step", ["marked", "put", "mark", "learn"])
def test_killed_at_any_step_a_label_is_neither_lost_nor_doubled(tmp_path: Path, step: str) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            toml = two_tenants(a, a)
            async with running(toml, tmp_path) as tollway:
                decision = await As(tollway, "honest").ask()
                learner, journal = tollway.gateway.learner, tollway.gateway.journal
                route = tollway.gateway.routes["m"]
                await tollway.gateway.state.save()
                snapshot = tollway.gateway.state.path("m").read_bytes()

                def die(*_: Any, **__: Any) -> Any:
                    raise Killed

                owner: Any = route.policy if step == "learn" else journal
                setattr(owner, step, die)
                with pytest.raises(Killed):
                    learner.take(parse({"decision": decision, "quality": 1.0}), "honest")
                delattr(owner, step)
                place = tollway.gateway.state.path("m")
            place.write_bytes(snapshot)  # what a killed process has not saved
            async with running(toml, tmp_path) as tollway:
                reply = await As(tollway, "honest").tell({"decision": decision, "quality": 1.0})
                lost = step in {"marked", "put"}  # nothing was answered, so it is sent again
                assert reply.json()["result"] == ("learned" if lost else "duplicate")
                assert tollway.gateway.routes["m"].policy.version == 1
                found = tollway.gateway.journal.find(decision)
                rows = found + tollway.gateway.journal.follow(found)
                assert [row["kind"] for row in rows].count("feedback") == 1

    run(main)


@pytest.mark.integration
def test_a_label_that_the_disk_takes_and_will_not_mark_is_learned_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            async with running(two_tenants(a, a), tmp_path) as tollway:
                honest = As(tollway, "honest")
                decision = await honest.ask()

                def full(_: str) -> bool:
                    raise OSError(28, "No space left on device")

                tollway.gateway.journal.mark = full  # type: ignore[method-assign]
                told = {"decision": decision, "quality": 1.0}
                results = [(await honest.tell(told)).json()["result"] for _ in range(2)]
                assert results == ["learned", "duplicate"]
            async with running(two_tenants(a, a), tmp_path) as tollway:
                assert (await As(tollway, "honest").tell(told)).json()["result"] != "unknown"

    run(main)


def test_a_row_that_the_disk_refuses_is_not_appended_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    with monkeypatch.context() as patch:

        def full(*_: Any) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr("tollway.gateway.storage.journal.os.write", full)
        assert not journal.put({"kind": "feedback", "id": "a"})
    assert journal.put({"kind": "feedback", "id": "b"})
    (segment,) = segments(tmp_path)
    assert segment.read_bytes() == seal({"kind": "feedback", "id": "b"})


# -- rates, and the loop


@pytest.mark.integration
def test_a_tenant_that_floods_feedback_is_refused_and_the_others_feedback_is_learned(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        toml = two_tenants(
            "http://127.0.0.1:9", "http://127.0.0.1:9", mallory="rate.feedback_per_s = 1"
        )
        async with running(toml, tmp_path) as tollway:
            mallory, honest = As(tollway, "mallory"), As(tollway, "honest")
            flood = [{"decision": "zzz.0.aaaa", "quality": 0}] * FEEDBACK_MAX
            assert (await mallory.tell(flood)).status_code == 200  # a whole call always fits
            refused = await mallory.tell(flood)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 50
            assert "labels per second" in refused.json()["detail"]
            assert (await honest.tell(flood)).status_code == 200
            too_many = await honest.tell([*flood, flood[0]])
            assert too_many.status_code == 413
            admin = [(await As(tollway, "admin").tell(flood)).status_code for _ in range(3)]
            assert admin == [200] * 3

    run(main)


@pytest.mark.integration
def test_the_loop_has_its_turn_between_any_two_labels_of_a_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, running(two_tenants(a, a), tmp_path) as tollway:
            honest = As(tollway, "honest")
            ids = [await honest.ask() for _ in range(30)]
            learner, states, taken = tollway.gateway.learner, 0, []
            take = learner.take

            def counted(*args: Any) -> str:
                taken.append(states)
                return take(*args)

            learner.take = counted  # type: ignore[method-assign]

            async def others() -> None:
                nonlocal states
                while True:
                    states += 1
                    await asyncio.sleep(0)

            other = asyncio.create_task(others())
            reply = await honest.tell([{"decision": one, "quality": 1} for one in ids])
            other.cancel()
            assert {one["result"] for one in reply.json()["results"]} == {"learned"}
            assert len(taken) == len(ids) == len(set(taken))

    run(main)


def test_audits_may_be_rarer_than_clients_may_claim(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, running(two_tenants(a, a), tmp_path) as tollway:
            honest, learner = As(tollway, "honest"), tollway.gateway.learner
            told = [{"decision": await honest.ask(), "quality": 1, "probability": 0.0002}]
            assert (await learner.teach(told, None, ADMIN))[0]["result"] == "refused"
            assert (await learner.teach(told, None, GATEWAY))[0]["result"] == "learned"

    run(main)


# -- what cannot be compared is refused with the reason, not learned as wrong


@pytest.mark.integration
@pytest.mark.parametrize(
    ("label", "why"), [("cat", "different types"), ([1, 2], "send one label"), ({}, "object")]
)
def test_a_label_of_another_kind_is_refused_and_may_be_sent_again(
    tmp_path: Path, label: Any, why: str
) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a, running(two_tenants(a, a), tmp_path) as tollway:
            honest = As(tollway, "honest")
            decision = await honest.ask()
            before = tollway.gateway.routes["m"].policy.save()
            refused = await honest.tell({"decision": decision, "label": label})
            assert (refused.status_code, refused.json()["result"]) == (422, "refused")
            assert why in refused.json()["detail"]
            assert "'m'" in refused.json()["detail"]
            assert tollway.gateway.routes["m"].policy.save() == before
            right = await honest.tell({"decision": decision, "label": 1})
            assert right.json()["result"] == "learned"

    run(main)


# -- labels of one tenant weigh what the others bear out


@pytest.mark.integration
@pytest.mark.parametrize("policy", ["lagrangian", "epsilon_greedy"])
def test_a_hundred_false_zeros_of_one_tenant_move_no_arm(tmp_path: Path, policy: str) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a:
            async with running(two_tenants(a, a, policy=policy), tmp_path) as tollway:
                await traffic(tollway, "honest", 300, 1)
                arms = ("cheap", "dear")
                before = [quality_hat(tollway, arm) for arm in arms]
                told = await traffic(tollway, "mallory", 100, 2)
                assert {one["result"] for one in told} == {"learned"}
                after = [quality_hat(tollway, arm) for arm in arms]
                assert max(abs(x - y) for x, y in zip(before, after, strict=True)) <= 0.01
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                (line,) = [
                    one
                    for one in metrics.splitlines()
                    if 'set_aside_total{route="m"' in one and "mallory" in one
                ]
                assert float(line.split()[-1]) > 90
                kinds = [event["kind"] for event in tollway.gateway.events.newest()]
                assert "labels_set_aside" in kinds
            async with running(two_tenants(a, a, policy=policy), tmp_path) as tollway:
                await traffic(tollway, "mallory", 40, 2)  # nor after a restart
                after = [quality_hat(tollway, arm) for arm in arms]
                assert max(abs(x - y) for x, y in zip(before, after, strict=True)) <= 0.01

    run(main)


@pytest.mark.integration
def test_a_start_without_a_snapshot_trusts_labels_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a:
            async with running(two_tenants(a, a), tmp_path) as tollway:
                await traffic(tollway, "honest", 300, 1)
                before = quality_hat(tollway)
                await traffic(tollway, "mallory", 100, 2)
                place = tollway.gateway.state.path("m")
            place.unlink()
            async with running(two_tenants(a, a), tmp_path) as tollway:
                assert tollway.gateway.routes["m"].policy.version > 300
                assert quality_hat(tollway) == pytest.approx(before, abs=0.01)

    run(main)


@pytest.mark.integration
def test_a_tenant_that_the_operator_trusts_is_believed_in_full(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a:
            async with running(two_tenants(a, a, mallory="labeller = true"), tmp_path) as tollway:
                await traffic(tollway, "honest", 300, 1)
                before = quality_hat(tollway)
                await traffic(tollway, "mallory", 100, 2)
                assert min(quality_hat(tollway, arm) for arm in ("cheap", "dear")) < before - 0.1

    run(main)


@pytest.mark.integration
def test_the_route_decides_who_may_label(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a:
            own = two_tenants(a, a, mallory="labeller = true")
            async with running(own, tmp_path / "own") as tollway:
                honest, mallory = As(tollway, "honest"), As(tollway, "mallory")
                told = {"decision": await honest.ask(), "label": 1}
                assert (await mallory.tell(told)).status_code == 404
                assert (await honest.tell(told)).status_code == 202
            only = two_tenants(a, a, route='feedback = "labellers"', mallory="labeller = true")
            async with running(only, tmp_path / "only") as tollway:
                honest, mallory = As(tollway, "honest"), As(tollway, "mallory")
                told = {"decision": await honest.ask(), "label": 1}
                refused = await honest.tell(told)
                assert refused.status_code == 422
                assert "labeller = true" in refused.json()["detail"]
                assert (await mallory.tell(told)).status_code == 202
                admin = As(tollway, "admin")
                told = {"decision": await honest.ask(), "label": 1}
                assert (await admin.tell(told)).status_code == 202
                foreign = {"decision": await mallory.ask(), "label": 1}
                assert (await honest.tell(foreign)).status_code == 404

    run(main)
