"""The tables of tenants: their keys, tags and rates."""

from typing import Self

from pydantic import (
    AwareDatetime,
    Field,
    model_validator,
)

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import KeyHash, Name


class TenantKeyConfig(ConfigTable):
    """A key that ends by itself, as the one that is being replaced."""

    hash: KeyHash = Field(
        description="Its hash, as `tollway keys new` prints it.",
        examples=["sha256:<64 hex digits>"],
    )
    expires: AwareDatetime = Field(
        description="From when on it is refused.", examples=["2027-01-31T00:00:00Z"]
    )


class TenantRateConfig(ConfigTable):
    """How fast the tenant may call; above it, 429 with Retry-After. Workers have equal shares."""

    requests_per_s: float | None = Field(
        default=None, gt=0.0, le=1e6, description="Requests a second."
    )
    burst: float | None = Field(
        default=None, ge=1.0, le=1e6, description="Requests at once; those of a second by default."
    )
    usd_per_s: float | None = Field(
        default=None,
        gt=0.0,
        le=1e6,
        description="Dollars a second, over a few of them; what holds spend exactly is a budget.",
    )
    feedback_per_s: float | None = Field(
        default=None,
        gt=0.0,
        le=1e6,
        description="Labels a second, ten seconds' worth at once; `server.feedback_per_s` by "
        "default.",
    )


class TenantConfig(ConfigTable):
    """Someone who calls, known by a key."""

    name: Name = Field(description="Its name in budgets, metrics and reports.")
    key_hash: KeyHash | None = Field(
        default=None,
        description="The hash of its key, as `tollway keys new` prints it.",
        examples=["sha256:<64 hex digits>"],
    )
    key_hashes: tuple[KeyHash, ...] = Field(
        default=(), description="Several, while a key is being replaced."
    )
    keys: tuple[TenantKeyConfig, ...] = Field(
        default=(), description="Keys that end by themselves."
    )
    routes: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The routes it may call; all, if left out."
    )
    rate: TenantRateConfig | None = Field(default=None, description="How fast it may call.")
    labeller: bool = Field(
        default=False,
        description="Whether its labels are trusted: they count in full, whatever others say, and "
        'on routes with `feedback = "labellers"` it may label every request.',
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.hashes and not self.keys:
            raise KeyProblem("key_hash", "is missing; write what this prints: tollway keys new")
        return self

    @property
    def hashes(self) -> tuple[str, ...]:
        """The hashes of all its keys."""
        single = () if self.key_hash is None else (self.key_hash,)
        return tuple(value.get_secret_value() for value in (*single, *self.key_hashes))

    @property
    def ends(self) -> dict[str, float]:
        """The keys that end by themselves: by hash, when, in seconds since the epoch."""
        return {key.hash.get_secret_value(): key.expires.timestamp() for key in self.keys}
