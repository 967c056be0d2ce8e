"""A scenario: `SCENARIO.toml` as typed, frozen tables.

A route, its backends and its budgets are written as in `tollway.toml`. Beside them is what a
gateway cannot know: each backend's true quality and latency, the requests, and the changes.
`scenario_file` reads it.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from tollway.gateway.settings import BudgetConfig, ConfigTable
from tollway.gateway.settings.types import (
    Float,
    FreeTable,
    Int,
    LocalPath,
    Name,
    PolicyName,
    PriceTable,
    Seconds,
    Share,
    Usd,
)

ROUTE = "route"  # a scenario has one route only
REQUESTS_MAX = 20_000_000  # their results take 3 GB

ByClass = Share | dict[Name, Share]
Hours = Annotated[Float, Field(ge=0, le=24 * 366)]
Positive = Annotated[Float, Field(gt=0, le=1e9)]


class Burst(ConfigTable):
    """A period of more requests, from all tenants or from one."""

    at_h: Hours = Field(description="Start, in hours from the scenario's start.", examples=[9.0])
    for_h: Positive = Field(description="Duration in hours.", examples=[2.0])
    times: Positive = Field(
        description="Multiple of the usual request rate. With `tenant`, that tenant sends this "
        "multiple of all tenants' usual rate in addition.",
        examples=[10],
    )
    tenant: Name | None = Field(
        default=None, description="Tenant that sends the requests. Default: all tenants."
    )


class Workload(ConfigTable):
    """The requests: their rate, their tenants, their content."""

    requests_per_day: Positive = Field(
        default=100_000, description="Number of requests on a usual day."
    )
    arrivals: Literal["poisson", "diurnal", "journal"] = Field(
        default="poisson",
        description="Arrival times: a Poisson process, one with a daily peak, or those of a "
        "journal.",
    )
    swing: Share = Field(
        default=0.6, description="Amplitude of `diurnal`, as a share of the mean rate."
    )
    peak_hour: Annotated[Float, Field(ge=0, lt=24)] = Field(
        default=14, description="Hour of the day at which `diurnal` peaks."
    )
    journal: LocalPath | None = Field(
        default=None,
        description="Folder of the journal to take arrival times from.",
        examples=["yesterday/journal"],
    )
    bursts: tuple[Burst, ...] = Field(default=(), description="Periods of more requests.")
    tenants: Int = Field(
        default=1, ge=1, le=10_000, description="Number of tenants; they are named t1, t2, ..."
    )
    zipf: Annotated[Float, Field(ge=0, le=5)] = Field(
        default=1.1,
        description="Exponent of the tenants' Zipf distribution: tenant k sends requests in "
        "proportion to 1 / k^zipf.",
    )
    classes: dict[Name, Positive] = Field(
        default={"all": 1.0},
        min_length=1,
        description="Classes of requests with their relative frequencies.",
        examples=["{ easy = 0.7, hard = 0.3 }"],
    )
    unclear: Share = Field(
        default=0.1, description="Share of requests that the policy sees under another class."
    )
    prompt_tokens: Positive = Field(
        default=300, description="Median length of a prompt, in tokens."
    )
    prompt_spread: Annotated[Float, Field(ge=0, le=3)] = Field(
        default=0.7, description="Standard deviation of the logarithm of a prompt's length."
    )
    table: LocalPath | None = Field(
        default=None,
        description="Table of each backend's quality and cost, request by request: JSON lines of "
        '{"group", "prompt", "q": {backend: quality}, "c": {backend: dollars}}.',
        examples=["requests.jsonl"],
    )


class Announced(ConfigTable):
    """An event that the gateways know of in advance."""

    at_h: Hours = Field(description="Start, in hours from the scenario's start.", examples=[9.0])
    for_h: Positive = Field(description="Duration in hours.", examples=[6.0])
    times: Float = Field(
        gt=1, le=1000, description="The expected multiple of the usual request rate.", examples=[10]
    )


class Labels(ConfigTable):
    """Feedback on answers: its share, delay and errors."""

    share: Share = Field(default=0.1, description="Share of answers that get feedback.")
    delay_s: Annotated[Float, Field(ge=0, le=30 * 86_400)] = Field(
        default=2.0, description="Median delay of feedback, in seconds."
    )
    delay_spread: Annotated[Float, Field(ge=0, le=3)] = Field(
        default=0.5, description="Standard deviation of the logarithm of the delay."
    )
    wrong: Share = Field(default=0.0, description="Share of feedback that is false.")
    liar: Name | None = Field(default=None, description="Tenant that only sends false feedback.")


class Route(ConfigTable):
    """The route, as in `tollway.toml`."""

    objective: Literal["max_quality", "min_cost", "value"] = Field(
        default="max_quality", description="As a route's `objective`."
    )
    accuracy_floor: Share | None = Field(
        default=None, description="As a route's `accuracy_floor`.", examples=[0.9]
    )
    value_per_correct_usd: Positive | None = Field(
        default=None, description="As a route's `value_per_correct_usd`.", examples=[0.01]
    )
    baseline: Name | None = Field(
        default=None, description="As a route's `baseline`.", examples=["large"]
    )
    policy: PolicyName = Field(default="lagrangian", description="As a route's `policy`.")
    policy_options: FreeTable = Field(
        default_factory=dict, description="As a route's `policy_options`."
    )
    cascade: bool = Field(default=False, description="As a route's `cascade`.")
    fallback: bool = Field(default=True, description="As a route's `fallback`.")
    timeout_s: Seconds = Field(default=30, description="As a route's `timeout_s`.")


class Backend(ConfigTable):
    """A backend: the gateway's configuration of it, and its true behaviour."""

    name: Name = Field(description="Name of the backend.", examples=["large"])
    kind: Literal["gpu", "cpu", "api", "rules"] = Field(
        default="cpu", description="What the backend runs on."
    )
    price: PriceTable = Field(
        min_length=1,
        description="As a backend's `price`.",
        examples=["{ per_request_usd = 0.0001 }"],
    )
    declared_accuracy: Share | None = Field(
        default=None, description="As a backend's `declared_accuracy`.", examples=[0.9]
    )
    timeout_s: Seconds = Field(default=30, description="As a backend's `timeout_s`.")
    quality: ByClass = Field(
        default=0.9,
        description="True share of right answers: one value, or one for each class.",
        examples=["{ easy = 0.95, hard = 0.6 }"],
    )
    slope: Share = Field(
        default=0.0, description="Loss of quality per standard deviation of hardness."
    )
    latency_s: Positive = Field(default=0.05, description="Median latency of a call, in seconds.")
    latency_spread: Annotated[Float, Field(ge=0, le=3)] = Field(
        default=0.3, description="Standard deviation of the logarithm of the latency."
    )
    latency_quantiles_s: tuple[Positive, ...] = Field(
        default=(),
        max_length=1001,
        description="Quantiles of the latency at equal steps of probability, from the shortest to "
        "the longest, in seconds. They take the place of `latency_s` and `latency_spread`.",
        examples=[[0.01, 0.02, 0.05]],
    )
    latency_per_1k_tokens_s: Annotated[Float, Field(ge=0, le=3600)] = Field(
        default=0.0, description="Additional latency per thousand tokens of the prompt, in seconds."
    )
    output_tokens: Annotated[Float, Field(ge=0, le=1e6)] = Field(
        default=0.0, description="Median number of output tokens."
    )
    output_spread: Annotated[Float, Field(ge=0, le=3)] = Field(
        default=0.5, description="Standard deviation of the logarithm of the output tokens."
    )
    servers: Int = Field(
        default=64, ge=1, le=100_000, description="Number of calls processed at once."
    )
    queue: Int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Number of calls that may wait; further calls get status 503.",
    )
    from_h: Hours = Field(
        default=0.0, description="When it is added to the route, in hours from the start."
    )


