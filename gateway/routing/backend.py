"""One model server with a price, as the router calls it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.dialect import Dialect, left_out, limited
from tollway.backends.output import OutputLimit
from tollway.backends.pricing import Price
from tollway.backends.types import (
    UNBOUND,
    Addition,
    Call,
    Headers,
    Payload,
    Transport,
    Usage,
    WireProtocol,
)
from tollway.backends.validation import Validator
from tollway.gateway.estimation.prompt_cache import PromptCacheTracker
from tollway.gateway.routing.circuit_breaker import CircuitBreaker
from tollway.gateway.routing.health.rest import Rest
from tollway.gateway.routing.health.trial import Trial
from tollway.gateway.security.credentials import Credential

NO_PAYLOAD = Payload()

IDENTITY = (b"accept-encoding", b"identity")
"""Replies are read here, so they are asked for uncompressed; a server told nothing may choose."""


@dataclass(slots=True)
class Backend:
    """One model server with a price; called an arm when it is offered to a policy.

    `expects` is what its answers must look like on this route, where the route says; `headers` are
    added to its calls, and so is its `credential`, in place of what a client sent by those names.
    `repeat_on_close`: whether a call that a closed connection may have lost is made again, and paid
    twice perhaps.
    `drain_s`: for how long a stream is read on whose client has left; 0: it is closed at once.
    `input_tokens_max`: what bounds the input where the request does not: its context, declared or
    from the catalogue. `max_output_tokens`: what its answers have at most; `min_output_tokens`:
    what a limit under a hard budget leaves them at least. `sells_tokens`: the price has tokens.
    `tariff`: the price table where the price depends on the time of day; `price` is then what is in
    force.
    """

    name: str
    kind: str
    protocol: WireProtocol
    transport: Transport
    price: Price
    host: bytes = b""
    path: bytes = b""
    model: str | None = None
    declared_quality: float | None = None
    timeout_s: float = 30.0
    first_byte_s: float | None = None
    first_event_s: float | None = None
    unbound: Usage = field(init=False)
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    rest: Rest = field(default_factory=Rest)
    trial: Trial | None = None
    slots: ConcurrencyQueue | None = None
    cache: PromptCacheTracker | None = None
    dialect: Dialect = field(default_factory=Dialect)
    lacks: frozenset[str] = frozenset()
    context_tokens: int | None = None
    input_tokens_max: int | None = None
    max_output_tokens: int | None = None
    min_output_tokens: int | None = None
    expects: Validator | None = None
    headers: Headers = field(default_factory=list, repr=False)
    credential: Credential | None = None
    repeat_on_close: bool = False
    drain_s: float = 0.0
    tariff: Price | None = None
    sells_tokens: bool = field(init=False)
    _replaced: frozenset[bytes] = field(init=False)
    _added: Headers = field(init=False, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it answers inside the gateway: rules do, and cost no server anything."""
        return self.kind == "rules"

    @property
    def full(self) -> bool:
        """Whether it has as many calls as it can answer in time."""
        return self.slots is not None and self.slots.full

    def __post_init__(self) -> None:
        """Know what bounds a call that says nothing: our own deadline."""
        self.unbound = Usage(device_s=self.timeout_s, exact=False)
        most = self.price.most
        self.sells_tokens = bool(most.input_token_nano or most.output_token_nano)
        credential = () if self.credential is None else (self.credential.name,)
        self._replaced = frozenset({b"host", *credential, *[name for name, _ in self.headers]})
        self._added = [(b"host", self.host), IDENTITY, *self.headers]

    def allows(self, now_s: float, caller: str = "") -> bool:
        """Say whether a caller may ask it now: neither its breaker, nor its credential, nor a rest
        that it asked for, stands in the way (0.3 us).
        """
        breaker = self.breaker
        troubled = breaker.is_open or breaker.suspicions.callers
        if troubled and not breaker.allows(now_s, caller):
            return False
        if now_s < self.rest.until_s and self.rest.left_s(now_s, caller):
            return False
        return self.credential is None or self.credential.allows(now_s)

    def probe(self, now_s: float, caller: str = "") -> None:
        """Take note that it is asked; out of service, it is asked only once in a while."""
        breaker = self.breaker
        if breaker.is_open or breaker.suspicions.callers:
            breaker.probe(now_s, caller)
        if self.credential is not None:
            self.credential.probe(now_s)

    @property
    def up(self) -> bool:
        """Whether it is in service."""
        refused = self.credential is not None and self.credential.is_refused
        return not (self.breaker.is_open or refused)

    async def aclose(self) -> None:
        """Fail the calls that wait for their turn, and close every connection."""
        if self.slots is not None:
            self.slots.close()
        await self.transport.aclose()

    def due_s(self, streamed: bool) -> float | None:
        """Return how long until a reply, or the first event of a stream, must begin, if limited."""
        if not streamed or self.first_event_s is None:
            return self.first_byte_s
        if self.first_byte_s is None:
            return self.first_event_s
        return min(self.first_byte_s, self.first_event_s)

    def address(
        self, call: Call, without: Sequence[Addition] = (), limit: OutputLimit | None = None
    ) -> Call:
        """Return the call as this backend wants it: its path, its model's name, its host.

        `without` fields that the gateway adds, and those that the backend does not take (3 us and
        more, where there are any). With `limit` as that of its output.
        """
        payload = call.payload or NO_PAYLOAD
        addressed = self.protocol.readdress(call, self.path, self.model, payload)
        replaced = self._replaced
        headers = [pair for pair in addressed.headers if pair[0] not in replaced]
        headers += self._added
        if self.credential is not None:
            headers.append(self.credential.field)
        body = addressed.body
        if without or not self.dialect.is_plain:
            added = self.protocol.added(payload)
            names = self.dialect.unwanted(payload.data, added, [one.name for one in without])
            body = left_out(body, names)
        if limit is not None:
            body = limited(body, limit)
        return Call(addressed.method, addressed.target, headers, body, payload)

    def known(self, call: Call) -> Usage:
        """Return what bounds a call's usage before it is made."""
        bound = self.protocol.bound(call, call.payload or NO_PAYLOAD)
        if bound is UNBOUND:
            return self.unbound
        # Not by `replace`, which takes a microsecond and a half.
        return Usage(
            bound.calls,
            self.timeout_s,
            bound.input_tokens,
            bound.cached_input_tokens,
            bound.output_tokens,
            exact=False,
            more=bound.more,
        )
