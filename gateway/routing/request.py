"""A request inside the gateway: its route, tenant, call, deadline and cost ceiling."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tollway.backends.types import Call, Headers
from tollway.gateway.features.online.join import Joined
from tollway.gateway.listener.client import Client
from tollway.gateway.routing.bodies.buffers import RequestMemory
from tollway.gateway.routing.cached.arm import CachedAnswer
from tollway.gateway.routing.plan import RoutePlan


class Head(Protocol):
    """What a request's head means.

    `hits`: what is known of requests with this head, by body; see `routing.cached.exact_hits`.
    """

    tenant: str
    hits: dict[bytes, Any] | None


class Trace(Protocol):
    """Traces one request; `state` is set once the router has accepted it."""

    state: Any

    @property
    def exemplar(self) -> dict[str, str] | None:
        """The labels that link a metric to this trace; None if the trace is not kept."""

    def onto(self, headers: Headers) -> Headers:
        """Return the headers of a backend call with its own trace context added."""


@dataclass(slots=True)
class InferenceRequest:
    """A request: its route, tenant, call, deadline, cost ceiling and accuracy floor.

    Times are on the router's clock, in seconds; the deadline is absolute. `trace`: set if the
    request is traced. `client_deadline`: the client set a deadline, so backends are sent theirs.
    `client`: set if the request is to be cancelled when its client disconnects. `accepts`: the
    client's Accept-Encoding. `among`: the routes that a free call may be sent to, if there are
    several at its path. `held_by`: the backends that have the object or the
    model that it names; empty if any may. `caller`: the identity by which failures are attributed:
    the tenant, or the address of an anonymous client. `memory`: counts what is held of it and its
    replies, if they are large. `joined`: its features from outside, if the route has any.
    `cache_mode`: what `x-tollway-cache` demands; `cache_result`: what
    looking for a kept answer has come to, and `cached` the answer that was found.
    `feedback`: what the client says of the answer before, from 0 to 1.
    `head`: what its head means, where an equal request may be answered at once; `lost`: it was
    drawn already that its kept answer is not given. `embedding`: that by a backend, if the route
    has one. `own_calls`: the calls that the gateway made for itself, by signal.
    """

    route: RoutePlan
    tenant: str
    call: Call
    received_s: float
    deadline_s: float
    tags: dict[str, str] = field(default_factory=dict)
    floor: float | None = None
    cost_nano_max: int | None = None
    trace: Trace | None = None
    client_deadline: bool = False
    caller: str = ""
    client: Client | None = None
    accepts: bytes = b""
    among: Sequence[RoutePlan] = ()
    memory: RequestMemory | None = None
    held_by: frozenset[str] = frozenset()
    joined: Joined | None = None
    cache_mode: str = ""
    cache_result: str = ""
    cached: CachedAnswer | None = None
    feedback: float | None = None
    head: Head | None = None
    lost: bool = False
    embedding: tuple[float, ...] = ()
    own_calls: list[tuple[str, Any]] = field(default_factory=list, repr=False)

    @property
    def left(self) -> bool:
        """Whether the client has disconnected."""
        return self.client is not None and self.client.left
