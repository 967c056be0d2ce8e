"""The callback shell: answers requests in the callbacks that bring them and their replies.

Theory of operation. There are two shells over one machine. The coroutine shell (`handler`,
`routing/driver`) can answer every request. Most requests need no coroutine: their head was judged
before, their body came in the same read, the money is there, a connection to the backend is idle,
and the reply comes in one read too. This shell takes those through the same steps of the same
objects, as plain calls:

    begin --> advance --> replied --> advance ... --> conclude
      |          |           |           |
      +----------+-----------+-----------+--> hand_over: the coroutine shell goes on from there

`hand_over` happens wherever something must be waited for, or is wrong: money that others hold, no
idle connection, a reply in parts, a failure, a refusal, a client that left. Nothing is done twice:
what was done is in `Progress`, and the coroutine shell goes on with it (`DataPlane.go_on`,
`Driver.go_on`, `Attempts.finish`). So each place in a request's life is in both shells, or leads to
the coroutine shell; `tests/integration/data_plane/test_both_shells.py` compares them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from tollway.backends.types import Headers, HttpReply
from tollway.gateway.data_plane.admission import Admission, Judgement
from tollway.gateway.data_plane.asgi import Receive, Scope, Send
from tollway.gateway.data_plane.in_flight import InFlight
from tollway.gateway.data_plane.reply_stamp import ReplyStamp
from tollway.gateway.data_plane.responses import Responses
from tollway.gateway.listener.client import Client, WholeRequest
from tollway.gateway.routing.attempts import Begun, InTransit
from tollway.gateway.routing.cached.exact_hits import ExactHits, Hit
from tollway.gateway.routing.driver import Driver
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.routing.router import Ask, Refuse, Step

GoOn = Callable[["Progress", Scope, Receive, Send], Awaitable[None]]


class CallbackShell:
    """Begins requests without a coroutine."""

    def __init__(
        self,
        driver: Driver,
        go_on: GoOn,
        *,
        admission: Admission,
        replies: Responses,
        stamp: ReplyStamp,
        in_flight: InFlight,
        hits: ExactHits,
        clock: Callable[[], float],
    ) -> None:
        """`go_on` is the coroutine shell, which takes over what cannot be done without waiting.

        `hits` answers requests that came before, on routes with a cache.
        """
        self.hits = hits
        self.driver = driver
        self.go_on = go_on
        self.replies = replies
        self.stamp = stamp
        self.in_flight = in_flight
        self._admission = admission
        self.clock = clock
        self.small_bytes = admission.small_bytes

    def begin(self, client: Client, request: WholeRequest, judged: Judgement) -> bool:
        """Begin to answer a request whose head was judged; False if nothing was done."""
        tenant, match = judged.tenant, judged.match
        body, admission = request.body, self._admission
        if len(body) > self.small_bytes:
            return False
        received_s, drawn = self.clock(), False
        if judged.hits is not None and (hit := judged.hits.get(body)) is not None:
            found = self._repeat(hit, client, request, received_s)
            if found is None:
                return True
            drawn = found
        if request.waited and match.shared is None and match.route.is_full(tenant):
            return False
        if not self.in_flight.admit(tenant):
            return False
        progress = Progress(self, client, request, tenant)
        try:
            scope = request.scope if judged.lasts else request.head
            inference = admission.parsed(scope, judged, body, received_s)
            progress.inference = inference
            payload = inference.call.payload
            if inference.route.is_repeatable and judged.lasts:
                inference.head, inference.lost = judged, drawn
            if inference.route.is_direct and not (payload.refers or payload.endpoint.is_free):
                inference.client = client
                progress.state = self.driver.router.begin(inference)
        except Exception as exc:
            progress.error = exc
        if progress.state is None:
            progress.hand_over()
        else:
            progress.advance(self.clock())
        return True

    def _repeat(
        self, hit: Hit, client: Client, request: WholeRequest, received_s: float
    ) -> bool | None:
        """Reply to a request that came before, if its kept answer is drawn again, and return None.

        Else return whether it has drawn a fresh answer.
        """
        state: RequestState | bool = False
        error: Exception | None = None
        try:
            state = self.hits.answer(hit, client, received_s)
            if isinstance(state, bool):
                return state
            assert state.repeated is not None
            data = self.replies.encoded(state, state.repeated, self.stamp)
            if data is not None and request.reply_as_is(data):
                return None
        except Exception as exc:
            error = exc
        tenant = hit.inference.tenant
        self.in_flight.hold(tenant)
        progress = Progress(self, client, request, tenant)
        progress.error = error
        if not isinstance(state, bool):
            progress.inference, progress.state, progress.is_recorded = state.inference, state, True
        progress.hand_over()
        return None


class Progress:
    """A request as far as it has come.

    `sending` brings the reply of a call in progress. `error`: what was raised; it is raised again
    in the coroutine. `is_recorded`: it was given to the sinks.
    """

    __slots__ = ("_headers", "_known", "_request", "_sent", "_shell", "begun", "client", "error",
                 "inference", "is_recorded", "sending", "state", "step", "tenant")  # fmt: skip

    def __init__(
        self, shell: CallbackShell, client: Client, request: WholeRequest, tenant: str
    ) -> None:
        self._shell = shell
        self._request = request
        self.client = client
        self.tenant = tenant
        self.inference: InferenceRequest | None = None
        self.state: RequestState | None = None
        self.step: Step | None = None
        self.begun: Begun | None = None
        self.sending: Awaitable[HttpReply] | None = None
        self.error: Exception | None = None
        self.is_recorded = False
        self._sent: InTransit | None = None
        self._known: Any = None  # the head of the latest reply, if it came before, and its fields
        self._headers: Headers = []
        request.tasks.add(self)
        client.running, client.cancels = self, True

    def advance(self, now_s: float) -> None:
        """Do what the router decides next."""
        state = self.state
        assert state is not None
        try:
            step = self._shell.driver.router.next(state, now_s)
        except Exception as exc:
            self.fail(exc)
        else:
            self.take(state, step, now_s)

    def take(self, state: RequestState, step: Step, now_s: float) -> None:
        """Do what the router has decided, as far as nothing must be waited for."""
        self.step = step
        try:
            if type(step) is Ask:
                waits = not self._ask(state, step)
            elif type(step) is Refuse:
                waits = True
            else:
                waits = not self._conclude(state, now_s)
        except Exception as exc:
            self.fail(exc)
            return
        if waits:
            self.hand_over()
        elif self._sent is not None and self._sent.exchange.head.done:  # it failed at once
            self._replied()

    def _ask(self, state: RequestState, step: Ask) -> bool:
        """Send the call of a step; False if its money or a connection must be waited for."""
        driver, backend = self._shell.driver, step.backend
        hold = driver.reserving.reserve_now(state, backend)
        if hold is None:
            return False
        driver.router.reserved(state, step)  # a route that hedges is not direct
        begun = driver.attempts.begin(state, backend, hold, fallback=step.fallback)
        self.begun = begun
        sent = self._sent = driver.attempts.send_now(begun)
        if sent is None:
            return False
        sent.exchange.head.resume = self._replied
        return True

    def _replied(self) -> None:
        """Go on with a reply, or with a call that has failed."""
        state, sent, begun, step = self.state, self._sent, self.begun, self.step
        assert state is not None and sent is not None and begun is not None and type(step) is Ask
        self._sent = None
        driver = self._shell.driver
        try:
            reply = sent.take()
            if reply is not None:
                self._known, self._headers = sent.exchange.known, reply.headers
            attempt = None if reply is None else driver.attempts.finish_now(begun, reply)
            if attempt is not None:
                self.begun = None
                driver.router.answered(state, step, attempt)
        except Exception as exc:
            self.fail(exc)
            return
        if attempt is not None:
            self.advance(state.now_s)
            return
        self.sending = sent.receive() if reply is None else _given(reply)
        self.hand_over()

    def _conclude(self, state: RequestState, now_s: float) -> bool:
        """Record a request that is answered, and reply; False if the client reads slowly."""
        shell = self._shell
        self.is_recorded = True  # even if one of them raises: none is told twice
        shell.driver.sinks.answered(state, now_s)
        shell.driver.sinks.ended(state, now_s)
        data, known, held = None, self._known, state.held
        assert held is not None
        if known is not None and held.headers is self._headers:  # nothing of its head was changed
            data = shell.replies.encoded(state, known, shell.stamp)
        is_sent = data is not None and self._request.reply_as_is(data)
        if not (is_sent or self._reply(state)):
            return False
        self._end()
        shell.in_flight.dismiss(self.tenant)
        return True

    def _reply(self, state: RequestState) -> bool:
        """Send the reply field by field; False if the client reads slowly."""
        shell = self._shell
        whole = shell.replies.whole(state)
        headers = shell.stamp.stamped(whole.headers)
        return self._request.reply(whole.status, headers, whole.body)

    def fail(self, exc: Exception) -> None:
        """Go on with an exception, which the coroutine shell handles as its own."""
        begun = self.begun
        if begun is not None and not begun.is_ended:
            self.sending = _raised(exc)
        else:
            self.begun, self.error = None, exc
        self.hand_over()

    def cancel(self, msg: object = None) -> None:
        """Stop: the client has left, or the server stops."""
        sent = self._sent
        if sent is None or sent.exchange.head.done:
            return
        sent.exchange.head.resume = None
        asyncio.get_running_loop().call_soon(self._cancelled)

    def _cancelled(self) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            self.sending = sent.cancel()
            self.hand_over()

    def hand_over(self) -> None:
        """Have the coroutine shell go on."""
        self._end()
        self._sent = None
        self._request.hand_over(partial(self._shell.go_on, self))

    def _end(self) -> None:
        """Let go of the client, which would keep a request that was answered until its next."""
        self._request.tasks.discard(self)
        self.client.cancels, self.client.running = False, None


async def _given(reply: HttpReply) -> HttpReply:
    """Return a reply that has come."""
    return reply


async def _raised(exc: Exception) -> Any:
    """Raise what was raised."""
    raise exc
