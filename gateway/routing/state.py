"""State: what is learned and counted of a backend and of a route."""

from collections import Counter
from dataclasses import dataclass, field

from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.features.traffic_shares import Traffic
from tollway.gateway.routing.circuit_breaker import CircuitBreaker
from tollway.gateway.routing.fallback import Retries
from tollway.gateway.routing.health.announced import Announced
from tollway.gateway.routing.health.rest import Rest
from tollway.gateway.routing.hedging import Waits
from tollway.policies.evidence.influence import Influence
from tollway.policies.evidence.signal_influence import SignalInfluence
from tollway.policies.evidence.signal_trust import SignalTrust


@dataclass(slots=True)
class BackendState:
    """The health of one server, on all routes: its circuit breaker, the rests it asked for, and
    what it announced of its limits.
    """

    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    rest: Rest = field(default_factory=Rest)
    announced: Announced = field(default_factory=Announced)


@dataclass(slots=True)
class RouteState:
    """What is counted and estimated of one route, under any policy.

    `bound` counts requests by budget, for budgets that apply to only some of the route's requests.
    `paced_by`: the budgets that pace the policy now, by scope. `influence`: how far to trust each
    tenant's labels; `trust`: how far to trust each signal; `signalled`: how far to believe what
    signals say of each tenant's answers.
    """

    estimator: CostEstimator = field(default_factory=CostEstimator)
    retries: Retries = field(default_factory=Retries)
    hedging: Waits = field(default_factory=Waits)
    traffic: Traffic = field(default_factory=Traffic)
    influence: Influence = field(default_factory=Influence)
    trust: SignalTrust = field(default_factory=SignalTrust)
    signalled: SignalInfluence = field(default_factory=SignalInfluence)
    bound: Counter[str] = field(default_factory=Counter)
    paced_by: dict[str, str] = field(default_factory=dict)
