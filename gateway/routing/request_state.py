"""The state of one request in the router: quotes, draws, attempts, refusals and the reply."""

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tollway.backends.types import Headers, ModelAnswer, Usage
from tollway.gateway.budgets.model import BudgetRefusal
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.estimation.prompt_cache import Prompt
from tollway.gateway.routing.call_bounds import CallBounds
from tollway.gateway.routing.metering import (
    GIVEN_UP,
    HEDGE_LOST,
    NO_ANSWER,
    OVERLOADED,
    PENDING,
    VOID,
    AttemptOutcome,
)
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.replies.stream_relay import StreamRelay
from tollway.gateway.routing.request import InferenceRequest
from tollway.policies.types import Choice, Context
from tollway.record import record

STATIC_RESPONSE = "static_response"
"""The backend name and the reason of a reply that no backend gave."""

DRAW, AGAIN, FALL_BACK, ENDED = range(4)
"""The phases of a request; see `router`."""

NO_QUOTE = Quote(0, 0, 0)
NOBODY: frozenset[str] = frozenset()


@record
class Attempt:
    """One call to one backend and its result; `reserved_nano` is what each budget reserved.

    `audit`: the probability of the audit, if the call was made to judge another backend's answer;
    else 0. `relay`: the relay, if the reply is a stream in progress. `output_limit`: the token
    limit of each answer that the gateway wrote into the request; 0 if it wrote none. `hedge_s`: the
    delay of a hedged (second) call to the same backend after the first.
    """

    backend: str
    quote: Quote
    started_s: float
    latency_s: float
    outcome: AttemptOutcome
    status: int
    headers: Headers
    body: bytes
    fallback: bool
    reserved_nano: dict[str, int] = field(default_factory=dict)
    audit: float = 0.0
    relay: StreamRelay | None = None
    hedge_s: float | None = None
    output_limit: int = 0

    @property
    def error(self) -> str:
        """Why the reply may not go to the client; empty if it may."""
        return self.outcome.error

    @property
    def is_telling(self) -> bool:
        """Whether the reply may be returned to the client as the reason for the failure.

        A redirect may not: it would lead the client past the gateway.
        """
        outcome = self.outcome
        hidden = outcome.refuses_key or outcome.forbidden or outcome.error in GIVEN_UP
        redirects = 300 <= self.status < 400
        return self.status != 0 and not (redirects or hidden or self.audit)

    @property
    def ended_s(self) -> float:
        """When it ended, on the router's clock."""
        return self.started_s + self.latency_s


@record
class Decision:
    """A choice of the policy, with its context.

    `redrawn`: a budget refused an arm drawn earlier in the same stage, so the propensity is
    conditional on that refusal, and no estimate from the journal may use it.
    """

    stage: int
    context: Context
    choice: Choice
    redrawn: bool


class RepeatedDraw(Protocol):
    """What was made for the first request that repeats a draw, for the next ones.

    `made`: the head of the reply, from `status` and `headers`; `rows`: how its rows are written.
    """

    status: int
    headers: Headers
    maker: object
    made: bytes
    rows: Any


