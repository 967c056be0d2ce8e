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
    """A key with an expiry date, such as one that is being replaced."""

    hash: KeyHash = Field(
        description="The hash of the key, as printed by `tollway keys new`.",
        examples=["sha256:<64 hex digits>"],
    )
    expires: AwareDatetime = Field(
        description="Time from which the key is refused.", examples=["2027-01-31T00:00:00Z"]
    )


class TenantRateConfig(ConfigTable):
    """Rate limits of the tenant; above one, 429 with Retry-After. Workers share them equally."""

    requests_per_s: float | None = Field(
        default=None, gt=0.0, le=1e6, description="Maximum requests per second."
    )
    burst: float | None = Field(
        default=None,
        ge=1.0,
        le=1e6,
        description="Maximum burst of requests. Default: the requests of one second.",
    )
    usd_per_s: float | None = Field(
        default=None,
        gt=0.0,
        le=1e6,
        description="Maximum spend in dollars per second, averaged over a few seconds. For an "
        "exact limit use a budget.",
    )
    feedback_per_s: float | None = Field(
        default=None,
        gt=0.0,
        le=1e6,
        description="Maximum labels per second, with a burst of ten seconds' worth. Default: "
        "`server.feedback_per_s`.",
    )


class TenantConfig(ConfigTable):
    """A client of the gateway, identified by its key."""

    name: Name = Field(description="Name of the tenant in budgets, metrics and reports.")
    key_hash: KeyHash | None = Field(
        default=None,
        description="The hash of the tenant's key, as printed by `tollway keys new`.",
        examples=["sha256:<64 hex digits>"],
    )
    key_hashes: tuple[KeyHash, ...] = Field(
        default=(), description="Several key hashes, for the time while a key is being replaced."
    )
    keys: tuple[TenantKeyConfig, ...] = Field(default=(), description="Keys with an expiry date.")
    routes: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Routes that the tenant may call. Default: all."
    )
    rate: TenantRateConfig | None = Field(default=None, description="Rate limits of the tenant.")
    labeller: bool = Field(
        default=False,
        description="Whether the tenant's labels are trusted. Trusted labels count in full, "
        'regardless of other labels. On routes with `feedback = "labellers"` the tenant may label '
        "every request.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.hashes and not self.keys:
            raise KeyProblem(
                "key_hash", "is missing; write the hash that this prints: tollway keys new"
            )
        return self

    @property
    def hashes(self) -> tuple[str, ...]:
        """The hashes of all keys of the tenant."""
        single = () if self.key_hash is None else (self.key_hash,)
        return tuple(value.get_secret_value() for value in (*single, *self.key_hashes))

    @property
    def ends(self) -> dict[str, float]:
        """The keys that expire, as a map from hash to expiry in seconds since the epoch."""
        return {key.hash.get_secret_value(): key.expires.timestamp() for key in self.keys}
