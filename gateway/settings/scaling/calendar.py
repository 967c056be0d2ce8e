"""The tables of a backend's calendar: its schedule, and its events."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Int, checked

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
REPLICAS_MAX = 10_000
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


def minute_of(text: str) -> int:
    """Return the minute of the day that "HH:MM" names; ValueError if it is not one."""
    if _TIME_OF_DAY.fullmatch(text) is None:
        raise ValueError('must be a time of day; write it like "20:00"')
    return 60 * int(text[:2]) + int(text[3:])


TimeOfDay = Annotated[str, checked(minute_of)]
Replicas = Annotated[Int, Field(ge=0, le=REPLICAS_MAX)]


class ScheduleConfig(ConfigTable):
    """Bounds that replace `min` and `max` at some times of the week, such as nights."""

    days: tuple[Day, ...] = Field(
        default=DAYS,
        min_length=1,
        description="Days on which the period begins.",
        examples=[["sat", "sun"]],
    )
    start: TimeOfDay = Field(
        default="00:00", description="Start of the period, by the local clock.", examples=["20:00"]
    )
    end: TimeOfDay = Field(
        default="00:00",
        description="End of the period. If it is not after `start`, it is on the following day.",
        examples=["07:00"],
    )
    min: Replicas | None = Field(
        default=None, description="Minimum number of replicas in the period.", examples=[0]
    )
    max: Replicas | None = Field(
        default=None, description="Maximum number of replicas in the period.", examples=[2]
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min is None and self.max is None:
            raise KeyProblem("min", "and max are both missing; set one of them")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise KeyProblem("min", "is greater than max; lower it")
        return self
