"""Decisions that are repeated: a kept answer is given again soon after it was drawn.

Theory of operation. To draw a kept answer takes as long as any draw: features, quotes, predictions.
For the same request a moment later all of them are the same. So the first draw is remembered with
the entry, and for HOLDS_S a request draws from its probabilities again. What is logged is what was
drawn from: a request that does not draw the kept answer has drawn a fresh one, and goes on with
that. It holds until the policy learns, a price or the configuration changes, and only for
requests without conditions of their own; every other one is drawn as usual. A repeated answer
reserves nothing: an attempt at $0 needs no money.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tollway.backends.types import SMALL_BYTES, Headers
from tollway.gateway.caching.entry import Entry
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.cached.arm import replayed
from tollway.gateway.routing.cached.saving import saved_nano
from tollway.gateway.routing.metering import AttemptOutcome
from tollway.gateway.routing.observer import Observer
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import ENDED, Attempt, Decision, RequestState
from tollway.gateway.routing.sinks import Sinks
from tollway.policies.cached_answers import REASON
from tollway.policies.types import Choice, Context, Policy
from tollway.record import record

HOLDS_S = 10.0  # features, quotes and predictions of one request hardly change in that time
OK = 200


@dataclass(slots=True)
class Prepared:
    """What was made for the first request that repeats a draw, for the next ones.

    `made`: what `maker` has made of the head of the reply; `rows`: how its rows are written.
    """

    status: int
    headers: Headers
    maker: object = None
    made: bytes = b""
    rows: Any = None


@record
class Memo:
    """A draw of a kept answer, and what giving it saves.

    `backends`: the route's, whose prices it was drawn at.
    """

    route: RoutePlan
    backends: object
    policy: Policy
    version: int
    tenant: str
    until_s: float
    context: Context
    choice: Choice
    quotes: dict[str, Quote]
    quote: Quote
    outcome: AttemptOutcome
    prepared: Prepared
    saved_nano: int

    @property
    def share(self) -> float:
        """The probability of the kept answer."""
        return self.choice.pmf[-1]

    def holds(self, inference: InferenceRequest, now_s: float) -> bool:
        """Return whether a request would be drawn for in the same way."""
        return self.stands(inference, now_s) and is_plain(inference)

    def stands(self, inference: InferenceRequest, now_s: float) -> bool:
        """Return whether a plain request would be drawn for in the same way."""
        route = inference.route
        return (
            now_s < self.until_s
            and self.route is route
            and self.backends is route.backends
            and self.policy is route.policy
            and self.version == route.policy.version
            and self.tenant == inference.tenant
        )


def is_plain(inference: InferenceRequest) -> bool:
    """Return whether a request has no conditions of its own."""
    return (
        inference.trace is None
        and inference.route.sticky is None
        and not inference.tags
        and inference.floor is None
        and inference.cost_nano_max is None
        and inference.joined is None
        and not inference.held_by
    )


def memo_of(state: RequestState, now_s: float) -> Memo | None:
    """Return the draw of an answered request, if it may be repeated."""
    inference, held = state.inference, state.held
    if held is None or held.error or not is_plain(inference) or len(state.attempts) != 1:
        return None
    cached = inference.cached
    assert cached is not None
    plain = len(state.draws) == 1 and not (state.refusals or state.left_out or state.downgraded)
    if not plain or held.backend != cached.arm.name or len(held.body) > SMALL_BYTES:
        return None
    draw = state.draws[0]
    if draw.context.scopes or held.relay is not None or held.status != OK or state.streamed:
        return None
    route, choice = inference.route, draw.choice
    last = len(choice.arms) - 1
    if choice.version != route.policy.version or choice.index != last:
        return None
    return Memo(
        route,
        route.backends,
        route.policy,
        choice.version,
        inference.tenant,
        now_s + HOLDS_S,
        draw.context,
        replace(choice, reason=REASON),
        dict(state.quotes),
        held.quote,
        held.outcome,
        Prepared(OK, held.headers),
        saved_nano(state),
    )


class Repeats:
    """Answers requests by repeating a draw."""

    # No mutable state: memos belong to entries.

    def __init__(self, sinks: Sinks, observers: Sequence[Observer]) -> None:
        """`sinks` and `observers` are those of all requests."""
        self._sinks = sinks
        self._observers = tuple(observers)

    def answer(
        self, inference: InferenceRequest, entry: Entry, memo: Memo, now_s: float
    ) -> RequestState:
        """Return the finished state of a request whose kept answer was drawn again."""
        route, cached = inference.route, inference.cached
        assert cached is not None
        headers, body = replayed(entry, route.protocol.name, inference.call)
        attempt = Attempt(
            cached.arm.name, memo.quote, now_s, 0.0, memo.outcome, OK, headers, body, False
        )
        state = RequestState(inference, memo.context)
        state.quotes = dict(memo.quotes)
        state.draws.append(Decision(0, memo.context, memo.choice, False))
        state.attempts.append(attempt)
        state.reason = REASON
        state.phase = ENDED
        state.accept(attempt)
        state.repeated = memo.prepared
        route.inputs.see(memo.context.dense, inference.tenant)
        for observer in self._observers:
            observer.attempt(route.name, inference.tenant, attempt, None)
        self._sinks.repeated(state, now_s)
        self._sinks.ended(state, now_s)
        return state
