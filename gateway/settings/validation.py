"""The table of a clause: what one place in a request or a reply must hold."""

from typing import Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from tollway.backends import validation
from tollway.backends.json_path import compile_path
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Float, Int


class ConstraintConfig(ConfigTable):
    """What one place of a request, or of a reply, must hold."""

    at: str | None = Field(
        default=None,
        description="The place: a path into the document.",
        examples=["inputs[0].data"],
    )
    tensor: str | None = Field(
        default=None,
        description="Or, for `oip`, the name of a tensor, of which `type`, `range`, `length` and "
        "`one_of` bind the elements.",
        examples=["image"],
    )
    type: Literal["number", "integer", "text", "boolean", "list", "object"] | None = Field(
        default=None, description="What is there."
    )
    datatype: str | None = Field(
        default=None, description="A tensor's datatype.", examples=["FP32"]
    )
    shape: tuple[Int, ...] | None = Field(
        default=None, description="A tensor's shape; -1 stands for any length.", examples=[[-1, 64]]
    )
    range: tuple[Float, Float] | None = Field(
        default=None,
        description="Between what all numbers there lie, in lists too.",
        examples=[[0, 16]],
    )
    length: tuple[Int, Int] | None = Field(
        default=None,
        description="How many elements or characters there are, from and to.",
        examples=[[1, 64]],
    )
    one_of: tuple[str | bool | int | float, ...] = Field(
        default=(), description="The values that may be there.", examples=[["cat", "dog"]]
    )
    optional: bool = Field(default=False, description="Whether it may be missing or null.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.at is None) == (self.tensor is None):
            raise KeyProblem("at", "or `tensor` says what place it is; write one of the two")
        if self.tensor is None and (self.datatype or self.shape is not None):
            raise KeyProblem("tensor", "is what has a datatype and a shape; name one, not a path")
        if self.at is not None:
            try:
                compile_path(self.at)
            except ValueError as exc:
                raise KeyProblem("at", str(exc)) from None
        for name in ("range", "length"):
            span = getattr(self, name)
            if span is not None and not span[0] <= span[1]:
                raise KeyProblem(name, "must go from the lesser to the greater")
        return self

    def to_clause(self) -> validation.Constraint:
        """Return the clause."""
        return validation.Constraint(
            at=self.at or "",
            tensor=self.tensor or "",
            kind=self.type,
            datatype=self.datatype,
            shape=self.shape,
            range=self.range,
            length=self.length,
            one_of=self.one_of,
            optional=self.optional,
        )
