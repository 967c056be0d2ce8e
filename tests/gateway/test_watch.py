"""Who watches is told once, and a request that is over is let go of."""

from random import Random
from typing import Any, cast

from gateway.passage import Passage
from gateway.turn import Turn
from gateway.watch import Watch

SCOPE: dict[str, Any] = {"raw_path": b"/v1/x", "method": "POST", "headers": []}


def test_all_who_follow_see_the_turn_and_then_nothing_holds_it() -> None:
    seen: list[tuple[Any, float]] = []
    followers = [lambda passage, now_s: seen.append((passage.turn, now_s))] * 2
    watch = Watch(followers, traces=False, share=1.0, rng=Random(1))
    passage = watch.begin(SCOPE, 1.0)
    passage.turn = turn = cast(Turn, object())

    watch.end(passage, 2.0)

    assert seen == [(turn, 2.0)] * 2
    assert passage.turn is None  # its request holds the passage: a cycle costs a collection


def test_without_traces_nothing_is_added_to_calls() -> None:
    passage = Watch([], traces=False, share=1.0, rng=Random(1)).begin(SCOPE, 1.0)
    headers = [(b"traceparent", b"as it came")]

    assert passage.onto(headers) is headers
    assert passage.exemplar is None


def test_the_share_of_requests_without_a_context_is_sampled() -> None:
    watch = Watch([], traces=True, share=0.25, rng=Random(1))
    passages = [watch.begin(SCOPE, 1.0) for _ in range(1000)]

    assert 200 < sum(passage.sampled for passage in passages) < 300
    assert len({passage.trace_id for passage in passages}) == 1000
    assert all(isinstance(passage, Passage) and not passage.parent_id for passage in passages)
