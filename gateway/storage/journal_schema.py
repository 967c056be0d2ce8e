"""The members of the journal's rows: what scripts/generate-journal-schema publishes.

A row is one JSON object on a line. Later versions add members, so readers ignore those that they do
not know. The published JSON Schema and docs/journal.md are generated from these classes.
"""

from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic needs it before Python 3.12
)

from pydantic import Field
from typing_extensions import TypedDict

Id = Annotated[str, Field(description="Id of the request, as in `x-tollway-decision`.")]
Time = Annotated[float, Field(description="When it was written, in seconds since 1970.")]
Since = Annotated[
    float, Field(description="Start of the stretch that ends at `time`, in seconds since 1970.")
]
RowId = Annotated[str, Field(description="Id of the row; it belongs to no request.")]
Chance = Annotated[float, Field(ge=0, le=1 + 1e-9)]
Nano = Annotated[int, Field(ge=0, description="In billionths of a dollar.")]
Said = Annotated[float | None, Field(ge=0, le=1)]


class Line(TypedDict):
    """What every row has."""

    v: Annotated[int, Field(description="Version of the members' names.")]
    crc: Annotated[str, Field(description="CRC-32 of the line before this member, in hexadecimal.")]


class Head(Line):
    """What the rows of a request have."""

    id: Id
    time: Time
    route: str
    tenant: str
    tags: Annotated[dict[str, str], Field(description="Tags of the request.")]


class DecisionRow(Head):
    """A draw of a backend. A cascade has one for each stage."""

    kind: Literal["decision"]
    stage: Annotated[int, Field(ge=0, description="0, and in a cascade 1 for the second draw.")]
    arm: Annotated[str, Field(description="The arm drawn; `accept` keeps a cascade's reply.")]
    propensity: Annotated[Chance, Field(description="Probability with which it was drawn.")]
    arms: Annotated[list[str], Field(description="The arms offered; lists below have this order.")]
    pmf: Annotated[list[Chance], Field(description="Their probabilities; they sum to 1.")]
    quality_hat: Annotated[list[float], Field(description="Their predicted qualities.")]
    cost_hat_usd: Annotated[list[float], Field(description="Their quoted costs, in dollars.")]
    shadow_price: Annotated[float, Field(description="Quality that a dollar is worth.")]
    reason: Annotated[str, Field(description="Why it was drawn.")]
    redrawn: Annotated[bool, Field(description="Whether a budget refused an arm drawn before.")]
    policy_version: Annotated[int, Field(description="Updates of the policy before the draw.")]
    dense: Annotated[list[float], Field(description="Numeric features.")]
    sparse: Annotated[
        list[tuple[int, float]], Field(description="Hashed features: pairs of index and value.")
    ]
    reply: Annotated[list[float], Field(description="Features of the reply that a cascade has.")]
    held: Annotated[str, Field(description="The backend of that reply, empty without one.")]
    shadow: NotRequired[Annotated[list[float], Field(description="Chances of a policy on trial.")]]
    reached: NotRequired[Annotated[float, Field(description="Probability of getting here.")]]
    reached_most: NotRequired[Annotated[float, Field(description="Upper bound of `reached`.")]]
    unit: NotRequired[
        Annotated[float, Field(description="Place of the user in a rollout, 0 to 1.")]
    ]
    guarded_by: NotRequired[Annotated[str, Field(description="The guard that changed the draw.")]]
    left_out: NotRequired[
        Annotated[dict[str, str], Field(description="Backends not offered, and why.")]
    ]
    cached: NotRequired[Annotated[dict[str, Any], Field(description="The kept answer given.")]]
    refresh: NotRequired[Annotated[bool, Field(description="A kept answer was made again.")]]
    cached_hat: NotRequired[
        Annotated[list[int], Field(description="Input tokens expected in each prompt cache.")]
    ]
    paced_by: NotRequired[Annotated[list[str], Field(description="Budgets that set the price.")]]
    unpaced: NotRequired[Annotated[str, Field(description="The best arm without that price.")]]
    refused_by: NotRequired[Annotated[str, Field(description="The budget that refused the arm.")]]
    refused_for: NotRequired[Annotated[str, Field(description="Why it did.")]]
    features: NotRequired[Annotated[Any, Field(description="What was looked up in stores.")]]


