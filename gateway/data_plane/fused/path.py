"""The fused path: what the machine does with an ordinary request, in one piece.

Theory of operation. Most requests meet nothing that needs a decision but the policy's: all backends
are up and have free slots, the money is in the leases, a connection is idle, and the reply is a
whole 200. For them the steps of `admission`, `router`, `reserving`, `attempts` and `settlement` are
spelled out here, in their order, without the branches for all else and without the calls between
them, which cost more than what they decide.

It is a copy, so it is kept equal. At the first thing that is not ordinary the machine goes on with
the request as it is (`Progress`), which is as the machine would have had it;
`tests/integration/data_plane/test_both_shells.py` compares what both leave, to the last digit. What
a route or a backend may have that is not copied here is in `ordinary`.
"""

from typing import Any

from tollway.backends.dialect import limited, rewritten
from tollway.backends.http.pool import Sent
from tollway.backends.http.request_head import request_head
from tollway.backends.money import NANO_PER_USD
from tollway.backends.output import OutputLimit
from tollway.backends.types import SMALL_BYTES, Call, HttpReply
from tollway.gateway.budgets.model import BudgetRefusal, Reservation
from tollway.gateway.data_plane.admission import Judgement
from tollway.gateway.data_plane.callback_shell import CallbackShell, Progress
from tollway.gateway.data_plane.fused.ordinary import is_known_plain, is_plain
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.listener.client import Client, WholeRequest
from tollway.gateway.routing.attempts import Begun, limited_quote
from tollway.gateway.routing.field_rejections import UNCHANGED, addressed
from tollway.gateway.routing.field_rejections import Sent as Rewritten
from tollway.gateway.routing.metering import evaluate_reply
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import ENDED, Attempt, Decision, RequestState
from tollway.gateway.routing.router import OK, Accept, Ask, quote
from tollway.gateway.routing.settlement import learn
from tollway.policies.types import Arm, Context

HEADS_MAX, HEAD_BYTES_MAX = 6, 1024  # of calls, for one head of a client: 12 MiB for all heads


class FusedPath:
    """The ordinary requests of one tenant on one route.

    `shown`: the route's backends when this was made; the route may get others.
    """

    def __init__(self, shell: CallbackShell, route: RoutePlan, tenant: str) -> None:
        driver = shell.driver
        self.shell = shell
        self.route = route
        self.tenant = tenant
        self.shown = route.backends
        self.backends = tuple(route.backends.values())
        self.protocol = route.protocol
        self.clock = shell.clock
        self.rng = driver.router.rng
        self.reserving = driver.reserving
        self.reservations = driver.reserving.reservations
        self.observers = driver.attempts.settlement.observers
        self.at_answer, self.at_end = driver.sinks.at_answer, driver.sinks.at_end
        self.in_flight = shell.in_flight
        self.replies, self.stamp = shell.replies, shell.stamp
        self.body_bytes_max = shell.small_bytes
        self.reply_bytes_max = min(SMALL_BYTES, route.reply_bytes_max)

    @property
    def is_outdated(self) -> bool:
        """Whether the route has other backends by now."""
        return self.route.backends is not self.shown or self.route.sticky is not None

    def begin(self, client: Client, request: WholeRequest, judged: Judgement) -> bool:
        """Begin to answer a request; False if nothing was done."""
        shell, route, tenant, body = self.shell, self.route, self.tenant, request.body
        if len(body) > self.body_bytes_max or (request.waited and not self._has_room()):
            return False
        if not self.in_flight.admit(tenant):
            return False
        received_s = self.clock()
        assert judged.fields is not None
        headers, options = judged.fields
        call = Call(judged.method, judged.target, headers.copy(), body, tenant=tenant)
        try:
            payload = call.payload = self.protocol.parse(call)
        except Exception:  # the machine finds the same, and explains it
            payload = None
        if payload is None or payload.refers or payload.creates or payload.endpoint.is_free:
            self.in_flight.dismiss(tenant)
            return False
        one = FusedRequest(shell, client, request, tenant)
        one.path, one.judged, one.hold = self, judged, None
        inference = one.inference = InferenceRequest(
            route, tenant, call, received_s, received_s + route.timeout_s, judged.tags,
            caller=tenant, client=client, accepts=options.accepts,
        )  # fmt: skip
        try:
            one.start(inference, route, tenant, received_s)
        except Exception as exc:
            one.fail(exc)
        return True

    def _has_room(self) -> bool:
        """Whether any backend has a free slot."""
        slots = [backend.slots for backend in self.backends]
        return any(one is not None and one.busy < one.limit for one in slots)