class Change(ConfigTable):
    """An event in the scenario."""

    at_h: Hours = Field(description="Time of the change, in hours from the start.", examples=[8.0])
    says: str = Field(default="", max_length=60, description="Name of the change in reports.")
    backend: Name | None = Field(default=None, description="The backend that changes.")
    price: PriceTable | None = Field(
        default=None, description="Its new price, which the gateways are told."
    )
    quality: ByClass | None = Field(
        default=None, description="Its new quality, which the gateways are not told."
    )
    latency_times: Positive | None = Field(
        default=None, description="Its latency from now on, as a multiple of `latency_s`."
    )
    up: bool | None = Field(default=None, description="Whether it can be reached.")
    errors: Share | None = Field(default=None, description="Share of its calls that fail.")
    budget: Name | None = Field(default=None, description="The budget that changes.")
    limit_usd: Usd | None = Field(default=None, description="Its new limit.", examples=[5.0])
    cut: tuple[Int, ...] | None = Field(
        default=None,
        description="Gateways, counted from 0, that cannot reach the ledger from now on.",
        examples=[[1]],
    )


class Scenario(ConfigTable):
    """A complete scenario. Read one with `load`."""

    name: Name = Field(description="Name of the scenario.")
    about: str = Field(default="", max_length=500, description="One or two sentences about it.")
    start: datetime = Field(
        default=datetime(2026, 3, 2, tzinfo=UTC),
        description="Start of the simulated time; budgets' windows follow the calendar.",
        examples=["2026-03-02T00:00:00Z"],
    )
    hours: Positive = Field(default=24.0, description="Duration in hours.")
    seed: Int = Field(default=1, ge=0, le=1 << 31, description="Random seed.")
    gateways: Int = Field(
        default=1,
        ge=1,
        le=16,
        description="Number of gateways; they share the ledger and get equal shares of the "
        "requests.",
    )
    ledger_ms: Annotated[Float, Field(ge=0, le=60_000)] = Field(
        default=0.0, description="Round-trip time to the ledger, in milliseconds."
    )
    pacing_interval_s: Seconds = Field(
        default=1.0,
        description="Interval of pacing and lease renewal, in seconds; the default is that of "
        "production. Longer intervals make long scenarios run faster.",
    )
    workload: Workload = Field(default=Workload(), description="The requests.")
    labels: Labels = Field(default=Labels(), description="The feedback.")
    route: Route = Field(default=Route(), description="The route and its policy.")
    backends: tuple[Backend, ...] = Field(min_length=1, max_length=32, description="The backends.")
    budgets: tuple[BudgetConfig, ...] = Field(
        default=(), description="The budgets, as in `tollway.toml`."
    )
    events: tuple[Announced, ...] = Field(
        default=(), max_length=64, description="Events that the gateways know of, as `[[events]]`."
    )
    changes: tuple[Change, ...] = Field(default=(), description="Changes during the scenario.")

    @property
    def start_s(self) -> float:
        """When it starts, in seconds since the epoch."""
        aware = self.start if self.start.tzinfo else self.start.replace(tzinfo=UTC)
        return aware.timestamp()

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.hours * 3600.0


