"""The storage tables: the ledger, the journal and learned state."""

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
    """The ledger: the authority on what each budget has spent and leased."""

    url: LedgerUrl = Field(
        default="sqlite:///tollway.db",
        validate_default=True,
        description="Store of the ledger: `sqlite:///FILE` (relative to this file; four slashes "
        "for an absolute path), `redis://HOST:PORT/DB`, `rediss://...` (TLS), `unix:///SOCKET` "
        "(Redis), or `memory://` (lost on exit).",
        examples=["sqlite:///tollway.db"],
    )
    password: SecretStr | None = Field(
        default=None,
        description="Redis password. Prefer the environment variable `TOLLWAY_LEDGER__PASSWORD`.",
    )
    on_ledger_failure: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="What happens when the ledger is unreachable and the leased amount is spent: "
        "`refuse` rejects requests, `allow` serves them and records the cost.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.password is not None and self.url.startswith(("sqlite:", "memory:")):
            raise KeyProblem("password", "is for Redis only; remove it, or change url")
        return self


class JournalConfig(ConfigTable):
    """The append-only record of decisions, attempts and feedback."""

    dir: LocalPath = Field(
        default=Path(".tollway/journal"),
        validate_default=True,
        description="Directory of the journal files.",
    )
    fsync_s: Seconds = Field(
        default=1.0,
        description="Interval between fsyncs. A power failure loses at most this much.",
    )
    segment_mb: Megabytes = Field(
        default=256, description="Size at which a new segment file is started."
    )
    waiting_mb: Megabytes = Field(
        default=32,
        description="Memory for rows that wait while the disk refuses writes. Above it, rows are "
        "dropped.",
    )


class StateConfig(ConfigTable):
    """Storage of learned state across restarts."""

    dir: LocalPath = Field(
        default=Path(".tollway/state"),
        validate_default=True,
        description="Directory of the state files.",
    )
    interval_s: Seconds = Field(
        default=30, description="Interval between saves. State is also saved on exit."
    )
