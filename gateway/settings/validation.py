"""The table of a constraint on one field of a request or a reply."""

from typing import Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from tollway.backends import validation
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Float, Int, JsonPath


class ConstraintConfig(ConfigTable):
    """A constraint on one field of a request or a reply."""

    at: JsonPath | None = Field(
        default=None,
        description="Path of the field in the document.",
        examples=["inputs[0].data"],
    )
    tensor: str | None = Field(
        default=None,
        description="Name of a tensor (`oip` only), instead of `at`. `type`, `range`, `length` and "
        "`one_of` then apply to its elements.",
        examples=["image"],
    )
    type: Literal["number", "integer", "text", "boolean", "list", "object"] | None = Field(
        default=None, description="Required JSON type of the value."
    )
    datatype: str | None = Field(
        default=None, description="Required datatype of the tensor.", examples=["FP32"]
    )
    shape: tuple[Int, ...] | None = Field(
        default=None,
        description="Required shape of the tensor. -1 matches any length.",
        examples=[[-1, 64]],
    )
    range: tuple[Float, Float] | None = Field(
        default=None,
        description="Minimum and maximum of all numbers in the field, including those in lists.",
        examples=[[0, 16]],
    )
    length: tuple[Int, Int] | None = Field(
        default=None,
        description="Minimum and maximum number of elements or characters.",
        examples=[[1, 64]],
    )
    one_of: tuple[str | bool | int | float, ...] = Field(
        default=(), description="Allowed values.", examples=[["cat", "dog"]]
    )
    optional: bool = Field(default=False, description="Whether the field may be missing or null.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.at is None) == (self.tensor is None):
            raise KeyProblem("at", "is required unless `tensor` is set; write exactly one of them")
        if self.tensor is None and (self.datatype or self.shape is not None):
            raise KeyProblem(
                "tensor", "is required with datatype or shape; write it instead of `at`"
            )
        for name in ("range", "length"):
            span = getattr(self, name)
            if span is not None and not span[0] <= span[1]:
                raise KeyProblem(name, "must be [minimum, maximum]; write the smaller number first")
        return self

    def to_clause(self) -> validation.Constraint:
        """Return the constraint."""
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