class AttemptRow(Head):
    """A call of a backend. Units of usage that have a price stand beside the tokens, by name."""

    kind: Literal["attempt"]
    attempt: Annotated[int, Field(ge=0, description="Its number within the request, from 0.")]
    backend: Annotated[str, Field(description="The backend called.")]
    fallback: Annotated[bool, Field(description="Whether an earlier call had failed.")]
    status: Annotated[int, Field(description="HTTP status; 0 without a reply.")]
    error: Annotated[str, Field(description="Why it failed; empty if it did not.")]
    cost_nano: Annotated[Nano, Field(description="What it cost, in billionths of a dollar.")]
    provenance: Annotated[str, Field(description="Where the cost comes from, such as `usage`.")]
    expected_nano: Annotated[Nano, Field(description="The expected cost quoted before it.")]
    ceiling_nano: Annotated[
        int | None, Field(description="The highest possible cost quoted before it.")
    ]
    reserved_nano: Annotated[dict[str, int], Field(description="What each budget held for it.")]
    latency_s: Annotated[float, Field(ge=0, description="Its duration in seconds.")]
    answer: NotRequired[
        Annotated[
            Any,
            Field(description="The answer as labels see it; null if too large, absent if erased."),
        ]
    ]
    no_answer: NotRequired[Annotated[str, Field(description="Why a reply is no answer.")]]
    device_s: NotRequired[Annotated[float, Field(description="Seconds of a device.")]]
    input_tokens: NotRequired[Annotated[float, Field(description="Tokens read.")]]
    cached_input_tokens: NotRequired[Annotated[float, Field(description="Of these, cached.")]]
    output_tokens: NotRequired[Annotated[float, Field(description="Tokens written.")]]
    service_tier: NotRequired[Annotated[str, Field(description="The tier that served it.")]]
    guessed: NotRequired[Annotated[list[str], Field(description="Units that have no price.")]]
    abandoned: NotRequired[Annotated[str, Field(description="Why it was given up.")]]
    charged_by: NotRequired[Annotated[str, Field(description="The rule that charged it.")]]
    output_limit: NotRequired[
        Annotated[int, Field(description="The token limit that the gateway put in.")]
    ]
    hedge_s: NotRequired[Annotated[float, Field(description="When a hedge began, in seconds.")]]
    audit: NotRequired[
        Annotated[float, Field(description="Probability of a call made to learn, not to answer.")]
    ]
    signal: NotRequired[Annotated[str, Field(description="The signal that it was made for.")]]
    shadow: NotRequired[Annotated[str, Field(description="The rollout that it was made for.")]]


class SettlementRow(AttemptRow):
    """The end of a stream, with its final cost; its attempt's row has cost 0."""

    kind: Literal["settlement"]  # type: ignore[misc] # the members are the same


class FeedbackRow(Line):
    """A label of a decision."""

    kind: Literal["feedback"]
    id: Id
    time: Time
    route: str
    tenant: str
    by: Annotated[str, Field(description="Who sent it.")]
    quality: Annotated[Said, Field(description="Quality of the reply given; null if unknown.")]
    known: Annotated[
        dict[str, Said], Field(description="Quality of each backend's reply that it scores.")
    ]
    label: NotRequired[Annotated[Any, Field(description="The label as sent; absent if erased.")]]
    source: Annotated[str | None, Field(description="Where the label comes from.")]
    probability: Annotated[Chance, Field(description="Probability with which it was asked for.")]


class SignalRow(Line):
    """Scores of a decision's replies that are no labels."""

    kind: Literal["signal"]
    id: Id
    time: Time
    route: str
    tenant: str
    by: str
    source: str
    scores: Annotated[dict[str, dict[str, float]], Field(description="By backend and signal.")]
    estimates: Annotated[
        dict[str, tuple[float, float]], Field(description="Quality and belief, by backend.")
    ]


class DeviceRow(Line):
    """What a device cost in a stretch of time."""

    kind: Literal["device"]
    id: RowId
    time: Time
    device: str
    since: Since
    backends: list[str]
    usd_per_hour: float
    bill_nano: Nano
    busy_s: Annotated[float, Field(ge=0)]
    concurrency: float
    idle: Any


class ReplicasRow(Line):
    """What a backend's replicas cost in a stretch of time."""

    kind: Literal["replicas"]
    id: RowId
    time: Time
    backend: str
    since: Since
    replica_s: float
    busy_s: float
    cost_nano: Nano


class ChangeRow(Line):
    """A change of a budget by an operator; it has the parameters of its action besides."""

    kind: Literal["change"]
    time: Time
    budget: str
    action: str


KINDS = (
    DecisionRow,
    AttemptRow,
    SettlementRow,
    FeedbackRow,
    SignalRow,
    DeviceRow,
    ReplicasRow,
    ChangeRow,
)
