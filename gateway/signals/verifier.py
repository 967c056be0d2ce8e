"""Verifiers: a small model that says how likely a cheap reply is right, before it is accepted.

It is asked while the client waits, with the prompt of a judge, and its number is one more feature
of the cascade: what it is worth on a route is learned from labels and signals. Replies that nothing
can follow, that are no texts, or streams of which more is to come are not verified.
"""

from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.signals.judge import (
    ALONE,
    ANSWER_CHARS_MAX,
    MOST,
    RUBRIC,
    number_of,
    prompt_of,
    question,
)
from tollway.gateway.signals.own_calls import OwnCalls

SIGNAL = "verifier"


class Verifier:
    """Verifies the replies of one route."""

    def __init__(self, calls: OwnCalls, backend: str) -> None:
        """`calls`: of the backend with that name."""
        self._calls = calls
        self._backend = backend

    async def verify(self, state: RequestState, attempt: Attempt) -> None:
        """Note how likely a reply is right, if the verifier says so in time."""
        inference, answer = state.inference, attempt.outcome.answer
        text = answer.value
        if attempt.error or attempt.status != 200 or attempt.fallback or answer.is_partial:
            return
        if not isinstance(text, str) or not text or state.stage + 1 >= inference.route.stages:
            return
        if attempt.backend == self._backend or self._is_last(state, attempt):
            return
        request = inference.call.payload.data
        shown = {"request": prompt_of(request), "answer": text[:ANSWER_CHARS_MAX]}
        document = question(ALONE.format(rubric=RUBRIC), shown)
        own = self._calls.prepared(inference, b"/v1/chat/completions", document)
        if own is None:
            return
        inference.own_calls.append((SIGNAL, own))
        made = await self._calls.made(own)
        verdict = None if made is None else made.outcome.answer.value
        number = number_of(verdict) if isinstance(verdict, str) else None
        if number is not None:
            state.verified[attempt.backend] = number / MOST

    @staticmethod
    def _is_last(state: RequestState, attempt: Attempt) -> bool:
        """Whether no backend of the route costs more than the one that replied."""
        quoted = state.quotes.get(attempt.backend)
        others = [one.expected_nano for one in state.quotes.values()]
        return quoted is None or quoted.expected_nano >= max(others, default=0)
