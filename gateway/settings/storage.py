"""The tables of what is kept: the ledger, the journal, what was learned."""

from pathlib import Path
from typing import Literal, Self

from pydantic import (
    Field,
    SecretStr,
    model_validator,
)

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import LedgerUrl, LocalPath, Megabytes, Seconds


class LedgerConfig(ConfigTable):
    """The authority that knows what each budget has spent and leased."""

    url: LedgerUrl = Field(
        default="sqlite:///tollway.db",
        validate_default=True,
        description="`sqlite:///FILE` (relative to this file; four slashes for an absolute path), "
        "`redis://HOST:PORT/DB`, `rediss://...` (TLS), `unix:///SOCKET` (Redis), or `memory://` "
        "(forgets on exit).",
        examples=["sqlite:///tollway.db"],
    )
    password: SecretStr | None = Field(
        default=None, description="Redis' password; better set as `TOLLWAY_LEDGER__PASSWORD`."
    )
    on_ledger_failure: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="What happens once the ledger is unreachable and what was leased is spent: "
        "refuse (`refuse`), or go on and record (`allow`).",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.password is not None and self.url.startswith(("sqlite:", "memory:")):
            raise KeyProblem("password", "is for Redis only; remove it, or change url")
        return self


class JournalConfig(ConfigTable):
    """The append-only record of decisions, attempts and feedback."""

    dir: LocalPath = Field(
        default=Path(".tollway/journal"), validate_default=True, description="Where its files are."
    )
    fsync_s: Seconds = Field(
        default=1.0,
        description="How often it is forced to disk: the most that a power cut can take.",
    )
    segment_mb: Megabytes = Field(default=256, description="Size at which a new file is begun.")
    waiting_mb: Megabytes = Field(
        default=32,
        description="Most kept in memory while the disk refuses writes; above it, rows drop.",
    )


class StateConfig(ConfigTable):
    """Where learned state is kept across restarts."""

    dir: LocalPath = Field(
        default=Path(".tollway/state"), validate_default=True, description="Where its files are."
    )
    interval_s: Seconds = Field(default=30, description="How often it is saved, besides on exit.")
