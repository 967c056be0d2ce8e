"""Drift of a backend's answers."""

from random import Random
from types import SimpleNamespace
from typing import Any

from tollway.gateway.rollouts.answer_drift import ANSWERS, AnswerDrift
from tollway.gateway.rollouts.keys import tenant_group

SALT = "apart 0"


class Events:
    def __init__(self) -> None:
        self.kinds: list[str] = []

    def add(self, kind: str, about: str, text: str, **details: Any) -> None:
        self.kinds.append(kind)


def state(answer: Any, error: str = "", tenant: str = "t") -> Any:
    outcome = SimpleNamespace(answer=SimpleNamespace(value=answer), error=error)
    route = SimpleNamespace(name="m")
    return SimpleNamespace(
        inference=SimpleNamespace(route=route, tenant=tenant),
        attempts=[SimpleNamespace(backend="b", outcome=outcome)],
        repeated=None,
    )


def test_answers_that_change_are_reported_once_until_they_are_as_before() -> None:
    events = Events()
    drift, rng = AnswerDrift(events), Random(0)
    for _ in range(3 * ANSWERS):
        drift.ended(state(rng.randrange(10)), 0.0)
    assert events.kinds == []
    for _ in range(3 * ANSWERS):
        drift.ended(state(rng.choice([1, 1, 1, 7])), 0.0)
    assert events.kinds == ["answers_drifted"]
    assert drift.samples["m", "b"].psi > 0.25
    for _ in range(2 * ANSWERS):
        drift.ended(state(rng.randrange(10)), 0.0)
    for _ in range(2 * ANSWERS):
        drift.ended(state(1), 0.0)
    assert events.kinds == ["answers_drifted"] * 2


def test_failures_and_replies_without_an_answer_are_no_answers() -> None:
    drift = AnswerDrift(Events())
    drift.ended(state(None), 0.0)
    drift.ended(state(1, "failed"), 0.0)
    assert drift.samples == {}


def test_the_samples_of_a_route_that_is_gone_are_dropped() -> None:
    drift = AnswerDrift(Events())
    drift.ended(state(1), 0.0)
    drift.keep({"other": ()})
    assert drift.samples == {}


def test_backends_have_an_index_from_the_start_and_keep_it() -> None:
    drift = AnswerDrift(Events())
    drift.keep({"m": ["a", "b"]})
    assert {key: one.psi for key, one in drift.samples.items()} == {("m", "a"): 0, ("m", "b"): 0}
    before = dict(drift.samples)
    drift.ended(state(1), 0.0)
    drift.keep({"m": ["a", "b"]})
    assert drift.samples == before
    assert drift.samples["m", "b"].known == 1


def test_the_tenants_of_these_tests_are_in_groups_of_their_own() -> None:
    assert len({tenant_group(SALT, tenant) for tenant in "abcx"}) == 4


def asked(rng: Random, drift: AnswerDrift, odd: str, share: float, count: int) -> None:
    """Answer tenants a, b and c alike; `odd` is another, which always gets a 7."""
    for _ in range(count):
        if rng.random() < share:
            drift.ended(state(7, tenant=odd), 0.0)
        else:
            drift.ended(state(rng.randrange(10), tenant=rng.choice("abc")), 0.0)


def test_what_one_tenant_asks_is_no_drift_of_the_backend() -> None:
    events = Events()
    drift, rng = AnswerDrift(events, SALT), Random(1)
    asked(rng, drift, "x", 0.0, ANSWERS)
    asked(rng, drift, "x", 0.6, 3 * ANSWERS)
    assert events.kinds == []
    assert drift.samples["m", "b"].psi < 0.25


def test_a_tenant_that_asks_no_more_is_no_drift_either() -> None:
    events = Events()
    drift, rng = AnswerDrift(events, SALT), Random(1)
    asked(rng, drift, "x", 0.6, ANSWERS)
    asked(rng, drift, "x", 0.0, 3 * ANSWERS)
    assert events.kinds == []


def test_a_backend_that_answers_all_tenants_differently_has_drifted() -> None:
    events = Events()
    drift, rng = AnswerDrift(events, SALT), Random(1)
    asked(rng, drift, "x", 0.0, ANSWERS)
    for _ in range(ANSWERS):
        drift.ended(state(rng.choice([1, 1, 7]), tenant=rng.choice("abc")), 0.0)
    assert events.kinds == ["answers_drifted"]
