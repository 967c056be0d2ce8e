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
"""The gateway reads replies, so it requests them uncompressed; without the header, the server may
choose any coding."""


@dataclass(slots=True)
class Backend:
    """One model server with a price; called an arm when it is offered to a policy.

    `expects`: the schema of its answers on this route, if the route declares one. `headers` and the
    `credential` are added to its calls and replace the client's fields of the same names.
    `repeat_on_close`: whether to repeat a call that a closed connection may have lost, at the risk
    of paying twice. `drain_s`: how long to keep reading a stream whose client has disconnected;
    0 closes it at once. `input_tokens_max`: the bound of the input if the request gives none: the
    context, declared or from the catalogue. `max_output_tokens`: the largest possible answer;
    `min_output_tokens`: the smallest output limit to write under a hard budget. `sells_tokens`: the
    price includes tokens. `tariff`: the price table if the price depends on the time of day;
    `price` is then the price in force.
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
        """Whether it answers inside the gateway, as rules do at no cost to any server."""
        return self.kind == "rules"

    @property
    def full(self) -> bool:
        """Whether it is at its concurrency limit: as many calls as it can answer in time."""
        return self.slots is not None and self.slots.full

    def __post_init__(self) -> None:
        """Derive the default usage bound (our own deadline) and the header fields to write."""
        self.unbound = Usage(device_s=self.timeout_s, exact=False)
        most = self.price.most
        self.sells_tokens = bool(most.input_token_nano or most.output_token_nano)
        credential = () if self.credential is None else (self.credential.name,)
        self._replaced = frozenset({b"host", *credential, *[name for name, _ in self.headers]})
        self._added = [(b"host", self.host), IDENTITY, *self.headers]

    def allows(self, now_s: float, caller: str = "") -> bool:
        """Return whether a caller may call it now (0.3 us).

        The circuit breaker, the credential and a rest that the backend asked for may prevent it.
        """
        breaker = self.breaker
        troubled = breaker.is_open or breaker.suspicions.callers
        if troubled and not breaker.allows(now_s, caller):
            return False
        if now_s < self.rest.until_s and self.rest.left_s(now_s, caller):
            return False
        return self.credential is None or self.credential.allows(now_s)

    def probe(self, now_s: float, caller: str = "") -> None:
        """Record that it is called; while it is out of service, the call is a probe."""
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
        """Fail the queued calls and close every connection."""
        if self.slots is not None:
            self.slots.close()
        await self.transport.aclose()

    def due_s(self, streamed: bool) -> float | None:
        """Return the time limit for a reply or a stream's first event; None if unlimited."""
        if not streamed or self.first_event_s is None:
            return self.first_byte_s
        if self.first_byte_s is None:
            return self.first_event_s
        return min(self.first_byte_s, self.first_event_s)

    def address(
        self, call: Call, without: Sequence[Addition] = (), limit: OutputLimit | None = None
    ) -> Call:
        """Return the call adapted to this backend: its path, model name and host.

        Leave out the added fields in `without` and those that the backend does not accept (3 us or
        more if there are any). Write `limit` as the limit of its output.
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
        """Return the upper bound of a call's usage before it is made."""
        bound = self.protocol.bound(call, call.payload or NO_PAYLOAD)
        if bound is UNBOUND:
            return self.unbound
        # Built directly: `replace` takes 1.5 us.
        return Usage(
            bound.calls,
            self.timeout_s,
            bound.input_tokens,
            bound.cached_input_tokens,
            bound.output_tokens,
            exact=False,
            more=bound.more,
        )
