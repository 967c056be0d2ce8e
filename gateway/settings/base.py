"""What all tables of the configuration share."""

from pydantic import (
    BaseModel,
    ConfigDict,
)


class ConfigTable(BaseModel):
    """What all tables share: unknown keys are refused, nothing changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