class FusedRequest(Progress):
    """An ordinary request as far as it has come.

    `hold`: the money, while a call of this path is under way.
    """

    __slots__ = ("backend", "deadline_s", "hold", "judged", "limit", "number", "path", "quote",
                 "started_s")  # fmt: skip

    path: FusedPath
    judged: Judgement
    backend: Target
    hold: Reservation | None
    quote: Quote
    limit: OutputLimit | None
    number: int
    started_s: float
    deadline_s: float

    # ------------------------------------------------------------------ until the call is sent

    def start(
        self, inference: InferenceRequest, route: RoutePlan, tenant: str, now_s: float
    ) -> None:
        """Draw a backend and call it."""
        path = self.path
        # As `Router.begin`.
        context = route.features(inference.call)
        scopes = path.reservations.pacing(tenant, route.name, inference.tags)
        if scopes:
            context = Context(context.dense, context.sparse, scopes=scopes)
        state = self.state = RequestState(inference, context)
        route.retries.earn(tenant)
        route.inputs.see(context.dense, tenant)
        # As `Router.next`, where every backend is a candidate.
        if path.reservations.downgrades:
            self.advance(now_s)
            return
        arms: list[Arm] = []
        quotes = state.quotes
        for backend in path.backends:
            breaker, slots, announced = backend.breaker, backend.slots, backend.announced
            if (
                breaker.is_open
                or breaker.suspicions.callers
                or now_s < backend.rest.until_s
                or (announced is not None and now_s < announced.until_s)
                or slots is None
                or (slots.busy and slots.busy >= slots.limit)
            ):
                self.advance(now_s)
                return
            quoted = backend.fixed
            if quoted is None:
                quoted = quote(state, backend, now_s)
            else:
                quotes[backend.name] = quoted
            expected_usd = quoted.expected_nano / NANO_PER_USD
            arms.append(Arm(backend.name, expected_usd, backend.declared_quality))
        choice = route.policy.choose(context, arms, path.rng, None)
        state.draws.append(Decision(0, context, choice, False))
        state.reason = choice.reason
        backend = path.shown[choice.arms[choice.index]]
        step = self.step = Ask(backend)
        if not self._send(state, backend):
            self.take(state, step, now_s)

    def _send(self, state: RequestState, backend: Target) -> bool:
        """Reserve the money and send the call; False, and nothing is done, if the machine must."""
        path, inference, quoted = self.path, state.inference, state.quotes[backend.name]
        payload, reservations = inference.call.payload, path.reservations
        if (
            reservations.held.line.count
            or not backend.dialect.is_plain
            or path.protocol.follow(payload) is not None
        ):
            return False
        # As `Reserving.reserve_now` and `Reservations.reserve_now`.
        accounts = reservations.matching(path.tenant, path.route.name, backend.name, inference.tags)
        ceiling_nano, maximum_nano = quoted.ceiling_nano, quoted.maximum_nano
        if backend.has_bounds or payload.endpoint.is_open:
            amounts = path.reserving.amounts(state, backend, accounts)
            if isinstance(amounts, BudgetRefusal):
                return False
            ceiling_nano, maximum_nano, _ = amounts
        started_s = path.clock()
        for account in accounts:
            lease = account.lease
            amount_nano = maximum_nano if account.hard else ceiling_nano
            if lease.room_nano < amount_nano or started_s >= lease.until_s:
                return False
        until_s, deadline_s = started_s + backend.timeout_s, inference.deadline_s
        self.deadline_s = deadline_s = until_s if until_s < deadline_s else deadline_s
        self.backend, self.quote, self.limit, self.number = backend, quoted, None, 0
        self.started_s = started_s
        hold = self.hold = reservations.hold(accounts, ceiling_nano, maximum_nano)
        # As `Attempts.begin` and `Attempts.send_now`.
        if state.bounds:
            self.quote, self.limit = limited_quote(state, backend, hold)
        if backend.announced is not None:
            self.number = backend.announced.begin(started_s)
        transport: Any = backend.transport
        call, head = self._addressed(state, backend)
        sent = self._sent = transport.send_now(call, deadline_s, head)
        if sent is None:
            self._materialize()
            self.hand_over()
        elif sent.exchange.head.done:  # it failed at once
            self._replied()
        else:
            sent.exchange.head.resume = self._replied
        return True

    def _addressed(self, state: RequestState, backend: Target) -> tuple[Call, bytes]:
        """Return the call as it is sent, and its head."""
        path, inference, limit = self.path, state.inference, self.limit
        call = inference.call
        target, edits = path.protocol.readdress(call, backend.path, backend.model, call.payload)
        if limit is not None:
            edits = {**edits, **limited(limit)}
        body = rewritten(call, call.payload, edits) if edits else call.body
        heads, key = self.judged.heads, (backend.name, target, len(body))
        head = heads.get(key)
        if head is None:
            sent = UNCHANGED if limit is None else Rewritten(limit=limit)
            call = addressed(inference, backend, self.deadline_s, path.clock, sent)
            head = request_head(call, backend.host)
            if len(head) <= HEAD_BYTES_MAX:
                if len(heads) >= HEADS_MAX:
                    heads.clear()
                heads[key] = head
        elif edits:  # its fields are in the head
            call = Call(call.method, target, [], body, call.payload, tenant=path.tenant)
        return call, head

    # ------------------------------------------------------------------ from the reply on

    def _replied(self) -> None:
        """Go on with a reply, or with a call that has failed."""
        sent: Any = self._sent
        hold = self.hold
        if hold is None or sent is None:  # a call of the machine
            super()._replied()
            return
        exchange = sent.exchange
        body, known = exchange.whole, exchange.known
        try:
            if (
                body is not None
                and exchange.status == OK
                and len(body) <= self.path.reply_bytes_max
                and (is_plain(exchange.headers) if known is None else is_known_plain(known))
                and not sent.connection.streamed
                and self._finish(sent, hold, body)
            ):
                return
        except Exception as exc:
            self.fail(exc)
            return
        self._materialize()
        super()._replied()

    def _finish(self, sent: Sent, hold: Reservation, body: bytes) -> bool:
        """Charge, record and reply; False, and nothing is done, if the machine must."""
        path, state, backend, quoted = self.path, self.state, self.backend, self.quote
        assert state is not None
        inference, exchange, route = state.inference, sent.exchange, path.route
        headers, started_s, now_s = exchange.headers, self.started_s, path.clock()
        # As `Attempts.finish_now`.
        outcome = evaluate_reply(
            backend,
            inference.call,
            HttpReply(OK, headers, exchange, body),
            body,
            quote=quoted,
            latency_s=now_s - started_s,
        )
        if outcome.error:
            return False
        sent.pool.note(sent)
        limit, tenant = self.limit, path.tenant
        attempt = Attempt(
            backend.name, quoted, started_s, now_s - started_s, outcome, OK, headers, body, False,
            hold.held_by_budget(), 0.0, None, None, 0 if limit is None else limit.tokens,
        )  # fmt: skip
        self._sent = self.hold = None
        # As `Attempts._finish` and `Settlement.settle`.
        state.attempts.append(attempt)
        state.now_s = now_s
        path.reservations.settle(hold, outcome.cost_nano)
        for observer in path.observers:
            observer.attempt(route.name, tenant, attempt, None)
            if inference.tags:
                observer.tagged(tenant, inference.tags, outcome.cost_nano)
        backend.breaker.succeeded()
        if not (outcome.usage is None or outcome.partial or backend.price.is_fixed):
            learn(state, backend, attempt, outcome.usage, now_s)
        # As `Router.answered` and `Router.next`.
        state.held, state.stage, state.phase = attempt, 1, ENDED
        self.step = Accept(attempt)
        # As `Progress._conclude`.
        self.is_recorded = True
        for sink in path.at_answer:
            sink(state, now_s)
        for sink in path.at_end:
            sink(state, now_s)
        known, stamp, is_sent = exchange.known, path.stamp, False
        if known is not None and not stamp.leaving:
            own_s = path.clock() - inference.received_s - attempt.latency_s
            data = path.replies.composed(
                state, attempt, known, stamp, own_s, attempt.latency_s, outcome.cost_nano
            )
            is_sent = self._request.reply_as_is(data)
        if is_sent or self._reply(state):
            self._end()
            path.in_flight.dismiss(tenant)
        else:
            self.hand_over()
        return True

    # ------------------------------------------------------------------ to the machine

    def _materialize(self) -> None:
        """Give the machine the attempt that has begun here."""
        hold, state, backend, limit = self.hold, self.state, self.backend, self.limit
        assert hold is not None and state is not None
        self.hold = None
        sent = UNCHANGED if limit is None else Rewritten(limit=limit)
        call: Call | None = None
        if self._sent is not None:  # else what failed may be to address it
            call = addressed(state.inference, backend, self.deadline_s, self.path.clock, sent)
        self.begun = Begun(
            state, backend, hold, self.quote, limit, self.started_s, self.deadline_s, self.number,
            False, 0.0, None, sent, call,
        )  # fmt: skip

    def fail(self, exc: Exception) -> None:
        """Go on with an exception, which the coroutine shell handles as its own."""
        if self.hold is not None:
            self._materialize()
        super().fail(exc)

    def _cancelled(self) -> None:
        if self.hold is not None:
            self._materialize()
        super()._cancelled()
