"""Scores answers after their requests have ended, within bounds.

An answer waits in a queue of its tenant until one of a few tasks takes it; the tenants take turns.
If too many wait, or it is too large, it is dropped and counted: a route whose answers cannot all be
scored learns from a part of them. A tenant may take half of the room that the others leave.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Protocol

from tollway.gateway.learning.signals import SIGNALS
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.signals.conversations import Conversations
from tollway.gateway.signals.local_hooks import text_of
from tollway.gateway.signals.ports import Answer, Hook, HookFailed, RouteHooks

log = logging.getLogger(__name__)

TASKS_MAX = 16  # answers that are scored at once
TENANT_TASKS_MAX = 12  # of one tenant: its texts may take every hook until its time limit
WAITING_MAX = 1000  # answers: at 1 ms each, a second's worth
WAITING_BYTES_MAX = 16 << 20
ANSWER_BYTES_MAX = 256 << 10  # of a request and its reply together; larger ones are not scored
DRAIN_S = 5.0  # how long answers may still be scored at shutdown
FAILURES_LOGGED = 5  # of each hook, since the start

Teach = Callable[[list[Any], str | None, str], Awaitable[object]]


class Counts(Protocol):
    """Counts what was not scored."""

    def signal_failed(self, route: str, name: str) -> None:
        """Count a failure."""

    def signal_dropped(self, route: str) -> None:
        """Count an answer that was not scored."""


class SignalRunner:
    """Scores the answers of all routes that have hooks."""

    # The mutable state is the hooks by route, the waiting answers by tenant with their sizes, their
    # number and size in total and their size by tenant, the answers being scored by tenant, the
    # tasks, the failures logged, and whether it is closing.

    def __init__(
        self, *, teach: Teach, counts: Counts, rng: Random, wall: Callable[[], float]
    ) -> None:
        """`teach` makes the gateway learn from documents of a source."""
        self._wall = wall
        self._conversations = Conversations()
        self._teach = teach
        self._counts = counts
        self._rng = rng
        self.hooks: Mapping[str, RouteHooks] = {}
        self._waiting: dict[str, deque[tuple[RequestState, int]]] = {}
        self._count = self._bytes = 0
        self._bytes_of: Counter[str] = Counter()
        self._scoring: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged: Counter[tuple[str, str]] = Counter()
        self._closing = False

    def revise(self, hooks: Mapping[str, RouteHooks]) -> list[Hook]:
        """Use other hooks from now on; return those that are no longer used."""
        kept = {id(hook) for one in hooks.values() for hook in (*one.every, *one.held)}
        old = [hook for one in self.hooks.values() for hook in (*one.every, *one.held)]
        self.hooks = hooks
        return [hook for hook in old if id(hook) not in kept]

    def ended(self, state: RequestState, now_s: float) -> None:
        """Queue the answers of a finished request (1 us; 0.1 us on a route without hooks)."""
        inference = state.inference
        if inference.route.name not in self.hooks:
            return
        held = state.held
        if held is None or not state.id or held.status != 200 or self._closing:
            return
        size = len(inference.call.body) + len(held.body)
        if not self._has_room(inference.tenant, size):
            self._counts.signal_dropped(inference.route.name)
            return
        self._waiting.setdefault(inference.tenant, deque()).append((state, size))
        self._count += 1
        self._bytes += size
        self._bytes_of[inference.tenant] += size
        if len(self._tasks) < TASKS_MAX:
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _has_room(self, tenant: str, size: int) -> bool:
        free = WAITING_MAX - self._count
        return (
            size <= ANSWER_BYTES_MAX
            and self._bytes_of[tenant] + size <= WAITING_BYTES_MAX - self._bytes
            and len(self._waiting.get(tenant, ())) < max(free, 1)
        )

    async def _work(self) -> None:
        """Score answers until none waits that may be scored now."""
        while (state := self._next()) is not None:
            tenant = state.inference.tenant
            try:
                await self._score(state)
            except Exception:  # a bug in a hook must not end the others' work
                log.exception("an answer could not be scored")
            finally:
                self._scoring[tenant] -= 1
                if not self._scoring[tenant]:
                    del self._scoring[tenant]

    def _next(self) -> RequestState | None:
        """Take the oldest answer of the tenant that comes next; None if there is none."""
        able = (one for one in self._waiting if self._scoring[one] < TENANT_TASKS_MAX)
        tenant = next(able, None)
        if tenant is None:
            return None
        queue = self._waiting.pop(tenant)
        state, size = queue.popleft()
        if queue:
            self._waiting[tenant] = queue  # after the others
        self._count -= 1
        self._bytes -= size
        self._bytes_of[tenant] -= size
        if not queue:
            del self._bytes_of[tenant]
        self._scoring[tenant] += 1
        return state

    async def _score(self, state: RequestState) -> None:
        hooks = self.hooks.get(state.inference.route.name)
        if hooks is None:  # removed by a reload since
            return
        if hooks.users and state.inference.cache_result != "refresh":  # no user has asked that
            await self._follow(state, hooks)
        scores: dict[str, dict[str, float]] = {}
        # The client's answer first: its request pays for judging the replies before it.
        for attempt in sorted(state.attempts, key=lambda one: one is not state.held):
            is_held = attempt is state.held
            if attempt.error or attempt.audit or attempt.status != 200:
                continue
            answer = answer_of(state, attempt, is_held=is_held)
            if answer is None:
                continue
            wanted = (*hooks.every, *hooks.held) if is_held else hooks.every
            own = {}
            for hook in wanted:
                share = hooks.shares.get(hook.name, 1.0)
                if share < 1.0 and self._rng.random() >= share:
                    continue
                if (score := await self._by(hook, answer)) is not None:
                    own[hook.name] = score
            if own:
                scores[attempt.backend] = own
        if scores:
            await self.learn(state.id, scores)

    async def _follow(self, state: RequestState, hooks: RouteHooks) -> None:
        """Learn what a request says of an earlier answer, and remember its own."""
        inference, held, now_s = state.inference, state.held, self._wall()
        assert held is not None
        tenant, route, request = inference.tenant, inference.route.name, inference.call.payload.data
        self._conversations.expire(now_s, max(one.window_s for one in self.hooks.values()))
        hint = self._conversations.follow(
            tenant,
            route,
            request,
            hooks.said(tenant, inference.feedback),
            now_s,
            hooks.window_s,
        )
        self._conversations.answered(tenant, route, request, state.id, held.backend, now_s)
        if hint is not None:
            await self.learn(hint.decision, {hint.backend: {hooks.users: hint.score}})

    async def learn(self, decision: str, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Have the gateway learn from scores of a decision's replies, by backend."""
        try:
            await self._teach([{"decision": decision, "scores": scores}], None, SIGNALS)
        except RequestRefused as refused:
            log.warning("a signal was not learned from: %s", refused.detail)

    async def _by(self, hook: Hook, answer: Answer) -> float | None:
        try:
            return await hook.score(answer)
        except HookFailed as exc:
            self._counts.signal_failed(answer.route, hook.name)
            self._logged[answer.route, hook.name] += 1
            if self._logged[answer.route, hook.name] <= FAILURES_LOGGED:
                log.warning("route %s, signal %s: %s", answer.route, hook.name, exc)
            return None

    async def settled(self) -> None:
        """Wait until no answer waits or is being scored."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Take no more answers, score the waiting ones for a while, and close the hooks."""
        self._closing = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=DRAIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for hook in self.revise({}):
            await hook.aclose()


def answer_of(state: RequestState, attempt: Attempt, *, is_held: bool) -> Answer | None:
    """Return an attempt's answer; None if it has none that can be read."""
    value = attempt.outcome.answer.value
    if value is None and not attempt.outcome.no_answer:
        return None
    text = "" if value is None else text_of(value) or ""
    inference = state.inference
    return Answer(
        state.id,
        inference.route.name,
        inference.tenant,
        attempt.backend,
        text,
        attempt.body,
        inference.call.payload.data,
        state,
        is_held,
    )
