"""Plans: what the configuration says of a route and of its backends, resolved for requests.

Plans are built when the configuration is loaded and are not changed afterwards; a reload replaces
them. What is learned and counted stands in `state` and goes on (`wiring/states.py`).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.concurrency.start_gate import StartState
from tollway.backends.dialect import Dialect, limited, rewritten
from tollway.backends.output import OutputLimit
from tollway.backends.ports import REDIRECTS, Transport, WireProtocol
from tollway.backends.price import Tariff
from tollway.backends.pricing import Price
from tollway.backends.scoring import Score
from tollway.backends.types import UNBOUND, Addition, Call, Headers, Usage
from tollway.backends.validation import Validator
from tollway.gateway.caching.plan import PREFIX, CachePlan
from tollway.gateway.estimation.cost_estimator import CostEstimator, Quote, fixed_quote
from tollway.gateway.estimation.prompt_cache import PromptCacheTracker
from tollway.gateway.features.drift import InputDrift
from tollway.gateway.features.extractor import FeatureExtractor
from tollway.gateway.features.online.join import RouteFeatures
from tollway.gateway.features.text_features import TextFeatures
from tollway.gateway.features.traffic_shares import Traffic
from tollway.gateway.routing.circuit_breaker import CircuitBreaker
from tollway.gateway.routing.fallback import FallbackPlan, RetryBudget
from tollway.gateway.routing.health.announced import Announced
from tollway.gateway.routing.health.rest import Rest
from tollway.gateway.routing.health.trial import Trial
from tollway.gateway.routing.hedging import HedgePolicy
from tollway.gateway.routing.key_ring import Key, pick
from tollway.gateway.routing.state import RouteState
from tollway.gateway.security.credentials import Credential
from tollway.policies.evidence.audit import Auditor
from tollway.policies.evidence.influence import Influence
from tollway.policies.evidence.signal_influence import SignalInfluence
from tollway.policies.evidence.signal_trust import SignalPrior, SignalTrust
from tollway.policies.types import Objective, Policy

TOO_MANY = 429

EVERY = ("*",)
"""The models of a route that answers for all that its backends have."""

IDENTITY = (b"accept-encoding", b"identity")
"""The gateway reads replies, so it requests them uncompressed; without the header, the server may
choose any coding."""


def ignored(price: Price) -> None:
    """Do nothing with a price."""


@dataclass(slots=True)
class Target:
    """One model server with a price, as one route calls it; an arm when it is offered to a policy.

    `price` and `fixed` are the only fields that change: they follow the `tariff`. A price that is
    learned or polled changes nothing here: `RoutePlan.reprice` replaces the backend. `fixed`: the
    quote of every call, if the price is per request.
    `expects`: the schema of its answers on this route, if the route declares one. `headers` and
    the `credential` are added to its calls and replace the client's fields of the same names.
    `repeat_on_close`: whether to repeat a call that a closed connection may have lost, at the
    risk of paying twice. `drain_s`: how long to keep reading a stream whose client has
    disconnected; 0 closes it at once. `input_tokens_max`: the bound of the input if the request
    gives none: the context, declared or from the catalogue. `max_output_tokens`: the largest
    possible answer; `min_output_tokens`: the smallest output limit to write under a hard
    budget. `max_audio_s`: the longest recording that it takes. `has_bounds`: a hard
    budget computes the most that a call costs (`call_bounds`), because the price includes tokens or
    is not known. `tariff`: gives the price if it depends on the hour or the date; `price` is then
    the price in force. `keys`: several keys in place of one `credential`, which is then the
    first of them; `keyed` is the backend as it is called with each, and its `key_rest` is that of
    the key.
    `start`: whether it is starting, and what that costs, if calls may wait for it.
    `renames`: its replies have its own name of the model. `is_transparent`: they go to clients as
    they came. `announced`: what they say is left of its rate limits, if that is heeded.
    `on_price` is told the price in force.
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
    fixed: Quote | None = field(init=False)
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    rest: Rest = field(default_factory=Rest)
    announced: Announced | None = None
    trial: Trial | None = None
    slots: ConcurrencyQueue | None = None
    cache: PromptCacheTracker | None = None
    start: StartState | None = None
    dialect: Dialect = field(default_factory=Dialect)
    lacks: frozenset[str] = frozenset()
    context_tokens: int | None = None
    input_tokens_max: int | None = None
    max_output_tokens: int | None = None
    min_output_tokens: int | None = None
    max_audio_s: float | None = None
    expects: Validator | None = None
    headers: Headers = field(default_factory=list, repr=False)
    credential: Credential | None = None
    repeat_on_close: bool = False
    drain_s: float = 0.0
    tariff: Tariff | None = None
    keys: tuple[Key, ...] = ()
    key_rest: Rest | None = None
    on_price: Callable[[Price], None] = ignored
    keyed: "tuple[Target, ...]" = field(init=False)
    has_bounds: bool = field(init=False)
    renames: bool = field(init=False)
    is_transparent: bool = field(init=False)
    _replaced: frozenset[bytes] = field(init=False)
    _added: Headers = field(init=False, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it answers inside the gateway, as rules do at no cost to any server."""
        return self.kind == "rules"

    def __post_init__(self) -> None:
        """Derive the default usage bound (our own deadline) and the header fields to write."""
        self.keyed = tuple(
            [
                replace(self, keys=(), credential=key.credential, key_rest=key.rest)
                for key in self.keys
            ]
        )
        self.reprice(self.price)
        self.renames = self.model is not None and self.protocol.renames
        plain = not (self.renames or self.protocol.hides)
        self.is_transparent = self.credential is None and plain
        self.unbound = Usage(device_s=self.timeout_s, exact=False)
        credential = () if self.credential is None else (self.credential.name,)
        self._replaced = frozenset({b"host", *credential, *[name for name, _ in self.headers]})
        self._added = [(b"host", self.host), IDENTITY, *self.headers]

    def reprice(self, price: Price) -> None:
        """Set the price in force."""
        self.price = price
        self.fixed = fixed_quote(price) if price.is_fixed else None
        sells_tokens = price.most.input_token_nano or price.most.output_token_nano
        self.has_bounds = bool(sells_tokens or price.is_stale)
        self.on_price(price)
        for one in self.keyed:
            one.reprice(price)

    def with_key(self, now_s: float) -> "Target":
        """Return a backend of several keys with that whose turn it is, the first if none is."""
        usable = [at for at, key in enumerate(self.keys) if key.allows(now_s)]
        return self.keyed[usable[pick([self.keys[at] for at in usable])] if usable else 0]

    def rest_of(self, status: int) -> Rest:
        """Return the rest that a status asks for: a 429 is about the key that was used."""
        return self.key_rest if status == TOO_MANY and self.key_rest is not None else self.rest

    def rest_s(self, now_s: float, caller: str) -> float:
        """Return how long the backend, or all of its keys, rest for a caller; 0 if they do not."""
        left_s = self.rest.left_s(now_s, caller)
        return max([left_s, min([key.rest.until_s - now_s for key in self.keys], default=0.0)])

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
        if self.keys:
            return any(key.allows(now_s) for key in self.keys)
        return self.credential is None or self.credential.allows(now_s)

    def probe(self, now_s: float, caller: str = "") -> int:
        """Record that it is called; while it is out of service, the call is a probe.

        Return the number of the call, for `announced`.
        """
        breaker = self.breaker
        if breaker.is_open or breaker.suspicions.callers:
            breaker.probe(now_s, caller)
        if self.credential is not None:
            self.credential.probe(now_s)
        return 0 if self.announced is None else self.announced.begin(now_s)

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """All credentials of its calls."""
        if self.keys:
            return tuple([key.credential for key in self.keys])
        return () if self.credential is None else (self.credential,)

    @property
    def is_refused(self) -> bool:
        """Whether its provider refuses every key of the gateway."""
        return self.credential is not None and all(one.is_refused for one in self.credentials)

    @property
    def up(self) -> bool:
        """Whether it is in service."""
        return not (self.breaker.is_open or self.is_refused)

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
        payload = call.payload
        target, edits = self.protocol.readdress(call, self.path, self.model, payload)
        replaced = self._replaced
        headers = [pair for pair in call.headers if pair[0] not in replaced]
        headers += self._added
        if self.credential is not None:
            headers.append(self.credential.field)
        if without or not self.dialect.is_plain:
            added = self.protocol.added(payload)
            names = self.dialect.unwanted(payload.data, added, [one.name for one in without])
            edits = {**edits, **dict.fromkeys(names)}
        if limit is not None:
            edits = {**edits, **limited(limit)}
        body = rewritten(call, payload, edits) if edits else call.body
        return Call(call.method, target, headers, body, payload)

    def known(self, call: Call) -> Usage:
        """Return the upper bound of a call's usage before it is made."""
        bound = self.protocol.bound(call, call.payload)
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


def unpriced(backend: Target) -> Target:
    """Return a view of a backend for free calls; a 404 answers them as any other reply does."""
    wire = copy(backend.protocol)
    wire.failover_statuses &= REDIRECTS
    return replace(
        backend, protocol=wire, price=Price(), tariff=None, expects=None, on_price=ignored
    )


@dataclass(slots=True)
class RoutePlan:
    """A path that clients call, the backends that can answer it, and how to choose among them.

    `state`: what is learned and counted of the route; `policy`, `features`, `inputs` and `auditor`
    are state too, which a reload may have to replace. `score` computes the quality of an answer
    from the true label. With an `auditor`, some answers are compared to those of the backend
    `reference`. `models`: the model names that select this route on a shared path, or EVERY.
    `request_schema`: the schema of requests, if one is declared. `unpriced`: the backends for calls
    that are free, such as reading a stored object. `forward_headers`: the client credentials that
    are forwarded to backends. `no_answer`: the quality of a reply that holds no answer; None if it
    is unknown. `texts`: computes the features of replies of language models, in a cascade.
    `hold_bytes`: how much text of a stream is held back before a cascade decides; 0 for all of it.
    `online`: what is joined from outside; None if nothing is. `embeds`: whether a backend embeds
    its requests; `verifies`: whether one verifies their replies.
    `cache`: what is kept of its answers, None if nothing is; `arms`: the names of its
    backends, and of the arms that give their kept answers.
    `signals`: what is declared of the signals that score its answers. `anchor`: the backend whose
    declared quality calibrates them until there are labels. `is_guarded`: guards check its
    requests.
    `sticky`: the point in [0, 1) of a request's key (an InferenceRequest), by which a
    rollout decides the version that answers; None without one. `hidden`: backends of a rollout that
    no request may choose now; copies of requests may be sent to them.
    """

    name: str
    protocol: WireProtocol
    backends: dict[str, Target]
    objective: Objective
    policy: Policy
    features: FeatureExtractor
    score: Score
    cascade: bool = False
    fallback: bool = True
    timeout_s: float = 30.0
    reply_bytes_max: int = 16 << 20
    auditor: Auditor | None = None
    reference: str = ""
    models: tuple[str, ...] = ()
    request_schema: Validator | None = None
    fallbacks: FallbackPlan = field(default_factory=FallbackPlan)
    retries: RetryBudget = field(default_factory=RetryBudget)
    hedge: HedgePolicy | None = None
    forward_headers: frozenset[bytes] = frozenset()
    online: RouteFeatures | None = None
    embeds: bool = False
    verifies: bool = False
    inputs: InputDrift = field(default_factory=InputDrift)
    labellers_only: bool = False
    no_answer: float | None = None
    texts: TextFeatures | None = None
    hold_bytes: int = 0
    cache: CachePlan | None = None
    signals: Mapping[str, SignalPrior] = field(default_factory=dict)
    anchor: str = ""
    is_guarded: bool = False
    sticky: Callable[[Any], float] | None = None
    hidden: dict[str, Target] = field(default_factory=dict)
    state: RouteState = field(default_factory=RouteState)
    arms: tuple[str, ...] = field(init=False)
    estimator: CostEstimator = field(init=False)
    bound: Counter[str] = field(init=False)
    paced_by: dict[str, str] = field(init=False)
    traffic: Traffic = field(init=False)
    influence: Influence = field(init=False)
    trust: SignalTrust = field(init=False)
    signalled: SignalInfluence = field(init=False)
    is_limited: bool = field(init=False)
    room: float = field(init=False)
    stages: int = field(init=False)
    unpriced: dict[str, Target] = field(init=False)
    serves_every: bool = field(init=False)
    # Nothing of the route needs more than a call and its reply: the callback shell may begin
    # its requests. What the driver or the data plane's handler looks after makes it False.
    is_direct: bool = field(init=False)
    # Nothing but the cache looks after its requests: one that comes again may be answered at once.
    is_repeatable: bool = field(init=False)

    def __post_init__(self) -> None:
        """Resolve the parts of the state, whether any backend has limits, and the least context."""
        self.serves_every = self.models == EVERY
        kept = () if self.cache is None else self.backends
        self.arms = (*self.backends, *[PREFIX + name for name in kept])
        waits = (self.hedge, self.online, self.cache)
        begins_alone = not (self.serves_every or self.is_guarded or self.embeds or self.verifies)
        self.is_direct = begins_alone and all(one is None for one in waits)
        self.is_repeatable = begins_alone and self.cache is not None and self.online is None
        self.unpriced = {name: unpriced(one) for name, one in self.backends.items()}
        self.stages = len(self.backends) if self.cascade else 1
        state = self.state
        self.estimator, self.bound, self.paced_by = state.estimator, state.bound, state.paced_by
        self.traffic, self.influence = state.traffic, state.influence
        self.trust, self.signalled = state.trust, state.signalled
        sizes = [one.context_tokens for one in self.backends.values() if one.context_tokens]
        self.room = float(min(sizes, default=math.inf))
        self.is_limited = bool(sizes) or any(one.lacks for one in self.backends.values())

    @property
    def anchor_quality(self) -> float | None:
        """The declared quality of the anchor; None without one."""
        anchor = self.backends.get(self.anchor)
        return None if anchor is None else anchor.declared_quality

    def reprice(self, name: str, price: Price) -> None:
        """Set the price of a backend for new requests; others go on with the one they began with.

        What they may cost was reserved at that price, so it is what they are charged by.
        """
        known = self.backends.get(name) or self.hidden.get(name)
        if known is None or known.price == price:
            return
        if name in self.backends:
            self.backends = {**self.backends, name: replace(known, price=price)}
        else:
            self.hidden = {**self.hidden, name: replace(known, price=price)}

    def is_full(self, tenant: str) -> bool:
        """Return whether a tenant's request now would be refused: no backend has a slot for it."""
        if self.fallbacks.static_response is not None:
            return False
        for backend in self.backends.values():
            slots = backend.slots
            if slots is None or not slots.busy or not slots.is_full(tenant):
                return False
        return True

    def keyless(self) -> dict[str, str]:
        """Return the backends whose provider rejects the gateway's key, each with a message."""
        return {
            name: backend.credential.complaint()
            for name, backend in self.backends.items()
            if backend.credential is not None and backend.is_refused
        }