@dataclass(slots=True)
class RequestState:
    """The state of one request, owned by the task that serves it.

    `phase` selects what the router does next. `below`: the fallbacks still to try. `failed_once`:
    the attempt to repeat because its connection closed. `left_out`: the backends that cannot serve
    the request, and why. `known`: the bounds that the request sets on a call's usage, by
    the backend's timeout. `bounds`: by backend, the bounds of a call under a hard budget, from the
    latest reservation. `prompt`: the request's prompt, if a backend that caches prompts was quoted.
    `hedged`: the latest call may be made twice. `hedge_lost`: one of the two has answered, so the
    other is cancelled. `streamed`: the reply is a stream, whose cost is known when it ends.
    `repeated`: the draw of a kept answer that it repeats.
    `waited`: the request has waited in vain for money that other calls hold. `verified`: how likely
    replies are right, by backend, where a verifier says so. `backends`: the
    route's, at the prices of the time when the request began.
    """

    inference: InferenceRequest
    context: Context
    id: str = ""
    phase: int = DRAW
    stage: int = 0
    reason: str = ""
    held: Attempt | None = None
    quotes: dict[str, Quote] = field(default_factory=dict)
    known: dict[float, Usage] = field(default_factory=dict)
    bounds: dict[str, CallBounds] = field(default_factory=dict)
    downgraded: bool = False
    saturated: bool = False
    draws: list[Decision] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    refusals: dict[str, BudgetRefusal] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    prompt: Prompt | None = None
    hedged: bool = False
    now_s: float = 0.0
    hedge_lost: bool = False
    streamed: bool = False
    waited: bool = False
    verified: dict[str, float] = field(default_factory=dict)
    below: list[Target] = field(default_factory=list)
    failed_once: Attempt | None = None
    repeated: RepeatedDraw | None = None
    backends: Mapping[str, Target] = field(init=False)

    def __post_init__(self) -> None:
        inference = self.inference
        self.backends = inference.route.backends
        if inference.cached is not None:
            arm = inference.cached.arm
            self.backends = {**self.backends, arm.name: arm}  # last, where policies look for it

    @property
    def cost_nano(self) -> int:
        """The cost so far, over all attempts."""
        cost_nano = 0
        for attempt in self.attempts:
            cost_nano += attempt.outcome.cost_nano
        return cost_nano

    @property
    def upstream_s(self) -> float:
        """How long at least one backend call was in progress; overlaps count once."""
        total_s, until_s = 0.0, -math.inf
        for attempt in self.attempts:
            ended_s = attempt.started_s + attempt.latency_s
            if ended_s > until_s:
                alone = attempt.started_s >= until_s
                total_s += attempt.latency_s if alone else ended_s - until_s
                until_s = ended_s
        return total_s

    @property
    def replies(self) -> list[tuple[str, ModelAnswer]]:
        """The answers so far, as (backend, answer) pairs in order."""
        return [(a.backend, a.outcome.answer) for a in self.attempts if not a.error]

    @property
    def outcome(self) -> str:
        """How the request ended, as a label of a closed set."""
        held, client = self.held, self.inference.client
        if client is not None and client.left:
            return "client_left"
        if held is None:
            return self._why_none
        if held.outcome.error:
            return "failed"
        if held.status >= 400:
            return "client_error"
        return "fallback" if held.fallback else "ok"

    @property
    def _why_none(self) -> str:
        if self.is_beyond_all:
            return "client_error"
        if (refusal := self.refusal) is None:
            return "failed"
        return "budget_held" if refusal.reason == "held" else "over_budget"

    @property
    def is_beyond_all(self) -> bool:
        """Whether none of the route's backends can serve the request."""
        return len(self.left_out) == len(self.inference.route.backends)

    @property
    def refusal(self) -> BudgetRefusal | None:
        """The budget refusal to report to the client: a temporary one if there is one."""
        refusals = self.refusals.values()
        held = [refusal for refusal in refusals if refusal.reason == "held"]
        others = [refusal for refusal in refusals if refusal.reason != "unbounded"]
        return next(iter(held or others or refusals), None)

    @property
    def awaited(self) -> str | None:
        """The first drawn backend whose money other calls hold, if no other can be used."""
        if self.held is not None or self.failed or self.waited:
            return None
        held = [name for name, refusal in self.refusals.items() if refusal.reason == "held"]
        return held[0] if held else None

    @property
    def overloaded(self) -> bool:
        """Whether too many concurrent calls are the only reason for the failure."""
        busy = all(error == OVERLOADED for error in self.failed.values())
        return busy and bool(self.failed or self.saturated)

    @property
    def backends_unavailable(self) -> bool:
        """Whether backends or the ledger failed, rather than a budget or the client's ceiling."""
        if self.failed or self.saturated:
            return True
        if self.refusals:
            return any(not refusal.by_budget for refusal in self.refusals.values())
        return not self.quotes

    @property
    def closed(self) -> AbstractSet[str]:
        """The backends that are ruled out for the rest of this request."""
        if not (self.attempts or self.refusals or self.failed or self.left_out):
            return NOBODY
        asked = [attempt.backend for attempt in self.attempts]
        return {*self.refusals, *self.failed, *self.left_out, *asked}

    def rest_s(self, now_s: float) -> float:
        """Return the time until the first resting backend may be called; 0 if none is resting."""
        inference = self.inference
        left = [
            backend.rest_s(now_s, inference.caller) for backend in inference.route.backends.values()
        ]
        return min(filter(None, left), default=0.0)

    def affords(self, quote: Quote, times: int = 1) -> bool:
        """Whether the client's cost ceiling leaves room for `times` attempts at once."""
        most_nano = self.inference.cost_nano_max
        if most_nano is None:
            return True
        begun_nano = sum(
            [one.quote.ceiling_nano for one in self.attempts if one.outcome.provenance == PENDING]
        )
        return self.cost_nano + begun_nano + times * quote.ceiling_nano <= most_nano

    def accept(self, attempt: Attempt) -> None:
        """Make an attempt's reply the current reply."""
        self.held = attempt
        self.stage += 1

    def passes_over(self, attempt: Attempt) -> bool:
        """Return whether to keep the current reply because the later `attempt` is no better."""
        held, why = self.held, attempt.outcome.no_answer
        if held is None:
            return False
        if attempt.status != 200:
            return True
        if not why or held.outcome.no_answer:
            return False
        outcome = replace(attempt.outcome, error=f"no answer: {why}")
        self.attempts[-1] = replace(attempt, outcome=outcome)
        return True

    def give_up_all_but(self, winner: Attempt) -> None:
        """Keep the winner of two calls to one backend, and order attempts by start time."""
        self.attempts.sort(key=lambda attempt: attempt.started_s)
        for n, attempt in enumerate(self.attempts):
            rival = attempt.backend == winner.backend and attempt is not winner
            if rival and not attempt.error:  # both answered at the same moment
                outcome = replace(attempt.outcome, error=HEDGE_LOST)
                self.attempts[n] = replace(attempt, outcome=outcome)
        self.failed.pop(winner.backend, None)


def static_attempt(body: bytes, now_s: float) -> Attempt:
    """Return a route's static response as an attempt, though no call was made."""
    return Attempt(
        backend=STATIC_RESPONSE,
        quote=NO_QUOTE,
        started_s=now_s,
        latency_s=0.0,
        outcome=AttemptOutcome(0, VOID, None, NO_ANSWER, ""),
        status=200,
        headers=[(b"content-type", b"application/json")],
        body=body,
        fallback=True,
    )
