"""The table of an event: a period in which more requests than usual will come."""

from typing import Self

from pydantic import AwareDatetime, Field, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Float, Name


class EventConfig(ConfigTable):
    """A period of more calls than usual, such as a sale."""

    name: Name = Field(description="Name of the event.", examples=["black-friday"])
    start: AwareDatetime = Field(
        description="Start, with a time zone.", examples=["2026-11-27T00:00:00+01:00"]
    )
    end: AwareDatetime = Field(
        description="End, with a time zone.", examples=["2026-11-28T00:00:00+01:00"]
    )
    factor: Float = Field(
        gt=1,
        le=1000,
        description="The expected calls, as a multiple of the forecast. Until there is a forecast, "
        "a multiple of the present calls, until the event begins.",
        examples=[4],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end <= self.start:
            raise KeyProblem("end", "is not after start; write a later time")
        return self


class RouteEventConfig(EventConfig):
    """A period of more requests than usual, such as a sale, that budgets and scaling know of."""

    routes: tuple[Name, ...] = Field(
        default=(),
        max_length=1000,
        description="Names of the routes that get more requests. Default: all.",
        examples=[["shop"]],
    )
