"""The table of a clause: what one place in a request or a reply must hold."""

from typing import Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from backends.paths import compile_path
from gateway import contract
from gateway.problems import (
    WrongKey,
)
from gateway.settings.fields import (
    Float,
    Int,
)
from gateway.settings.table import Table


class Clause(Table):
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
            raise WrongKey("at", "or `tensor` says what place it is; write one of the two")
        if self.tensor is None and (self.datatype or self.shape is not None):
            raise WrongKey("tensor", "is what has a datatype and a shape; name one, not a path")
        if self.at is not None:
            try:
                compile_path(self.at)
            except ValueError as exc:
                raise WrongKey("at", str(exc)) from None
        for name in ("range", "length"):
            span = getattr(self, name)
            if span is not None and not span[0] <= span[1]:
                raise WrongKey(name, "must go from the lesser to the greater")
        return self

    def to_clause(self) -> contract.Clause:
        """Return the clause."""
        return contract.Clause(
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
