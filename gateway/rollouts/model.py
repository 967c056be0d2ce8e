"""Rollouts as values: plans, steps, criteria, states and evidence.

A rollout has a stable version (`backend`) and a `candidate`, both names of backends. Weights are
shares of what the stable version would have got, in [0, 1]. Times are seconds of the wall clock.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

SHADOW, CANARY, BLUE_GREEN = "shadow", "canary", "blue_green"
"""Strategies."""

PROGRESSING, PAUSED, PROMOTED, RETIRED = "progressing", "paused", "promoted", "retired"
ROLLED_BACK, ABORTED = "rolled_back", "aborted"
"""Phases. PROMOTED: the candidate answers all, and the stable version is kept warm. RETIRED: the
stable version is called no more. ROLLED_BACK by the evidence, ABORTED by a person."""

PHASES = ("idle", PROGRESSING, PAUSED, PROMOTED, RETIRED, ROLLED_BACK, ABORTED)

LIVE = frozenset({PROGRESSING, PAUSED})
"""Phases in which the rollout can still go either way."""

QUALITY, ERRORS, INVALID, LATENCY = "quality", "error_rate", "invalid_rate", "p95_latency"
COST, VALUE, ANSWERS = "cost", "value", "answers"
METRICS = (QUALITY, ERRORS, INVALID, LATENCY, COST, VALUE, ANSWERS)
"""Metrics of criteria, see docs/rollouts.md."""

GOOD = frozenset({QUALITY, VALUE})
"""Metrics of which more is better."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """What one metric must show.

    `tolerance`: the rollout is stopped once the candidate is shown to be worse than the stable
    version by more. `margin`: a step ends once it is shown to be worse by less. Both are in the
    metric's unit, of `p95_latency` and `cost` as a share of the stable version's. `limit`: an
    absolute bound on the candidate. `share`: its part of the chance of a false rollback.
    """

    metric: str
    tolerance: float = 0.0
    margin: float | None = None
    limit: float | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `weight` until `pause_s` has passed (None: until a person resumes it).

    `analysis`: whether the criteria must be met before it ends.
    """

    weight: float
    pause_s: float | None = 0.0
    analysis: bool = True


@dataclass(frozen=True, slots=True)
class Mirror:
    """How requests are mirrored: the share, the budget per hour in dollars, calls at once."""

    share: float = 0.1
    budget_nano_per_h: int | None = None
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """A rollout as it is configured.

    `sticky`: `request`, `tenant` or a header's name. `alpha`: the chance of a false rollback,
    however long it lasts. `failure_limit`: how many failed analyses are forgiven. `inconclusive`:
    what to do after `max_s`: `pause`, `abort` or `promote`. `smoke`: (path, body) of requests that
    a blue-green candidate must answer first. `starts`: by itself, if it never ran.
    `identity`: what both versions are; a state of other versions is none of this rollout's.
    """

    name: str
    backend: str
    candidate: str
    strategy: str = CANARY
    routes: tuple[str, ...] = ()
    sticky: str = "request"
    steps: tuple[Step, ...] = (Step(0.1), Step(0.5), Step(1.0))
    criteria: tuple[Criterion, ...] = ()
    min_s: float = 0.0
    max_s: float = 7 * 86_400.0
    keep_s: float = 600.0
    alpha: float = 0.05
    failure_limit: int = 0
    inconclusive: str = PAUSED
    samples_min: int = 30
    smoke: tuple[tuple[str, str], ...] = ()
    mirror: Mirror | None = None
    starts: bool = False
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """What is known of one metric.

    `difference` is candidate minus stable, with its interval [low, high], in the unit of the
    criterion. `log_evidence`: the logarithm of the evidence that the candidate is worse than
    tolerated; it may exceed log(1 / alpha) by chance only with probability alpha. `over_limit`:
    the same of the absolute limit. `keys`: how many groups of keys (of 64) the candidate has
    answered. `met`: it is shown to be worse by no more than the criterion's margin.
    """

    metric: str
    stable: float
    candidate: float
    stable_count: int
    candidate_count: int
    difference: float
    low: float
    high: float
    log_evidence: float = 0.0
    over_limit: float = 0.0
    keys: int = 0
    met: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a decision uses.

    `broken`: why the candidate is out of service; empty if it is not. `smoke`: "" if the smoke
    requests were answered, the reason if not, None if they have not been made. `behind`: gateway
    processes that have not applied the present state yet.
    """

    measures: dict[str, Measure] = field(default_factory=dict)
    broken: str = ""
    smoke: str | None = None
    behind: int = 0


@dataclass(frozen=True, slots=True)
class RolloutState:
    """Where a rollout is.

    `run` names this start of it, `salt` decides which keys see the candidate. `since_s`: when the
    step began. `waited`: a person has ended the step's pause. `epoch` counts the restarts of the
    evidence. `number` counts the moves; it orders states of one run.
    """

    name: str
    run: str
    salt: str
    phase: str = PROGRESSING
    step: int = 0
    weight: float = 0.0
    started_s: float = 0.0
    since_s: float = 0.0
    deadline_s: float = 0.0
    ended_s: float | None = None
    waited: bool = False
    failures: int = 0
    epoch: int = 0
    number: int = 0
    why: str = ""
    by: str = ""
    waiting: tuple[str, ...] = ()
    identity: str = ""

    def document(self) -> dict[str, Any]:
        """Return the state as JSON types."""
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> "RolloutState":
        """Return a state from its document, without fields of other versions of the gateway."""
        known = {one.name for one in fields(cls)}
        values = {key: value for key, value in document.items() if key in known}
        return cls(**{**values, "waiting": tuple(values.get("waiting", ()))})

    @property
    def is_live(self) -> bool:
        """Whether it can still go either way."""
        return self.phase in LIVE

    @property
    def is_watched(self) -> bool:
        """Whether evidence against the candidate still counts."""
        return self.phase in LIVE or self.phase == PROMOTED


@dataclass(frozen=True, slots=True)
class Move:
    """A change of state: its kind, the new state and why."""

    kind: str
    state: RolloutState
    why: str
