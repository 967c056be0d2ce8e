"""What a judge's reply says, and what is charged of its share."""

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tollway.backends.pricing import parse_price
from tollway.gateway.signals.calls import PaidCalls
from tollway.gateway.signals.judge import PairJudgeHook, number_of
from tollway.gateway.signals.ports import Answer, HookFailed
from tollway.policies.evidence.audit import Auditor

PRICE = parse_price({"per_request_usd": 0.001})
CEILING = 1000


@pytest.mark.parametrize(
    ("verdict", "number"),
    [
        *(("7", 7.0), ("Score: 7.", 7.0), ("**7.5**", 7.5), (".5", 0.5), ("0", 0.0), ("10", 10.0)),
        *(("0/10", 0.0), ("7/10", 7.0), ("7 / 10.", 7.0), ("10/10", 10.0), ("8 out of 10", 8.0)),
        *(("-3", None), ("- 3", None), ("\N{MINUS SIGN}3", None), ("11", None), ("7/100", None)),
        *(("7 or 8", None), ("1e5", None), ("good", None), ("", None), ("7" + " " * 40, None)),
    ],
)
def test_a_verdict_is_one_number_from_0_to_10(verdict: str, number: float | None) -> None:
    assert number_of(verdict) == number


class Calls(PaidCalls):
    """Makes the calls that a test scripts: a text, None for a refused one."""

    def __init__(self, *replies: str | None) -> None:
        self._auditor = Auditor(share=1.0, budget_share=1.0)
        self.replies = list(replies)

    def prepared(self, state: Any, plan: Any, target: Any, call: Any) -> Any:
        return SimpleNamespace(quotes={target.name: SimpleNamespace(ceiling_nano=CEILING)})

    def draw(self, state: Any, asked: Any, *, earns: bool = True) -> float:
        self._auditor.charge(sum(own.quotes[one.name].ceiling_nano for own, one in asked))
        return 1.0

    async def make(self, state: Any, own: Any, target: Any, *rest: Any) -> Any:
        self._auditor.charge(-CEILING)  # as if it had cost nothing
        text = self.replies.pop(0)
        if text is None:
            return None
        return SimpleNamespace(outcome=SimpleNamespace(answer=SimpleNamespace(value=text)))

    @property
    def owed_nano(self) -> float:
        return -self._auditor.balance_nano


def compared(calls: Calls) -> float | None:
    judge = SimpleNamespace(
        name="judge", model="j", price=PRICE, protocol=SimpleNamespace(parse=lambda call: None)
    )
    plan: Any = SimpleNamespace(backends={"judge": judge}, reprice=lambda name, price: None)
    route = SimpleNamespace(backends={"dear": SimpleNamespace(name="dear")})
    call = SimpleNamespace(caller="")
    inference = SimpleNamespace(route=route, tenant="t", call=call)
    state: Any = SimpleNamespace(inference=inference)
    hook = PairJudgeHook("pair", calls, plan, "judge", None, lambda: PRICE, "dear")
    answer = Answer("id", "chat", "t", "cheap", "an answer", b"", {}, state)
    return asyncio.run(hook.score(answer))


@pytest.mark.parametrize(
    ("verdicts", "score"),
    [(("1", "2"), 1.0), (("1", "1"), 0.5), (("2", "1"), 0.0), (("0", "0"), 1.0)],
)
def test_a_pair_is_judged_in_both_orders(verdicts: tuple[str, str], score: float) -> None:
    calls = Calls("another", *verdicts)
    assert (compared(calls), calls.owed_nano) == (score, 0)


@pytest.mark.parametrize("replies", [(None,), ("another", None), ("another", "1", None)])
def test_the_share_of_calls_that_are_not_made_is_given_back(replies: tuple[str | None]) -> None:
    calls = Calls(*replies)
    assert (compared(calls), calls.owed_nano) == (None, 0)


def test_a_preference_for_neither_answer_is_no_verdict_and_its_share_is_given_back() -> None:
    calls = Calls("another", "7")
    with pytest.raises(HookFailed, match="no verdict"):
        compared(calls)
    assert calls.owed_nano == 0


def test_a_request_adds_to_the_share_once_however_many_of_its_replies_are_judged() -> None:
    calls = Calls()
    expected = SimpleNamespace(expected_nano=10 * CEILING)
    state: Any = SimpleNamespace(quotes={"dear": expected}, cost_nano=0)
    own: Any = calls.prepared(state, None, SimpleNamespace(name="judge"), None)
    asked: Any = [(own, SimpleNamespace(name="judge"))]
    calls._rng = Random(0)
    balances = []
    for earns in (True, False, False):
        assert PaidCalls.draw(calls, state, asked, earns=earns)
        balances.append(calls.owed_nano / CEILING)
    assert balances == [-9.0, -8.0, -7.0]
