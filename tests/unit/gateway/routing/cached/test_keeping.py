"""What may be kept, and which draws may be repeated."""

from types import SimpleNamespace
from typing import Any

import pytest

from tollway.backends.types import Usage
from tollway.gateway.routing.cached.keeping import accepted_quality, may_keep
from tollway.gateway.routing.cached.repeated import is_plain
from tollway.policies.types import ACCEPT

BACKEND = "b"


@pytest.mark.parametrize(
    ("limit", "usage", "expected"),
    [
        (0, None, True),
        (16, None, False),
        (16, Usage(output_tokens=16), False),
        (16, Usage(output_tokens=15), True),
    ],
)
def test_an_answer_that_a_budgets_limit_may_have_cut_is_not_kept(
    limit: int, usage: Usage | None, expected: bool
) -> None:
    outcome = SimpleNamespace(error="", no_answer="", usage=usage)
    held: Any = SimpleNamespace(
        outcome=outcome, status=200, output_limit=limit, relay=None, backend=BACKEND
    )
    route = SimpleNamespace(backends={BACKEND: None}, cascade=False)
    state: Any = SimpleNamespace(inference=SimpleNamespace(route=route))
    assert may_keep(state, held) is expected
    held.relay = object()  # a stream's usage is known at its end
    assert may_keep(state, held)
    assert may_keep(state, held, ended=True) is expected


@pytest.mark.parametrize(
    ("last", "reason", "expected"),
    [
        (ACCEPT, "drawn", 0.25),
        (BACKEND, "drawn", 0.25),  # there was no stage left
        ("dear", "escalation_failed", None),
        ("dear", "drawn", None),  # it answered no better
        (ACCEPT, "escalation_failed", None),
        ("", "fallback", None),
    ],
)
def test_a_cascade_keeps_only_a_reply_that_it_ended_with_by_choice(
    last: str, reason: str, expected: float | None
) -> None:
    choice = SimpleNamespace(arm=last, index=1, quality_hat=(0.75, 0.25))
    held: Any = SimpleNamespace(
        outcome=SimpleNamespace(error="", no_answer="", usage=None),
        status=200,
        output_limit=0,
        relay=None,
        backend=BACKEND,
    )
    route = SimpleNamespace(backends={BACKEND: None, "dear": None}, cascade=True)
    state: Any = SimpleNamespace(
        inference=SimpleNamespace(route=route),
        draws=[SimpleNamespace(choice=choice)] if last else [],
        reason=reason,
        held=held,
    )
    assert may_keep(state, held) is (expected is not None)
    assert accepted_quality(state) == expected


def test_a_draw_is_not_repeated_for_others_where_a_rollout_is_sticky() -> None:
    def asking(sticky: Any) -> Any:
        return SimpleNamespace(
            trace=None,
            route=SimpleNamespace(sticky=sticky),
            tags={},
            floor=None,
            cost_nano_max=None,
            joined=None,
            held_by=frozenset(),
        )

    assert is_plain(asking(None))
    assert not is_plain(asking(lambda inference: 0.5))
