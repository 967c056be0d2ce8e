"""The path of a request, from its features to its journal rows: all control flow is here.

    features -> quotes of the backends that are up -> feasible arms -> the policy draws
    -> reserve (all scopes or none) -> ask -> settle -> in a cascade: accept, or draw again
    -> journal, metrics

A refusal by a budget drops that arm and draws again. A failure goes down the route's ladder, each
rung reserved anew and never learned from as if it had been drawn. A floor degrades, it never causes
an outage.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import TypeVar

from backends.types import BackendError, Call, DeadlineExceeded, Overloaded
from gateway import errors
from gateway.estimator import Quote
from gateway.hedge import Hedge, first_good
from gateway.held import with_reply
from gateway.journal import Journal
from gateway.ladder import LEAVES_LOCAL, LEAVES_WIRE
from gateway.ledger.account import Account
from gateway.ledger.types import NANO, Refusal, Reservation
from gateway.ledger.wallet import Wallet
from gateway.metering import OUTRUN, OVERLOADED, UNDER_WAY, Verdict, judge, relayed, unread
from gateway.metrics import Metrics
from gateway.prompt_cache import Prompt, PromptCache, prompt
from gateway.relay import Relay, is_stream
from gateway.route import NO_PAYLOAD, Backend, Inference
from gateway.turn import LAST_RESORT, Attempt, Draw, Turn, resort, rows, settlement_row
from policies.types import ACCEPT, Arm, Context

log = logging.getLogger("tollway.router")

T = TypeVar("T")

RECENT = 20  # decisions that are kept at hand, for people to look at


class Router:
    """Takes each request through the path above."""

    def __init__(
        self,
        wallet: Wallet,
        journal: Journal,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
    ) -> None:
        """`clock` is monotonic and the deadlines' own; `wall` tells the time of day."""
        self._wallet = wallet
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self.recent: deque[str] = deque(maxlen=RECENT)

    async def answer(self, inference: Inference) -> Turn:
        """Return the finished turn, its reply in `held`; Refused where no backend may or can."""
        first = self._scoped(inference, inference.route.features(inference.call))
        turn = Turn(inference, first)
        if inference.passage is not None:
            inference.passage.turn = turn
        inference.route.ladder.earn()
        inference.route.inputs.see(first.dense)
        try:
            while turn.stage < inference.route.stages:
                arms = self._offers(turn)
                if not arms or (backend := self._draw(turn, arms)) is None:
                    break  # nothing more to be had, or the reply in hand is good enough
                hold = self._reserve_now(turn, backend) or await self._reserve(turn, backend)
                if isinstance(hold, Refusal):
                    turn.refusals[backend.name] = hold
                    continue
                attempt = await (
                    self._ask(turn, backend, hold)
                    if inference.route.hedge is None
                    else self._hedged(turn, backend, hold, inference.route.hedge)
                )
                if attempt.error:
                    await self._fall_back(turn)
                    break
                turn.accept(attempt)
                if not inference.route.cascade or attempt.status != 200:
                    break
                turn.context = with_reply(first, turn.replies)
            if turn.held is None:
                self._resort(turn)
        finally:
            self._record(turn)
        if turn.held is None:
            raise self._refused(turn)
        return turn

    def _scoped(self, inference: Inference, context: Context) -> Context:
        """Note which budgets pace this request and not all of its route's."""
        route = inference.route
        scopes = self._wallet.pacing(inference.tenant, route.name, inference.tags)
        if not scopes:
            return context
        for budget in scopes:
            route.bound[budget] += 1
        return Context(context.dense, context.sparse, scopes=scopes)

    def _offers(self, turn: Turn) -> list[Arm]:
        """Quote the backends that are up and may still be asked; in a cascade, those above."""
        route, now_s = turn.inference.route, self._clock()
        held, closed = turn.held, turn.closed
        arms = [Arm(ACCEPT, 0.0)] if held else []
        for backend in route.backends.values():
            if backend.name in closed or not backend.breaker.allows(now_s):
                continue
            if backend.full:
                turn.crowded = True
                continue
            quote = turn.quotes.get(backend.name) or self.quote(turn, backend)
            above = held is None or quote.expected_nano > held.quote.expected_nano
            if above and turn.affords(quote):
                arms.append(Arm(backend.name, quote.expected_nano / NANO, backend.declared_quality))
        arms = self._downgraded(turn, arms)
        return [] if held and len(arms) == 1 else arms

    def quote(self, turn: Turn, backend: Backend) -> Quote:
        """Quote a backend for a turn."""
        inference = turn.inference
        quote = turn.quotes[backend.name] = inference.route.estimator.quote(
            turn.context,
            backend.name,
            backend.price,
            backend.known(inference.call),
            None if backend.cache is None else self._cached(turn, backend.cache),
        )
        return quote

    def _accounts(self, turn: Turn, backend: str) -> tuple[Account, ...]:
        """Return the accounts of the budgets that a call would be charged to (0.3 us)."""
        inference = turn.inference
        return self._wallet.matching(
            inference.tenant, inference.route.name, backend, inference.tags
        )

    def _cached(self, turn: Turn, cache: PromptCache) -> float:
        """Return what share of a request's prompt a backend is expected to have cached."""
        if turn.prompt is None:
            inference = turn.inference
            parts = inference.route.protocol.prompt(inference.call.payload or NO_PAYLOAD)
            turn.prompt = prompt(parts, inference.tenant)
        return cache.expects(turn.prompt, self._clock())

    def _downgraded(self, turn: Turn, arms: list[Arm]) -> list[Arm]:
        """Leave out what budgets near their limit ask to leave out; turn to what they name then."""
        if not self._wallet.downgrades:
            return arms
        kept, then = [], ""
        for arm in arms:
            posture = self._wallet.posture(
                self._accounts(turn, arm.name) if arm.name in turn.quotes else ()
            )
            if posture.max_price_usd is None or arm.cost_usd <= posture.max_price_usd:
                kept.append(arm)
            else:
                then = posture.then
        if kept or not arms:
            return kept
        turn.downgraded = True
        if then == "cheapest":
            return [min(arms, key=lambda arm: arm.cost_usd)]
        kinds = turn.inference.route.backends
        return [arm for arm in arms if then == "rules" and kinds[arm.name].kind == "rules"]

    def _draw(self, turn: Turn, arms: list[Arm]) -> Backend | None:
        """Have the policy draw; None where it accepts the reply in hand."""
        route = turn.inference.route
        choice = route.policy.choose(turn.context, arms, self._rng, turn.inference.floor)
        redrawn = bool(turn.refusals) and turn.draws[-1].stage == turn.stage
        turn.draws.append(Draw(turn.stage, turn.context, choice, redrawn))
        turn.reason = choice.reason
        return None if choice.arm == ACCEPT else route.backends[choice.arm]

    async def _reserve(self, turn: Turn, backend: Backend) -> Reservation | Refusal:
        """Hold the money for one attempt in every scope that binds it, or in none."""
        quote = turn.quotes[backend.name]
        return await self._wallet.reserve(
            self._accounts(turn, backend.name), quote.ceiling_nano, quote.maximum_nano
        )

    def _reserve_now(self, turn: Turn, backend: Backend) -> Reservation | None:
        """Hold it without asking anybody; None where it is not at hand. Nearly always it is, and
        nothing need be awaited.
        """
        quote = turn.quotes[backend.name]
        return self._wallet.reserve_now(
            self._accounts(turn, backend.name), quote.ceiling_nano, quote.maximum_nano
        )

    async def _hedged(
        self, turn: Turn, backend: Backend, hold: Reservation, hedge: Hedge
    ) -> Attempt:
        """Make an attempt, and once more where it takes long; the first good reply counts."""
        hedge.earn()
        payload = turn.inference.call.payload or NO_PAYLOAD
        if backend.is_local or backend.protocol.follow(payload) is not None:
            return await self._ask(turn, backend, hold)
        wait_s, started_s = hedge.wait_s(backend.name), self._clock()
        if wait_s is None:
            attempt = await self._ask(turn, backend, hold)
        else:
            attempt = await self._raced(turn, backend, hold, hedge, wait_s)
        if not attempt.error:
            hedge.took(backend.name, self._clock() - started_s)
        return attempt

    async def _raced(
        self, turn: Turn, backend: Backend, hold: Reservation, hedge: Hedge, wait_s: float
    ) -> Attempt:
        """Ask, and when that has taken `wait_s` ask again; give up what has not answered first."""
        calls = [asyncio.create_task(self._ask(turn, backend, hold))]
        try:
            await asyncio.wait(calls, timeout=wait_s)
            if not calls[0].done():
                again = self._reserve_again(turn, backend)
                if again is None:
                    hedge.denied += 1
                else:
                    hedge.spend()
                    calls.append(
                        asyncio.create_task(self._ask(turn, backend, again, hedge_s=wait_s))
                    )
            attempt = await first_good(calls, lambda one: not one.error)
            turn.outrun = True
        finally:  # whatever happens each is settled before the turn goes on
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            turn.outrun = False
        if not attempt.error:
            turn.give_up_all_but(attempt)
            hedge.won += attempt.hedge_s is not None
        return attempt

    def _reserve_again(self, turn: Turn, backend: Backend) -> Reservation | None:
        """Hold the money for a second attempt under way at once, where all of it is at hand."""
        quote = turn.quotes[backend.name]
        if backend.full or backend.breaker.is_open or not turn.affords_two(quote):
            return None
        return self._reserve_now(turn, backend)

    async def _ask(
        self,
        turn: Turn,
        backend: Backend,
        hold: Reservation,
        *,
        fallback: bool = False,
        audit: float = 0.0,
        hedge_s: float | None = None,
    ) -> Attempt:
        """Make one attempt and end its reservation, whatever happens."""
        inference, quote = turn.inference, turn.quotes[backend.name]
        started_s = self._clock()
        deadline_s = min(self._until(turn, backend, started_s), started_s + backend.timeout_s)
        backend.breaker.probe(started_s)
        status, headers, body = 0, [], b""
        relay: Relay | None = None
        try:
            call = addressed(inference, backend, deadline_s - started_s)
            sending = backend.transport.send(call, deadline_s)
            due_s = backend.first_byte_s
            reply = await (sending if due_s is None else within(due_s, sending))
            follower = None
            if is_stream(reply):
                follower = backend.protocol.follow(call.payload or NO_PAYLOAD)
            if follower is not None and not (inference.route.cascade or audit):
                opened = Relay(reply, follower)
                begun = opened.begin()
                passed_s = self._clock() - started_s
                await (begun if due_s is None else within(due_s - passed_s, begun))
                relay, verdict = opened, UNDER_WAY
            else:
                body = await reply.read(inference.route.reply_bytes_max)
                verdict = judge(
                    backend, call, reply, body, quote=quote, latency_s=self._clock() - started_s
                )
                if follower is not None and not verdict.error:
                    body = follower.feed(body) + follower.close()
            status, headers = reply.status, reply.headers
        except Overloaded:
            verdict = unread(quote, OVERLOADED, ran=False)
        except BackendError as exc:
            verdict = unread(quote, str(exc) or type(exc).__name__, ran=exc.ran)
        except Exception as exc:  # a mistake of ours in reading it keeps nobody from an answer
            log.exception("backend %s answered what cannot be read", backend.name)
            verdict = unread(quote, f"unreadable: {type(exc).__name__}", ran=True)
        except BaseException:  # cancelled
            verdict = unread(quote, OUTRUN if turn.outrun else "cancelled", ran=True)
            raise
        finally:  # a cancelled task settles too: its call may have run
            attempt = Attempt(
                backend=backend.name,
                quote=quote,
                started_s=started_s,
                latency_s=self._clock() - started_s,
                verdict=verdict,
                status=status,
                headers=headers,
                body=body,
                fallback=fallback,
                reserved_nano=hold.told(),
                audit=audit,
                relay=relay,
                hedge_s=hedge_s,
            )
            turn.attempts.append(attempt)
            if relay is None:
                self._settle(turn, backend, hold, attempt)
            else:
                relay.on_end = partial(self._ended, turn, backend, hold)
        return attempt

    def _ended(
        self,
        turn: Turn,
        backend: Backend,
        hold: Reservation,
        error: str,
        left: bool,
    ) -> None:
        """Settle a stream that is over."""
        attempt = turn.held
        assert attempt is not None
        assert attempt.relay is not None
        latency_s = self._clock() - attempt.started_s
        verdict = relayed(
            backend,
            attempt.relay.follower,
            attempt.headers,
            quote=attempt.quote,
            latency_s=latency_s,
            error=error,
            left=left,
        )
        ended = replace(attempt, verdict=verdict, latency_s=latency_s, relay=None)
        number = len(turn.attempts) - 1  # a stream ends its turn: nobody is asked after it
        turn.attempts[number] = turn.held = ended
        self._settle(turn, backend, hold, ended)
        self._metrics.tagged(turn.inference.tags, verdict.cost_nano)
        self._journal.append(settlement_row(turn, number, ended, self._wall()))
        for draw in turn.draws:
            if draw.choice.arm == backend.name:
                turn.inference.route.policy.charge(draw.choice, verdict.cost_nano / NANO)

    def _settle(self, turn: Turn, backend: Backend, hold: Reservation, attempt: Attempt) -> None:
        """Charge an attempt, and let the breaker, the estimator and the metrics know."""
        route, verdict = turn.inference.route, attempt.verdict
        if verdict.ran:
            self._wallet.settle(hold, verdict.cost_nano)
        else:
            self._wallet.void(hold)
        if verdict.error == OUTRUN:
            pass  # it was slow, and nobody knows more of it
        elif verdict.error:
            turn.failed[backend.name] = verdict.error
            if verdict.error != OVERLOADED:
                backend.breaker.failed(self._clock())
        else:
            backend.breaker.succeeded()
        if verdict.usage is not None and not verdict.partial:
            route.estimator.observe(
                turn.context,
                backend.name,
                attempt.quote,
                backend.price,
                verdict.usage,
            )
        if backend.cache is not None and turn.prompt is not None and attempt.status == 200:
            self._remember(backend.cache, turn.prompt, verdict)
        passage = turn.inference.passage
        exemplar = None if passage is None else passage.exemplar
        self._metrics.attempt(route.name, turn.inference.tenant, attempt, exemplar)

    def _remember(self, cache: PromptCache, asked: Prompt, verdict: Verdict) -> None:
        """Note that a backend has read a prompt, and how much of it it had cached."""
        now_s, usage = self._clock(), verdict.usage
        if usage is not None and usage.exact:
            foreseen = cache.covers(asked, now_s) * usage.input_tokens
            if foreseen:
                cache.learn(foreseen, usage.cached_input_tokens)
        cache.saw(asked, now_s)

    async def audit(self, turn: Turn, backend: Backend, probability: float) -> Attempt | Refusal:
        """Ask a quoted backend once more, for a label and not for the client: reserved anew."""
        hold = await self._reserve(turn, backend)
        if isinstance(hold, Refusal):
            return hold
        return await self._ask(turn, backend, hold, audit=probability)

    def _until(self, turn: Turn, backend: Backend, now_s: float) -> float:
        """Return until when an attempt may take: where a ladder goes on below it, not all the time.

        A stream may: once it has begun there is no way down from it.
        """
        inference = turn.inference
        route, until_s = inference.route, inference.deadline_s
        payload = inference.call.payload or NO_PAYLOAD
        if not route.ladder.is_declared or backend.protocol.follow(payload) is not None:
            return until_s
        below = [
            route.backends[name]
            for name in route.ladder.rungs
            if name in route.backends and name != backend.name and name not in turn.closed
        ]
        if not below and route.ladder.last_resort is None:
            return until_s
        wired = any(not rung.is_local for rung in below)
        return now_s + (LEAVES_WIRE if wired else LEAVES_LOCAL) * (until_s - now_s)

    async def _fall_back(self, turn: Turn) -> None:
        """Ask those below: the ladder's rungs, else once the policy's next best; or keep what is
        held.
        """
        route = turn.inference.route
        turn.reason = "escalation_failed" if turn.held else "failed"
        if turn.held or not route.fallback:
            return
        for backend in self._below(turn):
            if backend.name in turn.closed or not backend.breaker.allows(self._clock()):
                continue
            if backend.full:
                continue
            quote = turn.quotes.get(backend.name) or self.quote(turn, backend)
            if not turn.affords(quote):
                continue
            if not backend.is_local and not route.ladder.retry():
                continue
            hold = await self._reserve(turn, backend)
            if isinstance(hold, Refusal):
                turn.refusals[backend.name] = hold
                continue
            attempt = await self._ask(turn, backend, hold, fallback=True)
            if not attempt.error:
                turn.accept(attempt)
                turn.reason = "fallback"
                return
            if not route.ladder.rungs:
                return

    def _below(self, turn: Turn) -> list[Backend]:
        """Return whom to ask after a failure, first to last."""
        route, choice = turn.inference.route, turn.draws[-1].choice
        rungs = route.ladder.rungs
        if not rungs:
            ranked = sorted(zip(choice.pmf, choice.arms, strict=True), reverse=True)
            rungs = tuple([arm for _, arm in ranked])
        elif turn.downgraded:  # what a budget near its limit left out stays out
            rungs = tuple([name for name in rungs if name in choice.arms])
        return [route.backends[name] for name in rungs if name in route.backends]

    def _resort(self, turn: Turn) -> None:
        """Give the route's last resort, where it has one and no budget or client stands in the way:
        nobody is asked, nothing is charged, nothing is learned.
        """
        inference = turn.inference
        ladder = inference.route.ladder
        if ladder.last_resort is None or not turn.forsaken:
            return
        if inference.route.protocol.follow(inference.call.payload or NO_PAYLOAD) is not None:
            return  # who asks for a stream cannot read it
        ladder.resorted += 1
        turn.reason = LAST_RESORT
        turn.held = resort(ladder.last_resort, self._clock())

    def _record(self, turn: Turn) -> None:
        """Write the turn down: rows in the journal, what it cost for the policy, the metrics."""
        if turn.draws:
            turn.id = self._journal.new_id()
            self._journal.append(*rows(turn, self._wall()))
            self.recent.append(turn.id)
            charge(turn)
        self._metrics.request(turn, self._clock())

    def _refused(self, turn: Turn) -> errors.Refused:
        """Say why there is no reply, and what asking has cost all the same."""
        refused = self._why(turn)
        if turn.id:
            refused.headers.append((b"x-tollway-decision", turn.id.encode()))
        refused.cost_nano = turn.cost_nano
        return refused

    def _why(self, turn: Turn) -> errors.Refused:  # noqa: PLR0911 - a table of reasons
        route = turn.inference.route.name
        if turn.refusals:
            return errors.over_budget(next(iter(turn.refusals.values())))
        if self._clock() >= turn.inference.deadline_s:
            return errors.deadline(route)
        if turn.overloaded:
            return errors.overloaded(f"every backend of route {route!r}")
        if turn.failed:
            return errors.all_failed(route, turn.failed)
        if turn.downgraded:
            return errors.downgraded(route)
        if turn.quotes:
            return errors.too_dear(route, turn.inference.cost_nano_max or 0)
        return errors.no_backend(route, "their circuit breakers are open")


async def within(seconds: float, begun: Awaitable[T]) -> T:
    """Wait for a reply to begin (3 us); raises DeadlineExceeded where that takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await begun
    except TimeoutError:
        raise DeadlineExceeded("its reply did not begin in time", ran=True) from None


def addressed(inference: Inference, backend: Backend, left_s: float) -> Call:
    """Return the call that a backend gets, with what it is told of its trace and its deadline."""
    call = backend.address(inference.call)
    if inference.passage is not None:
        call.headers = inference.passage.onto(call.headers)
    if inference.hurried:
        left_ms = max(1, int(1000 * left_s))
        call.headers.append((b"x-tollway-deadline-ms", b"%d" % left_ms))
    return call


def charge(turn: Turn) -> None:
    """Tell the policy what each of its draws has cost (an accepted reply costs nothing more)."""
    policy = turn.inference.route.policy
    for draw in turn.draws:
        asked = [attempt for attempt in turn.attempts if attempt.backend == draw.choice.arm]
        if asked and asked[-1].relay is not None:
            continue  # it is told when the stream is over
        cost_nano = sum([attempt.verdict.cost_nano for attempt in asked])
        policy.charge(draw.choice, cost_nano / NANO)
