"""The base class of all configuration tables."""

from typing import ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
)


class ConfigTable(BaseModel):
    """Base of all tables: unknown keys are rejected, and values are immutable."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ()
    """Keys that a reload cannot change; `*` stands for all."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def of(self, *keys: str) -> tuple[object, ...]:
        """Return the values of some keys, to compare them with another configuration's."""
        return tuple([getattr(self, key) for key in keys])
