"""The storage tables: the ledger, the journal and learned state."""

import re
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    model_validator,
)

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Float, Int, LedgerUrl, LocalPath, Megabytes, Seconds

_KEY_CHARS_MIN = 32  # of hex: 128 bits


class LedgerConfig(ConfigTable):
    """The ledger: the authority on what each budget has spent and leased."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    url: LedgerUrl = Field(
        default="sqlite:///tollway.db",
        validate_default=True,
        description="Store of the ledger: `sqlite:///FILE` (relative to this file; four slashes "
        "for an absolute path), `redis://HOST:PORT/DB`, `rediss://...` (TLS), `unix:///SOCKET` "
        "(Redis), or `memory://` (lost on exit). With `?cluster=1` the address is one of a Redis "
        "Cluster.",
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
            raise KeyProblem("password", "applies only to Redis; remove it, or change url")
        return self


class JournalConfig(ConfigTable):
    """The append-only record of decisions, attempts and feedback."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

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
    keep_days: Float | None = Field(
        default=None,
        gt=0,
        le=36_500,
        description="How long rows are kept. Segments with older rows only are removed, never the "
        "one being written: with little traffic, lower `segment_mb`. Default: for ever.",
        examples=[400],
    )
    keep_gb: Float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="Disk space for the segments, in GB. Above it, the oldest are removed, but "
        "none of the last hour. Default: no limit.",
        examples=[50],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.keep_gb is not None and self.keep_gb * 1e9 < 2 * (self.segment_mb << 20):
            why = f"is less than two segments of segment_mb = {self.segment_mb}"
            raise KeyProblem("keep_gb", f"{why}; increase it, or lower segment_mb")
        return self


class StateConfig(ConfigTable):
    """Storage of learned state across restarts."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    dir: LocalPath = Field(
        default=Path(".tollway/state"),
        validate_default=True,
        description="Directory of the state files.",
    )
    interval_s: Seconds = Field(
        default=30, description="Interval between saves. State is also saved on exit."
    )


class CaptureConfig(ConfigTable):
    """Capture of prompts and replies, for judges and embeddings. Off unless `share` is set."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    share: Float = Field(
        default=0.0, ge=0, le=1, description="Share of the requests to capture; 0 captures none."
    )
    dir: LocalPath = Field(
        default=Path(".tollway/captures"),
        validate_default=True,
        description="Directory of the files. Only the gateway's user can read them.",
    )
    budget_mb: Megabytes = Field(
        default=256, description="Disk space for the files. Above it, the oldest are deleted."
    )
    keep_days: Float = Field(
        default=30.0, gt=0, le=3650, description="How long a file is kept, to within an hour."
    )
    max_bytes: Int = Field(
        default=64 << 10,
        ge=1024,
        le=1 << 18,
        description="Requests whose prompt and reply are larger together are not captured.",
    )
    redact: tuple[str, ...] = Field(
        default=(),
        description="Regular expressions. What matches in a text, a name or a number is replaced "
        "by `[redacted]` before it is written. Avoid nested repetitions: they run over what "
        "tenants write.",
        examples=[["[\\w.+-]+@[\\w-]+\\.[\\w.]+"]],
    )
    key: SecretStr | None = Field(
        default=None,
        description="Secret of 32 characters or more with which the files are encrypted "
        "(AES-256-GCM; the extra `capture`). Prefer the environment variable "
        "`TOLLWAY_CAPTURE__KEY`. If omitted, the files are plain.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for pattern in self.redact:
            try:
                re.compile(pattern)
            except re.error as exc:
                raise KeyProblem("redact", f"{pattern!r} is no regular expression: {exc}") from None
        if self.key is not None and len(self.key.get_secret_value()) < _KEY_CHARS_MIN:
            why = f"is shorter than {_KEY_CHARS_MIN} characters"
            raise KeyProblem("key", f"{why}; make one with: openssl rand -hex 32")
        return self
