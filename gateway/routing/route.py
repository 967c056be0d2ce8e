"""A route: its path, the backends that can answer it, and how it chooses among them."""

import math
from collections import Counter
from dataclasses import dataclass, field

from tollway.backends.scoring import Score
from tollway.backends.types import (
    WireProtocol,
)
from tollway.backends.validation import Validator
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.features.drift import InputDrift
from tollway.gateway.features.extractor import FeatureExtractor
from tollway.gateway.features.traffic_shares import Traffic
from tollway.gateway.routing.backend import Backend
from tollway.gateway.routing.fallback import FallbackPlan
from tollway.gateway.routing.hedging import HedgePolicy
from tollway.policies.evidence.audit import Auditor
from tollway.policies.evidence.influence import Influence
from tollway.policies.types import Objective, Policy


@dataclass(slots=True)
class Route:
    """A path that clients call, the backends that can answer it, and how to choose among them.

    `score` computes the quality of an answer from the true label. `bound` counts requests by
    budget, for budgets that apply to only some of the route's requests. With an `auditor`, some
    answers are compared to those of the backend `reference`. `models`: the model names that select
    this route on a shared path. `request_schema`: the schema of requests, if one is declared.
    `forward_headers`: the client credentials that are forwarded to backends. `no_answer`: the
    quality of a reply that holds no answer; None if it is unknown.
    """

    name: str
    protocol: WireProtocol
    backends: dict[str, Backend]
    objective: Objective
    policy: Policy
    estimator: CostEstimator
    features: FeatureExtractor
    score: Score
    cascade: bool = False
    fallback: bool = True
    timeout_s: float = 30.0
    reply_bytes_max: int = 16 << 20
    bound: Counter[str] = field(default_factory=Counter)
    paced_by: dict[str, str] = field(default_factory=dict)
    auditor: Auditor | None = None
    reference: str = ""
    models: tuple[str, ...] = ()
    request_schema: Validator | None = None
    fallbacks: FallbackPlan = field(default_factory=FallbackPlan)
    hedge: HedgePolicy | None = None
    forward_headers: frozenset[bytes] = frozenset()
    inputs: InputDrift = field(default_factory=InputDrift)
    labellers_only: bool = False
    traffic: Traffic = field(default_factory=Traffic)
    influence: Influence = field(default_factory=Influence)
    no_answer: float | None = None
    is_limited: bool = field(init=False)
    room: float = field(init=False)

    def __post_init__(self) -> None:
        """Derive whether any backend has limits, and the smallest context."""
        sizes = [one.context_tokens for one in self.backends.values() if one.context_tokens]
        self.room = float(min(sizes, default=math.inf))
        self.is_limited = bool(sizes) or any(one.lacks for one in self.backends.values())

    def keyless(self) -> dict[str, str]:
        """Return the backends whose provider rejects the gateway's key, each with a message."""
        return {
            name: backend.credential.complaint()
            for name, backend in self.backends.items()
            if backend.credential is not None and backend.credential.is_refused
        }

    @property
    def stages(self) -> int:
        """The most choices a request may take: one, or in a cascade one per backend."""
        return len(self.backends) if self.cascade else 1
