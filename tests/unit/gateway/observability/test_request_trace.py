"""Each observer gets a trace once, and a request that is over is released."""

from random import Random
from typing import Any, cast

from tollway.gateway.observability.request_trace import RequestTrace, TraceRecorder
from tollway.gateway.routing.request_state import RequestState

SCOPE: dict[str, Any] = {"raw_path": b"/v1/x", "method": "POST", "headers": []}


def test_all_observers_see_the_request_and_then_nothing_references_it() -> None:
    seen: list[tuple[Any, float]] = []
    followers = [lambda trace, now_s: seen.append((trace.state, now_s))] * 2
    watch = TraceRecorder(followers, traces=False, share=1.0, rng=Random(1))
    trace = watch.begin(SCOPE, 1.0)
    trace.state = state = cast(RequestState, object())

    watch.end(trace, 2.0)

    assert seen == [(state, 2.0)] * 2
    assert trace.state is None  # its request holds the trace: a cycle costs a collection


def test_without_traces_nothing_is_added_to_calls() -> None:
    trace = TraceRecorder([], traces=False, share=1.0, rng=Random(1)).begin(SCOPE, 1.0)
    headers = [(b"traceparent", b"as it came")]

    assert trace.onto(headers) is headers
    assert trace.exemplar is None


def test_the_share_of_requests_without_a_context_is_sampled() -> None:
    watch = TraceRecorder([], traces=True, share=0.25, rng=Random(1))
    passages = [watch.begin(SCOPE, 1.0) for _ in range(1000)]

    assert 200 < sum(trace.sampled for trace in passages) < 300
    assert len({trace.trace_id for trace in passages}) == 1000
    assert all(isinstance(trace, RequestTrace) and not trace.parent_id for trace in passages)
