"""The table of the replicas that may be recommended for a backend."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.scaling.action import ActionConfig
from tollway.gateway.settings.scaling.calendar import Replicas, ScheduleConfig
from tollway.gateway.settings.scaling.events import EventConfig
from tollway.gateway.settings.types import Float, Int, Name, Seconds, TimeZone, Usd


class ScalingConfig(ConfigTable):
    """How many replicas are recommended for a backend, or for the gateway itself.

    See [autoscaling](autoscaling.md).
    """

    name: Name = Field(
        description='Name of the backend, or for `kind = "gateway"` any other name.',
        examples=["digits-gpu"],
    )
    kind: Literal["backend", "gateway"] = Field(
        default="backend",
        description="`gateway`: replicas of this gateway. A call is then a request, its duration "
        "the processor time that it takes, and `calls_per_replica` the number of workers.",
    )
    min: Replicas = Field(default=1, description="Minimum number of replicas.")
    max: Replicas = Field(description="Maximum number of replicas.", examples=[8])
    calls_per_replica: Int = Field(
        ge=1,
        le=65_536,
        description="Calls that a replica serves at once without making them slower.",
        examples=[4],
    )
    target_utilization: Float = Field(
        default=0.7,
        gt=0,
        le=0.95,
        description="Target share of these calls that are in progress on average.",
    )
    target_wait_s: Seconds | None = Field(
        default=None,
        description="Target for the mean time that calls wait for a replica, by Erlang's formula. "
        "If omitted, only `target_utilization` counts.",
        examples=[0.2],
    )
    lead_s: Seconds = Field(
        default=120,
        description="Time from the decision to start a replica until it serves calls. The forecast "
        "and the calendar are read that far ahead.",
    )
    scale_up_after_s: Float = Field(
        default=30,
        ge=0,
        le=3600,
        description="Time for which more replicas must be needed before they are recommended. A "
        "spike does not wait for it.",
    )
    scale_down_after_s: Float = Field(
        default=300,
        ge=0,
        le=86_400,
        description="Time for which fewer replicas must be enough before they are recommended.",
    )
    headroom: Float = Field(
        default=-0.3,
        gt=-1,
        le=10,
        description="Share by which the forecast is raised or, below 0, lowered. A forecast is "
        "there to prepare: measured calls ask for the rest.",
        examples=[0.2],
    )
    growth: Float = Field(
        default=0,
        gt=-1,
        le=1,
        description="Share by which calls grow in a week. The forecast is raised by it.",
        examples=[0.05],
    )
    peak: Float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Always keep replicas for the calls of the median hour of the week plus this "
        "share of them, within the bounds.",
        examples=[1.0],
    )
    replica_usd_per_hour: Usd | None = Field(
        default=None,
        le=1_000_000,
        description="What a replica costs in an hour, idle or not. Reports and the dashboard then "
        "show what replicas cost, and `budget` can limit them.",
        examples=[2.5],
    )
    start_wait_s: Float = Field(
        default=0,
        ge=0,
        le=3600,
        description="Longest time that a call waits for the first replica, within its deadline. "
        "0: it fails, or goes to another backend. The time limits of the backend and of its routes "
        "must be longer.",
        examples=[90],
    )
    start_queue: Int = Field(
        default=100, ge=1, le=10_000, description="Maximum number of calls that wait for it."
    )
    wait_usd_per_hour: Float = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="What it costs that a call waits for the first replica, for policies that "
        "compare it with other backends.",
        examples=[3.6],
    )
    budget: Name | None = Field(
        default=None,
        description="Budget that pays for the replicas: no more are recommended than the rest of "
        "it pays for until its window ends. It requires `replica_usd_per_hour`.",
        examples=["gpus"],
    )
    action: ActionConfig | None = Field(
        default=None,
        description="What sets the replicas: see "
        "[commands and webhooks](autoscaling.md#commands-and-webhooks).",
    )
    timezone: TimeZone = Field(
        default="UTC", description="Time zone of `schedule`.", examples=["Europe/Berlin"]
    )
    schedule: tuple[ScheduleConfig, ...] = Field(
        default=(),
        max_length=64,
        description="Bounds at times of the week. The first that applies decides.",
    )
    events: tuple[EventConfig, ...] = Field(
        default=(),
        max_length=64,
        description="Periods of more calls than usual, beside those in `[[events]]`.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max < 1:
            raise KeyProblem("max", "must be at least 1; write it like max = 8")
        if self.budget is not None and not self.replica_usd_per_hour:
            raise KeyProblem(
                "budget", "requires replica_usd_per_hour; write what a replica costs in an hour"
            )
        if self.min > self.max:
            raise KeyProblem("min", "is greater than max; lower it")
        for number, entry in enumerate(self.schedule):
            least = self.min if entry.min is None else entry.min
            most = self.max if entry.max is None else entry.max
            if least > most:
                raise KeyProblem(
                    "schedule", f"[{number}] has a min above its max of {most}; set both in it"
                )
        return self