def settings_document(scenario: Scenario) -> dict[str, Any]:
    """Return the configuration of the scenario's gateways, as a `tollway.toml` document."""
    route = scenario.route.model_dump(exclude_none=True)
    context = {"numeric": ["x"], "categorical": ["kind"]}
    if scenario.workload.table is not None:
        context = {"text": ["prompt"]}
    return {
        "routes": [
            {
                **route,
                "name": ROUTE,
                "path": "/",
                "protocol": "plain",
                "backends": [backend.name for backend in scenario.backends],
                "context": context,
            }
        ],
        "backends": [
            {
                "name": backend.name,
                "kind": "cpu",
                "protocol": "plain",
                "url": "http://127.0.0.1:9",  # nothing is sent there: the simulation answers
                "price": backend.price,
                "timeout_s": backend.timeout_s,
                **(
                    {"declared_accuracy": backend.declared_accuracy}
                    if backend.declared_accuracy is not None
                    else {}
                ),
            }
            for backend in scenario.backends
        ],
        "budgets": [budget.model_dump() for budget in scenario.budgets],
        "events": [
            {
                "name": f"event-{number + 1}",
                "start": datetime.fromtimestamp(scenario.start_s + one.at_h * 3600, UTC),
                "end": datetime.fromtimestamp(
                    scenario.start_s + (one.at_h + one.for_h) * 3600, UTC
                ),
                "factor": one.times,
            }
            for number, one in enumerate(scenario.events)
        ],
        "server": {"allow_anonymous": True},
    }
