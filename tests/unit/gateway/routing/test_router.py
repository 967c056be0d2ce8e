"""The router as a dialogue: what it asks for, given what came of what it asked for before."""

from dataclasses import replace
from random import Random

import orjson
import pytest

from tollway.backends.http.connection import CLOSED
from tollway.backends.types import Call, ModelAnswer
from tollway.gateway.budgets.model import BudgetRefusal, OnExhausted, Reason
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.budgets.stores.registry import open_ledger
from tollway.gateway.routing.hedging import KNOWN_AT
from tollway.gateway.routing.metering import USAGE, VOID, AttemptOutcome
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.router import Accept, Ask, Refuse, Router, Static, Step
from tollway.gateway.settings import parse
from tollway.gateway.wiring.backends import build_backend
from tollway.gateway.wiring.routes import build_route
from tollway.policies.types import ACCEPT

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[routes]]
name = "r"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["a", "b", "c"]
policy = "cheapest"
"""
BACKEND = """
[[backends]]
name = "{name}"
kind = "cpu"
protocol = "oip"
url = "http://127.0.0.1:1"
price = {{ per_request_usd = {price} }}
"""
BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
NOW_S = 1000.0


class Dialogue:
    """One request: `ask` expects a call to a backend, the other methods say what came of it."""

    def __init__(self, route: str = "", backend: str = "", **request: object) -> None:
        prices = {"a": 0.001, "b": 0.002, "c": 0.003}
        text = (
            CONFIG
            + route
            + "".join(
                [BACKEND.format(name=name, price=price) + backend for name, price in prices.items()]
            )
        )
        settings = parse(text, {})
        backends = {one.name: build_backend(one, lambda *_: None) for one in settings.backends}
        self.route = build_route(settings.routes[0], settings, backends)
        ledger = open_ledger("memory://")
        reservations = Reservations(ledger, [], holder="test", clock=lambda: NOW_S)
        self.router = Router(reservations, rng=Random(1))
        self.state = self.begin(**request)
        self.step: Step | None = None
        self.now_s = NOW_S

    def begin(self, **request: object) -> RequestState:
        call = Call(b"POST", b"/v2/models/m/infer", [], BODY)
        call.payload = self.route.protocol.parse(call)
        inference = InferenceRequest(self.route, "t", call, NOW_S, NOW_S + 30.0)
        for name, value in request.items():
            setattr(inference, name, value)
        return self.router.begin(inference)

    def next(self) -> Step:
        self.step = self.router.next(self.state, self.now_s)
        return self.step

    def asks(self, backend: str, *, wait: bool = False, fallback: bool = False) -> "Dialogue":
        step = self.next()
        assert isinstance(step, Ask), step
        assert (step.backend.name, step.wait, step.fallback) == (backend, wait, fallback)
        return self

    def denied(self, reason: Reason = "exhausted", then: OnExhausted = "reject") -> "Dialogue":
        assert isinstance(self.step, Ask)
        refusal = BudgetRefusal("all", {}, 10, 9, 1, 0, 5, None, reason, on_exhausted=then)
        self.router.denied(self.state, self.step, refusal)
        return self

    def replies(self, status: int = 200, *, error: str = "", took_s: float = 0.0) -> "Dialogue":
        """The money is reserved, and the backend replies or fails."""
        assert isinstance(self.step, Ask)
        self.hedge_s = self.router.reserved(self.state, self.step)
        name = self.step.backend.name
        quote = self.state.quotes[name]
        cost_nano, provenance = (0, VOID) if error else (quote.expected_nano, USAGE)
        outcome = AttemptOutcome(cost_nano, provenance, None, ModelAnswer(), error)
        attempt = Attempt(
            backend=name,
            quote=quote,
            started_s=self.now_s,
            latency_s=took_s,
            outcome=outcome,
            status=0 if error and status == 200 else status,
            headers=[],
            body=b"{}",
            fallback=self.step.fallback,
        )
        self.state.attempts.append(attempt)
        if error:
            self.state.failed[name] = error
        self.router.answered(self.state, self.step, attempt)
        return self

    def accepts(self, backend: str, reason: str) -> None:
        step = self.next()
        assert isinstance(step, Accept), step
        assert (step.attempt.backend, self.state.reason) == (backend, reason)
        assert self.state.held is step.attempt
        assert self.next() == step  # nothing follows

    def refuses(self, reason: str) -> None:
        step = self.next()
        assert isinstance(step, Refuse), step
        assert step.reason.reason == reason
        assert self.state.held is None


CASCADE = "cascade = true\n"
CHAIN = 'fallbacks = ["b", "c"]\n'


def test_a_reply_is_accepted() -> None:
    Dialogue().asks("a").replies().accepts("a", "fixed")


def test_a_client_s_error_is_accepted_as_the_reply() -> None:
    Dialogue().asks("a").replies(404).accepts("a", "fixed")


def test_after_a_failure_the_next_best_arm_is_tried_once() -> None:
    talk = Dialogue().asks("a").replies(error="refused")
    # "cheapest" gives the others no probability: the last name comes first among equals.
    talk.asks("c", wait=True, fallback=True).replies().accepts("c", "fallback")


def test_if_the_next_best_arm_fails_too_the_request_is_refused() -> None:
    talk = Dialogue().asks("a").replies(error="refused")
    talk.asks("c", wait=True, fallback=True).replies(error="refused").refuses("backends_failed")


def test_a_declared_chain_is_gone_down_in_order_and_waits_for_money_at_its_end() -> None:
    talk = Dialogue(CHAIN).asks("a").replies(error="refused")
    talk.asks("b", fallback=True).replies(500, error="status 500")
    talk.asks("c", wait=True, fallback=True).replies().accepts("c", "fallback")
    assert talk.route.state.retries.made == 2


def test_a_fallback_without_money_is_passed_over() -> None:
    talk = Dialogue(CHAIN).asks("a").replies(error="refused")
    talk.asks("b", fallback=True).denied()
    talk.asks("c", wait=True, fallback=True).replies().accepts("c", "fallback")


def test_without_retries_there_is_no_fallback() -> None:
    talk = Dialogue(CHAIN)
    talk.route.state.retries.tokens.left["t"] = 0.0
    talk.asks("a").replies(error="refused").refuses("backends_failed")
    assert talk.route.state.retries.denied == 2


def test_with_fallback_off_the_first_failure_is_the_last() -> None:
    Dialogue("fallback = false\n").asks("a").replies(error="x").refuses("backends_failed")


def test_a_backend_s_own_error_is_passed_on_if_nobody_succeeds() -> None:
    talk = Dialogue("fallback = false\n").asks("a").replies(500, error="status 500")
    talk.accepts("a", "failed")


def test_of_several_errors_the_one_that_says_when_to_retry_is_passed_on() -> None:
    talk = Dialogue(CHAIN).asks("a").replies(429, error="status 429")
    talk.asks("b", fallback=True).replies(500, error="status 500")
    talk.asks("c", wait=True, fallback=True).replies(503, error="status 503").accepts("a", "failed")


def test_a_static_response_is_given_if_the_backends_are_unavailable() -> None:
    talk = Dialogue(CHAIN + "static_response = '{\"outputs\":[]}'\n").asks("a").replies(error="x")
    talk.asks("b", fallback=True).replies(error="x")
    talk.asks("c", wait=True, fallback=True).replies(error="x")
    step = talk.next()
    assert isinstance(step, Static)
    assert orjson.loads(step.attempt.body) == {"outputs": []}
    assert talk.state.cost_nano == 0


def test_a_static_response_does_not_hide_that_a_budget_is_spent() -> None:
    talk = Dialogue("static_response = '{}'\n").asks("a").denied()
    talk.refuses("budget_exhausted")


def test_a_refused_arm_is_dropped_and_the_policy_draws_again() -> None:
    talk = Dialogue().asks("a").denied("held").asks("b").replies()
    talk.accepts("b", "fixed")
    assert [draw.redrawn for draw in talk.state.draws] == [False, True]


def test_when_all_money_is_held_the_request_waits_for_the_first_drawn() -> None:
    talk = Dialogue().asks("a").denied("held").asks("b").denied("held").asks("c").denied("held")
    talk.asks("a", wait=True).replies().accepts("a", "fixed")


def test_after_waiting_in_vain_the_request_is_refused_as_held() -> None:
    talk = Dialogue().asks("a").denied("held").asks("b").denied("held").asks("c").denied("held")
    talk.asks("a", wait=True).denied("held").refuses("budget_held")


def test_a_spent_budget_that_rejects_ends_the_request() -> None:
    Dialogue().asks("a").denied("exhausted", "reject").refuses("budget_exhausted")


def test_a_spent_budget_that_degrades_offers_only_the_cheapest() -> None:
    talk = Dialogue(CASCADE).asks("a").denied("exhausted", "cheapest")
    talk.asks("b").replies()
    assert len(talk.state.draws[1].choice.arms) == 1


def test_a_cascade_draws_again_with_the_reply_until_it_is_accepted() -> None:
    talk = Dialogue(CASCADE).asks("a").replies()
    talk.accepts("a", "fixed")
    assert [draw.choice.arm for draw in talk.state.draws] == ["a", ACCEPT]
    assert [draw.stage for draw in talk.state.draws] == [0, 1]


def test_a_cascade_keeps_its_reply_when_the_next_stage_fails() -> None:
    talk = Dialogue(CASCADE.replace("true", "true") + "")
    talk.asks("a").replies()
    # Force the escalation that "cheapest" would not make.
    choice = replace(talk.state.draws[0].choice, arms=(ACCEPT, "b"), index=1)
    talk.route.policy.choose = lambda *_: choice  # type: ignore[method-assign]
    talk.asks("b").replies(error="refused").accepts("a", "escalation_failed")


def test_no_candidate_costs_more_than_the_client_allows() -> None:
    Dialogue(cost_nano_max=500_000).refuses("cost_ceiling")


def test_a_fallback_costs_no_more_than_the_client_allows() -> None:
    talk = Dialogue(CHAIN, cost_nano_max=2_500_000).asks("a").replies(error="refused")
    talk.asks("b", fallback=True).replies(error="refused").refuses("backends_failed")


def test_backends_out_of_service_are_not_asked() -> None:
    talk = Dialogue()
    for _ in range(20):
        talk.route.backends["a"].breaker.failed(NOW_S)
    talk.asks("b").replies().accepts("b", "fixed")


def test_with_every_backend_out_of_service_the_request_is_refused() -> None:
    talk = Dialogue()
    for backend in talk.route.backends.values():
        for _ in range(20):
            backend.breaker.failed(NOW_S)
    talk.refuses("no_backend")


def test_after_its_deadline_a_request_is_refused_as_late() -> None:
    talk = Dialogue("fallback = false\n").asks("a").replies(error="too slow")
    talk.now_s = NOW_S + 31.0
    talk.refuses("deadline_exceeded")


REPEATS = "repeat_on_close = true\n"


def test_a_call_whose_connection_closed_is_repeated_once() -> None:
    talk = Dialogue(backend=REPEATS).asks("a").replies(error=CLOSED).asks("a").replies()
    talk.accepts("a", "fixed")
    assert talk.state.failed == {}


def test_a_repeated_call_that_fails_too_goes_to_the_fallback() -> None:
    talk = Dialogue(CHAIN, REPEATS).asks("a").replies(error=CLOSED).asks("a").replies(error=CLOSED)
    talk.asks("b", fallback=True).replies().accepts("b", "fallback")


def test_without_money_for_the_repetition_the_first_call_counts() -> None:
    talk = Dialogue(CHAIN, REPEATS).asks("a").replies(error=CLOSED).asks("a").denied()
    talk.asks("b", fallback=True).replies().accepts("b", "fallback")
    assert talk.state.refusals == {}


def test_a_fallback_is_repeated_as_a_fallback() -> None:
    talk = Dialogue(CHAIN, REPEATS).asks("a").replies(error="refused")
    talk.asks("b", fallback=True).replies(error=CLOSED)
    talk.asks("b", fallback=True).replies().accepts("b", "fallback")


def test_a_backend_that_may_not_be_repeated_is_not() -> None:
    Dialogue(CHAIN).asks("a").replies(error=CLOSED).asks("b", fallback=True)


HEDGE = "hedge_share = 0.1\n"


def test_a_call_is_hedged_once_its_backend_s_latency_is_known() -> None:
    talk = Dialogue(HEDGE)
    for _ in range(KNOWN_AT):
        talk.state = talk.begin()
        talk.asks("a").replies(took_s=0.5)
        assert talk.hedge_s is None
    talk.state = talk.begin()
    talk.asks("a").replies(took_s=0.1)
    assert talk.hedge_s == pytest.approx(0.5)


def test_a_fallback_is_not_hedged() -> None:
    talk = Dialogue(HEDGE + CHAIN)
    talk.route.hedge.waits.seen["b", "t"] = KNOWN_AT  # type: ignore[union-attr]
    talk.route.hedge.waits.waits_s["b", "t"] = 1.0  # type: ignore[union-attr]
    talk.asks("a").replies(error="refused").asks("b", fallback=True).replies()
    assert talk.hedge_s is None


def test_a_second_call_needs_room_in_the_client_s_ceiling() -> None:
    talk = Dialogue(HEDGE, cost_nano_max=1_500_000).asks("a")
    assert not talk.router.may_hedge(talk.state, talk.route.backends["a"])
    talk = Dialogue(HEDGE, cost_nano_max=2_500_000).asks("a")
    assert talk.router.may_hedge(talk.state, talk.route.backends["a"])
