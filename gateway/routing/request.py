"""A request inside the gateway: who asks what of which route, by when, at what most."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from tollway.backends.types import Call, Headers
from tollway.gateway.listener.client import Client
from tollway.gateway.routing.route import Route


class Trace(Protocol):
    """What watches one request on its way; `state` is set once the router has taken it over."""

    state: Any

    @property
    def exemplar(self) -> dict[str, str] | None:
        """What links a figure to this trace; None where the trace is not kept."""

    def onto(self, headers: Headers) -> Headers:
        """Return the fields of a call to a backend, with a trace context of its own."""


@dataclass(slots=True)
class InferenceRequest:
    """A request: who asks what of which route, by when, at what most, how good at least.

    Times are on the router's clock, in seconds; the deadline is absolute. `trace`: where somebody
    watches. `client_deadline`: the client named a deadline, so backends are told theirs. `client`:
    where
    the request is given up when its client leaves. `accepts`: the client's Accept-Encoding.
    `caller`: who is told apart when a backend fails: the tenant, or an anonymous client's address.
    """

    route: Route
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

    @property
    def left(self) -> bool:
        """Whether nobody waits for the reply any more."""
        return self.client is not None and self.client.left
