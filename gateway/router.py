"""The path of a request, from its features to its journal rows: all control flow is here.

    features -> quotes of the backends that are up -> feasible arms -> the policy draws
    -> reserve (all scopes or none) -> ask -> settle -> in a cascade: accept, or draw again
    -> journal, metrics

A refusal by a budget drops that arm and draws again; where all that is left is money that other
calls hold, the request waits for it. A failure goes down the route's ladder, each
rung reserved anew and never learned from as if it had been drawn. A floor degrades, it never causes
an outage.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random

from gateway import errors
from gateway.able import left_out, no_larger
from gateway.arrivals import Arrivals
from gateway.attempts import Attempts
from gateway.held import with_reply
from gateway.journal import Journal
from gateway.ledger.types import NANO, Refusal
from gateway.ledger.wallet import Wallet
from gateway.metrics import Metrics
from gateway.route import NO_PAYLOAD, Backend, Inference
from gateway.turn import LAST_RESORT, Attempt, Draw, Turn, resort, rows
from policies.types import ACCEPT, Arm, Context

OK = 200
TOO_MANY = 429
TOO_LONG = frozenset((400, 413, 422))  # with an error that says so: see `outgrown`
RECENT = 20  # decisions that are kept at hand, for people to look at


class Router:
    """Takes each request through the path above."""

    def __init__(
        self,
        attempts: Attempts,
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
        self._attempts = attempts
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self.recent: deque[str] = deque(maxlen=RECENT)
        self.arrivals = Arrivals()

    async def answer(self, inference: Inference) -> Turn:
        """Return the finished turn, its reply in `held`; Refused where no backend may or can.

        Where the client leaves on the way, what is under way is given up and settled, nothing more
        is begun, and the turn is one that nobody reads.
        """
        first = self._scoped(inference, inference.route.features(inference.call))
        lacking = left_out(inference) if inference.route.is_limited else {}
        turn = Turn(inference, first, left_out=lacking)
        attempts = self._attempts
        if inference.passage is not None:
            inference.passage.turn = turn
        inference.route.ladder.earn()
        inference.route.inputs.see(first.dense)
        try:
            while turn.stage < inference.route.stages:
                arms = self._offers(turn)
                backend = self._draw(turn, arms) if arms else self._awaited(turn)
                if backend is None:
                    break  # nothing more to be had, or the reply in hand is good enough
                hold = attempts.reserve_now(turn, backend) or await attempts.reserve(
                    turn, backend, wait=not arms
                )
                if isinstance(hold, Refusal):
                    turn.refusals[backend.name] = hold
                    turn.waited = not arms and hold.reason == "held"
                    continue
                turn.refusals.pop(backend.name, None)
                attempt = await (
                    attempts.ask(turn, backend, hold)
                    if inference.route.hedge is None
                    else attempts.hedged(turn, backend, hold, inference.route.hedge)
                )
                failed = attempt.verdict.error or (
                    turn.held is not None and turn.passes_over(attempt)
                )
                if failed or (attempt.status in TOO_LONG and outgrows(turn, attempt)):
                    await self._fall_back(turn)
                    break
                turn.accept(attempt)
                if not inference.route.cascade or attempt.status != OK:
                    break
                turn.context = with_reply(first, turn.replies, turn.draws[-1].choice)
            if turn.held is None:
                self._resort(turn)
            if turn.held is None:
                pass_on(turn)
        except asyncio.CancelledError:
            if not inference.left:
                raise
            cancelled = asyncio.current_task()
            assert cancelled is not None
            cancelled.uncancel()
        finally:
            self._record(turn)
        if turn.held is None and not inference.left:
            raise self._refused(turn)
        return turn

    def _scoped(self, inference: Inference, context: Context) -> Context:
        """Note which budgets may pace this request and not all of its route's."""
        route = inference.route
        scopes = self._wallet.pacing(inference.tenant, route.name, inference.tags)
        if not scopes:
            return context
        return Context(context.dense, context.sparse, scopes=scopes)

    def _offers(self, turn: Turn) -> list[Arm]:
        """Quote the backends that are up and may still be asked; in a cascade, those above."""
        route, now_s = turn.inference.route, self._clock()
        held, closed = turn.held, turn.closed
        arms = [Arm(ACCEPT, 0.0)] if held else []
        for backend in route.backends.values():
            if backend.name in closed or not backend.allows(now_s, turn.inference.caller):
                continue
            if backend.full:
                turn.crowded = True
                continue
            quote = turn.quotes.get(backend.name) or self._attempts.quote(turn, backend, now_s)
            above = held is None or quote.expected_nano > held.quote.expected_nano
            if above and turn.affords(quote):
                arms.append(Arm(backend.name, quote.expected_nano / NANO, backend.declared_quality))
        arms = self._downgraded(turn, arms)
        if turn.refusals:
            arms = left_over(turn, arms)
        return [] if held and len(arms) == 1 else arms

    def _downgraded(self, turn: Turn, arms: list[Arm]) -> list[Arm]:
        """Leave out what budgets near their limit ask to leave out; turn to what they name then."""
        if not self._wallet.downgrades:
            return arms
        kept, then = [], ""
        for arm in arms:
            posture = self._wallet.posture(
                self._attempts.accounts(turn, arm.name) if arm.name in turn.quotes else ()
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

    @staticmethod
    def _awaited(turn: Turn) -> Backend | None:
        """Return the backend to wait for, where all that can answer have their money only held.

        If that turns out to be spent, the next one is waited for.
        """
        name = turn.awaited
        return None if name is None else turn.inference.route.backends[name]

    async def _fall_back(self, turn: Turn) -> None:
        """Ask those below: the ladder's rungs, else once the policy's next best; or keep what is
        held.
        """
        route = turn.inference.route
        turn.reason = "escalation_failed" if turn.held else "failed"
        if turn.held or not route.fallback:
            return
        below = self._below(turn)
        for backend in below:
            if backend.name in turn.closed or not backend.allows(
                self._clock(), turn.inference.caller
            ):
                continue
            if backend.full:
                continue
            quote = turn.quotes.get(backend.name) or self._attempts.quote(turn, backend)
            if not turn.affords(quote):
                continue
            if not backend.is_local and not route.ladder.retry():
                continue
            last = backend is below[-1] or not route.ladder.rungs
            hold = await self._attempts.reserve(turn, backend, wait=last)
            if isinstance(hold, Refusal):
                turn.refusals[backend.name] = hold
                continue
            attempt = await self._attempts.ask(turn, backend, hold, fallback=True)
            if not (attempt.error or outgrows(turn, attempt)):
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
        ladder.retries.resorted += 1
        turn.reason = LAST_RESORT
        turn.held = resort(ladder.last_resort, self._clock())

    def _record(self, turn: Turn) -> None:
        """Write the turn down: rows in the journal, what it cost for the policy, the metrics."""
        is_demand = bool(turn.draws) if turn.held is not None else turn.is_demand
        if is_demand and turn.context.scopes:
            bound = turn.inference.route.bound
            for scope in turn.context.scopes:
                bound[scope] += 1
        if turn.draws:
            turn.id = self._journal.new_id()
            self._journal.record(turn.id, partial(rows, turn, self._wall()))
            self.recent.append(turn.id)
            turn.inference.route.traffic.count(turn.inference.tenant)
            charge(turn)
        if is_demand:
            self.arrivals.count(turn.inference.route.name)
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
        if (refusal := turn.refusal) is not None:
            return errors.over_budget(refusal)
        if self._clock() >= turn.inference.deadline_s:
            return errors.deadline(route)
        if turn.overloaded:
            return errors.overloaded(f"every backend of route {route!r}")
        keyless = turn.inference.route.keyless()
        if turn.failed.keys() - keyless.keys():
            return errors.all_failed(route, {**keyless, **turn.failed})
        if keyless and (turn.failed or not turn.quotes):
            return errors.credential_rejected(route, {**keyless, **turn.failed})
        if turn.downgraded:
            return errors.downgraded(route)
        if turn.is_beyond_all:
            return errors.beyond_all(route, turn.left_out)
        if turn.quotes:
            return errors.too_dear(route, turn.inference.cost_nano_max or 0)
        if rest_s := turn.rest_s(self._clock()):
            return errors.resting(route, rest_s)
        return errors.no_backend(route, "their circuit breakers are open")


def outgrows(turn: Turn, attempt: Attempt) -> bool:
    """Whether a backend refused a request as too long, and one with a larger context may take it.

    Those whose context is no larger are left out from then on.
    """
    route = turn.inference.route
    if (
        attempt.status not in TOO_LONG
        or attempt.error
        or turn.held is not None
        or not route.fallback
        or not route.protocol.outgrown(attempt.body)
    ):
        return False
    turn.left_out |= no_larger(route.backends, attempt.backend)
    return not turn.closed >= set(route.backends)


def left_over(turn: Turn, arms: list[Arm]) -> list[Arm]:
    """Return the arms that are offered once a budget is spent: the cheapest, or none where it says
    so. Money that is only held leaves the choice among the others as it is.
    """
    spent = [one for one in turn.refusals.values() if one.reason == "exhausted"]
    if not spent:
        return arms
    if any(one.on_exhausted == "reject" for one in spent):
        return []
    others = [arm for arm in arms if arm.name != ACCEPT]
    cheapest = min(others, key=lambda arm: arm.cost_usd, default=None)
    return [arm for arm in arms if arm.name == ACCEPT or arm is cheapest]


def pass_on(turn: Turn) -> None:
    """Give the client what a backend replied, where none had anything better: its status, body and
    fields. Of several the last, but a 429 before all others: it says when to ask again.
    """
    replied = [attempt for attempt in turn.attempts if attempt.is_telling]
    if replied:
        slowed = [attempt for attempt in replied if attempt.status == TOO_MANY]
        turn.accept((slowed or replied)[-1])


def charge(turn: Turn) -> None:
    """Tell the policy what each of its draws has cost (an accepted reply costs nothing more)."""
    policy = turn.inference.route.policy
    for draw in turn.draws:
        asked = [attempt for attempt in turn.attempts if attempt.backend == draw.choice.arm]
        if asked and asked[-1].relay is not None:
            continue  # it is told when the stream is over
        cost_nano = sum([attempt.verdict.cost_nano for attempt in asked])
        policy.charge(draw.choice, cost_nano / NANO)
