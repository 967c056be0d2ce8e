"""The table of the tiers that all groups of features share."""

from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Int


def _redis_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    if parts.password is not None or "passw" in parts.query.lower():
        raise ValueError(
            "must not contain a password; set TOLLWAY_FEATURE_TIERS__REDIS_PASSWORD instead"
        )
    return url


class FeatureTiersConfig(ConfigTable):
    """The tiers between requests and the sources of features."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    redis: Annotated[str, AfterValidator(_redis_url)] | None = Field(
        default=None,
        description="Redis that gateways share: they find each other's look-ups there, and hear of "
        "changed entities. Default: each worker has only its memory. Needs `tollway[redis]`.",
        examples=["redis://10.0.0.5:6379/1"],
    )
    redis_password: SecretStr | None = Field(
        default=None,
        description="Redis password. Prefer `TOLLWAY_FEATURE_TIERS__REDIS_PASSWORD`.",
    )
    warm_entities: Int = Field(
        default=1000,
        ge=0,
        le=100_000,
        description="How many of each group's entities that the journal has most often are loaded "
        "at the start.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.redis_password is not None and self.redis is None:
            raise KeyProblem("redis_password", "applies only with redis; set both or neither")
        return self
