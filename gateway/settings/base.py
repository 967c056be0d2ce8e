"""The base class of all configuration tables."""

from pydantic import (
    BaseModel,
    ConfigDict,
)


class ConfigTable(BaseModel):
    """Base of all tables: unknown keys are rejected, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
