"""One backend at several addresses: chooses the address of a call, and excludes failing ones.

Theory of operation. Of two addresses drawn at random, the one with fewer running calls is used
(Mitzenmacher 2001: nearly as even as using the least loaded of all, and without herding). With
affinity, a call that has a key goes to the address of that key instead (`affinity.py`). An address
is excluded while it is

    ejected      5 calls in a row failed there (no connection, a timeout, 502, 503, 504): for 30 s,
                 then 60 s, ... at most 300 s; after 300 s without, for 30 s again. Another 5xx may
                 be the request's fault: it counts only if several callers had one, with no success
                 in between, while every other address answers
    unhealthy    its last health check failed; it returns with the next that succeeds

At most half of the addresses are ejected. If all are excluded, all are used: the cause then lies
elsewhere. A call that found no connection was not sent, so it goes to another address at once,
whatever its method, and on to further ones: after a start, servers that were scaled down are not
known yet. It counts as one attempt, and is charged as one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tollway.backends.errors import BackendError, ConnectFailed, DeadlineExceeded, Overloaded
from tollway.backends.http.affinity import KeyOf, chosen
from tollway.backends.ports import Transport
from tollway.backends.types import ByteStream, Call, Headers, HttpReply

FAILURES_IN_A_ROW = 5  # these three are Envoy's defaults for outlier detection
EJECTED_S, EJECTED_MAX_S = 30.0, 300.0
GATEWAY_ERRORS = frozenset({502, 503, 504})
DEADLINE = b"x-tollway-deadline-ms"
SEVERAL = 2  # callers: failures of a single one are no evidence against an address
TRIED_MAX = (
    8  # addresses of one call: refusals are fast, but an address that is silent takes seconds
)
CHECK_S = 2.0  # maximum duration of a health check


@dataclass(slots=True)
class Endpoint:
    """One address; its mutable state is its running calls, its failures, its health."""

    host: bytes
    transport: Transport
    url: str = ""
    busy: int = 0
    failures: int = 0
    ejections: int = 0
    ejected_until_s: float = 0.0
    healthy: bool = True
    suspicions: int = 0
    suspect_since_s: float = 0.0
    suspects: set[str] = field(default_factory=set)
    well_at_s: float = float("-inf")

    def adopt(self, old: "Endpoint") -> None:
        """Take over the state of the same address from before its settings changed."""
        self.failures, self.ejections = old.failures, old.ejections
        self.ejected_until_s, self.healthy = old.ejected_until_s, old.healthy
        self.suspicions, self.suspect_since_s = old.suspicions, old.suspect_since_s
        self.suspects, self.well_at_s = set(old.suspects), old.well_at_s

    def serves(self, now_s: float) -> bool:
        """Whether it is neither ejected nor unhealthy."""
        return self.healthy and now_s >= self.ejected_until_s

    def is_well(self, now_s: float) -> None:
        """Record that it answered."""
        self.failures = self.suspicions = 0
        self.suspects.clear()
        self.well_at_s = now_s

    def suspect(self, now_s: float, caller: str) -> bool:
        """Count a failure that may be the request's fault.

        Returns whether several callers had enough of them.
        """
        if not self.suspicions:
            self.suspect_since_s = now_s
        self.suspicions += 1
        if len(self.suspects) < SEVERAL:
            self.suspects.add(caller)
        return self.suspicions >= FAILURES_IN_A_ROW and len(self.suspects) >= SEVERAL


class LoadBalancer:
    """A transport over several addresses; its only state is that of the endpoints."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        rng: Random,
        health: bytes | None = None,
        own: Callable[[], Headers] = list,
        key_of: KeyOf | None = None,
    ) -> None:
        """`health` is the target of health checks, None for none; `own` are their fields.

        `key_of` reads the key of a call that has an address of its own; None without affinity.
        """
        assert endpoints
        self.endpoints = tuple(endpoints)
        self._rng = rng
        self._health = health
        self._own = own
        self._key_of = key_of

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Send a call to one of the addresses (see `Transport`)."""
        key = b"" if self._key_of is None else self._key_of(call)
        failed: list[Endpoint] = []
        while True:
            endpoint = self._pick(failed, key)
            try:
                return await self._send(endpoint, call, deadline_s)
            except Overloaded:
                raise
            except ConnectFailed:
                failed.append(endpoint)
                if len(failed) == min(len(self.endpoints), TRIED_MAX):
                    raise

    async def check(self) -> bool | None:
        """Check the health of every address.

        Returns whether one is healthy, or None if that cannot be determined.
        """
        if self._health is None:
            return None
        results = await asyncio.gather(*(self._check(endpoint) for endpoint in self.endpoints))
        if True in results:
            return True
        return False if False in results else None

    async def aclose(self) -> None:
        """Close every connection."""
        for endpoint in self.endpoints:
            await endpoint.transport.aclose()

    def _pick(self, failed: Sequence[Endpoint], key: bytes = b"") -> Endpoint:
        now_s = asyncio.get_running_loop().time()
        others = [one for one in self.endpoints if all(one is not other for other in failed)]
        serving = [endpoint for endpoint in others if endpoint.serves(now_s)] or others
        if len(serving) == 1:
            return serving[0]
        if key:
            return chosen(key, serving)
        one, two = self._rng.sample(serving, 2)
        return one if one.busy <= two.busy else two

    async def _send(self, endpoint: Endpoint, call: Call, deadline_s: float) -> HttpReply:
        headers = [(name, value) for name, value in call.headers if name != b"host"]
        headers.append((b"host", endpoint.host))
        addressed = Call(
            call.method, call.target, headers, call.body, call.payload, tenant=call.tenant
        )
        endpoint.busy += 1
        try:
            reply = await endpoint.transport.send(addressed, deadline_s)
        except BaseException as exc:
            endpoint.busy -= 1
            if isinstance(exc, BackendError) and not _is_clients(exc, call):
                self.failed(endpoint)
            raise
        if reply.status in GATEWAY_ERRORS:
            self.failed(endpoint)
        elif reply.status < 500:
            endpoint.is_well(asyncio.get_running_loop().time())
        else:
            self._suspected(endpoint, call.caller)
        if reply.whole is None:
            reply.stream = _Counted(self, endpoint, reply.stream)
        else:
            endpoint.busy -= 1
        return reply

    def failed(self, endpoint: Endpoint) -> None:
        """Count a failure; eject the address if it has too many.

        Failures of calls that were running when it was ejected are not new evidence.
        """
        now_s = asyncio.get_running_loop().time()
        if now_s < endpoint.ejected_until_s:
            return
        endpoint.failures += 1
        if endpoint.failures >= FAILURES_IN_A_ROW:
            self._eject(endpoint, now_s)

    def _suspected(self, endpoint: Endpoint, caller: str) -> None:
        """Count a failure that may be the request's fault: then it would fail elsewhere too."""
        now_s = asyncio.get_running_loop().time()
        if now_s < endpoint.ejected_until_s or not endpoint.suspect(now_s, caller):
            return
        others = [other for other in self.endpoints if other is not endpoint]
        if all(
            not other.suspicions and other.well_at_s > endpoint.suspect_since_s
            for other in others
            if other.serves(now_s)
        ):
            self._eject(endpoint, now_s)

    def _eject(self, endpoint: Endpoint, now_s: float) -> None:
        """Exclude an address for a while, unless half of them are excluded."""
        ejected = sum(now_s < other.ejected_until_s for other in self.endpoints)
        if 2 * (ejected + 1) > len(self.endpoints):
            return
        endpoint.failures = endpoint.suspicions = 0
        endpoint.suspects.clear()
        if now_s > endpoint.ejected_until_s + EJECTED_MAX_S:
            endpoint.ejections = 0  # healthy for long: earlier ejections no longer count
        endpoint.ejections += 1
        endpoint.ejected_until_s = now_s + min(EJECTED_MAX_S, EJECTED_S * endpoint.ejections)

    async def _check(self, endpoint: Endpoint) -> bool | None:
        call = Call(b"GET", self._health or b"/", [(b"host", endpoint.host), *self._own()])
        until_s = asyncio.get_running_loop().time() + CHECK_S
        try:
            reply = await endpoint.transport.send(call, until_s)
            await reply.read(1 << 20)
        except Overloaded:
            return None  # our own slots are taken: that is no evidence on the address
        except BackendError:
            endpoint.healthy = False
            return False
        healthy = is_well(reply.status)
        endpoint.healthy = healthy is True
        return healthy


def is_well(status: int) -> bool | None:
    """Return whether a health path's status is good; None if the path itself may be wrong."""
    if 200 <= status < 300:
        return True
    return False if status >= 500 else None


def _is_clients(failure: BackendError, call: Call) -> bool:
    """Whether a failure is not the address's fault: our own slots, a client's short deadline."""
    if isinstance(failure, Overloaded):
        return True
    client_deadline = any(name == DEADLINE for name, _ in call.headers)
    return client_deadline and isinstance(failure, DeadlineExceeded)


class _Counted:
    """A reply's body; when it ends, its address has one running call less."""

    # The mutable state is whether the call is still counted.
    def __init__(self, owner: LoadBalancer, endpoint: Endpoint, stream: ByteStream) -> None:
        self._owner = owner
        self._endpoint = endpoint
        self._stream = stream
        self._chunks = aiter(stream)
        self._counted = True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except BackendError:
            self._owner.failed(self._endpoint)
            raise

    async def aclose(self) -> None:
        """End the body."""
        if self._counted:
            self._counted = False
            self._endpoint.busy -= 1
        await self._stream.aclose()
