"""The tables of the listener: where it listens, its limits, its TLS, who may administer it."""

from typing import Self

from pydantic import (
    Field,
    SecretStr,
    model_validator,
)

from tollway.gateway.security import addresses
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Float, Int, KeyHash, Listener, LocalPath, Megabytes

_ADMIN_KEY_CHARS_MIN = 16  # a key that people think up is guessed; `tollway keys new` makes one


class ListenerTlsConfig(ConfigTable):
    """Files of the listener's TLS, in PEM; read again at every reload."""

    cert: LocalPath = Field(
        description="Its certificate, with those between it and the root.",
        examples=["tls/cert.pem"],
    )
    key: LocalPath = Field(description="The certificate's key.", examples=["tls/key.pem"])
    client_ca: LocalPath | None = Field(
        default=None,
        description="Who vouches for clients: only those with a certificate of theirs are served.",
    )


class ServerConfig(ConfigTable):
    """The listener, its limits, and who may administer it."""

    listen: Listener = Field(
        default="127.0.0.1:8080", description="`HOST:PORT` (port 0: a free one) or `unix:/PATH`."
    )
    tls: ListenerTlsConfig | None = Field(
        default=None, description="Serve over TLS (https); left out, in the clear."
    )
    workers: Int = Field(
        default=1,
        ge=1,
        le=256,
        description="Worker processes, one a core; more than one need a ledger that they share.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Serve callers without a key as tenant `anonymous`: for demos and tests.",
    )
    admin_key: SecretStr | None = Field(
        default=None,
        description="The key of the control plane. Better set from the environment, "
        "`TOLLWAY_SERVER__ADMIN_KEY`, or given as `admin_key_hash`.",
    )
    admin_key_hash: KeyHash | None = Field(
        default=None,
        description="The hash of the control plane's key, as `tollway keys new` prints it.",
        examples=["sha256:<64 hex digits>"],
    )
    viewer_key_hash: KeyHash | None = Field(
        default=None,
        description="The hash of a key that may read all of the control plane, and change nothing: "
        "for dashboards.",
        examples=["sha256:<64 hex digits>"],
    )
    hide_amounts: bool = Field(
        default=False,
        description="Leave dollars out of reply headers and refusals sent to clients.",
    )
    max_body_bytes: Int = Field(
        default=16 << 20, ge=1024, le=1 << 31, description="Largest request body; above it, 413."
    )
    max_reply_bytes: Int = Field(
        default=64 << 20,
        ge=1024,
        le=1 << 31,
        description="Largest reply that is read whole; above it, 502.",
    )
    max_event_bytes: Int = Field(
        default=64 << 20,
        ge=64 << 10,
        le=1 << 30,
        description="Largest event of a stream; above it, that stream ends with an error.",
    )
    stream_buffer_bytes: Int = Field(
        default=256 << 20,
        ge=64 << 10,
        le=1 << 34,
        description="How much memory the unfinished events of all streams may take in each worker; "
        "one tenant gets half of it, and always room for one event of `max_event_bytes`. A stream "
        "that needs more ends with an error.",
    )
    max_header_bytes: Int = Field(
        default=32 << 10, ge=1024, le=1 << 20, description="Largest request head; above it, 431."
    )
    max_headers: Int = Field(
        default=100, ge=8, le=1000, description="Most header fields; above it, 431."
    )
    max_in_flight: Int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="Most requests at once in each worker; above it, 503 with Retry-After.",
    )
    drained_streams: Int = Field(
        default=64,
        ge=0,
        le=100_000,
        description="Most streams at once in each worker that are read on after their clients left "
        '(`on_abandon = "drain"`); one beyond that is closed.',
    )
    drained_streams_per_tenant: Int = Field(
        default=8, ge=0, le=100_000, description="Most of them of one tenant."
    )
    feedback_per_s: Float = Field(
        default=500,
        gt=0,
        le=1e6,
        description="Most labels a second that one tenant may send, ten seconds' worth at once; "
        "above it, 429 with Retry-After. The admin key may send any number. Workers have equal "
        "shares.",
    )
    hold_wait_s: Float = Field(
        default=10,
        ge=0,
        le=600,
        description="How long a request waits, within its own deadline, for money of a budget that "
        "other calls hold; then 429 with Retry-After. 0: not at all.",
    )
    idempotency_s: Float = Field(
        default=3600,
        ge=0,
        le=86_400,
        description="How long an answer is kept for a client that asks again under the same "
        "Idempotency-Key, by the worker that gave it; 0: never.",
    )
    idempotency_mb: Megabytes = Field(
        default=16, description="How much memory such answers may take in each worker."
    )
    keep_alive_s: Int = Field(
        default=75, ge=1, le=86_400, description="How long an idle connection is kept."
    )
    grace_s: Int = Field(
        default=0,
        ge=0,
        le=86_400,
        description="How long requests are still taken after SIGTERM, while `/readyz` says 503 and "
        "each reply closes its connection: as long as the load balancer before it takes to notice.",
    )
    drain_s: Int = Field(
        default=30, ge=1, le=86_400, description="How long running requests may take after SIGTERM."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stream_buffer_bytes < self.max_event_bytes:
            why = f"is smaller than max_event_bytes, {self.max_event_bytes}"
            raise KeyProblem("stream_buffer_bytes", f"{why}; raise it, or lower max_event_bytes")
        if self.admin_key and self.admin_key_hash:
            raise KeyProblem("admin_key", "stands beside admin_key_hash; keep one of them")
        if self.admin_key and len(self.admin_key.get_secret_value()) < _ADMIN_KEY_CHARS_MIN:
            why = f"is shorter than {_ADMIN_KEY_CHARS_MIN} characters"
            raise KeyProblem("admin_key", f"{why}; make one with: tollway keys new")
        guarded = self.admin_key or self.admin_key_hash
        if self.allow_anonymous and not guarded and not addresses.is_local(self.listen):
            why = "lets anyone who reaches the listener change budgets"
            raise KeyProblem(
                "allow_anonymous",
                f"{why}; listen on 127.0.0.1, or set admin_key_hash (tollway keys new)",
            )
        return self
