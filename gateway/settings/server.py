"""The listener's tables: addresses, limits, TLS and the keys of the control plane."""

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

_ADMIN_KEY_CHARS_MIN = 16  # shorter keys can be guessed; `tollway keys new` makes one


class ListenerTlsConfig(ConfigTable):
    """TLS files of the listener, in PEM format. Every reload reads them again."""

    cert: LocalPath = Field(
        description="The server certificate, followed by the intermediate certificates up to the "
        "root.",
        examples=["tls/cert.pem"],
    )
    key: LocalPath = Field(
        description="The private key of the certificate.", examples=["tls/key.pem"]
    )
    client_ca: LocalPath | None = Field(
        default=None,
        description="CA certificates for mutual TLS. If set, only clients with a certificate "
        "signed by one of them are served.",
    )


class ServerConfig(ConfigTable):
    """The listener, its limits and the keys of the control plane."""

    listen: Listener = Field(
        default="127.0.0.1:8080",
        description="Listen address: `HOST:PORT` (port 0 selects a free port) or `unix:/PATH`.",
    )
    tls: ListenerTlsConfig | None = Field(
        default=None, description="TLS files. If omitted, the listener serves plain HTTP."
    )
    workers: Int = Field(
        default=1,
        ge=1,
        le=256,
        description="Number of worker processes; use one per core. More than one worker requires a "
        "shared ledger.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Serve callers without a key as tenant `anonymous`. For demos and tests.",
    )
    admin_key: SecretStr | None = Field(
        default=None,
        description="The admin key of the control plane. Prefer the environment variable "
        "`TOLLWAY_SERVER__ADMIN_KEY`, or `admin_key_hash`.",
    )
    admin_key_hash: KeyHash | None = Field(
        default=None,
        description="The hash of the admin key, as printed by `tollway keys new`.",
        examples=["sha256:<64 hex digits>"],
    )
    viewer_key_hash: KeyHash | None = Field(
        default=None,
        description="The hash of a read-only key: it can read everything in the control plane and "
        "change nothing. For dashboards.",
        examples=["sha256:<64 hex digits>"],
    )
    hide_amounts: bool = Field(
        default=False,
        description="Omit dollar amounts from reply headers and refusals sent to clients.",
    )
    max_body_bytes: Int = Field(
        default=16 << 20,
        ge=1024,
        le=1 << 31,
        description="Maximum request body size. A larger body gets 413.",
    )
    max_reply_bytes: Int = Field(
        default=64 << 20,
        ge=1024,
        le=1 << 31,
        description="Maximum size of a non-streamed backend reply. A larger reply gets 502.",
    )
    max_event_bytes: Int = Field(
        default=64 << 20,
        ge=64 << 10,
        le=1 << 30,
        description="Maximum size of one event of a stream. A larger event ends the stream with an "
        "error.",
    )
    stream_buffer_bytes: Int = Field(
        default=256 << 20,
        ge=64 << 10,
        le=1 << 34,
        description="Memory in each worker for the incomplete events of all streams. One tenant "
        "may use half of it, and always enough for one event of `max_event_bytes`. A stream that "
        "needs more ends with an error.",
    )
    max_header_bytes: Int = Field(
        default=32 << 10,
        ge=1024,
        le=1 << 20,
        description="Maximum size of the request line and header fields together. A larger request "
        "head gets 431.",
    )
    max_headers: Int = Field(
        default=100,
        ge=8,
        le=1000,
        description="Maximum number of header fields. A request with more gets 431.",
    )
    max_in_flight: Int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="Maximum number of concurrent requests in each worker. Further requests get "
        "503 with Retry-After.",
    )
    drained_streams: Int = Field(
        default=64,
        ge=0,
        le=100_000,
        description="Maximum number of streams in each worker that are still read after their "
        'clients disconnected (`on_abandon = "drain"`). A stream above the limit is closed.',
    )
    drained_streams_per_tenant: Int = Field(
        default=8, ge=0, le=100_000, description="The same limit for the streams of one tenant."
    )
    feedback_per_s: Float = Field(
        default=500,
        gt=0,
        le=1e6,
        description="Maximum rate of labels from one tenant, per second, with a burst of ten "
        "seconds' worth. Further labels get 429 with Retry-After. The admin key is not limited. "
        "The rate is divided equally among the workers.",
    )
    hold_wait_s: Float = Field(
        default=10,
        ge=0,
        le=600,
        description="How long a request waits for budget that other calls have reserved, within "
        "the request's own deadline. After that it gets 429 with Retry-After. 0 disables waiting.",
    )
    idempotency_s: Float = Field(
        default=3600,
        ge=0,
        le=86_400,
        description="How long a worker stores the response to a request with an Idempotency-Key, "
        "for retries that reach the same worker. 0 disables storage.",
    )
    idempotency_mb: Megabytes = Field(
        default=16, description="Memory for stored responses in each worker."
    )
    keep_alive_s: Int = Field(
        default=75, ge=1, le=86_400, description="How long an idle client connection is kept open."
    )
    grace_s: Int = Field(
        default=0,
        ge=0,
        le=86_400,
        description="How long the gateway accepts requests after SIGTERM, while `/readyz` returns "
        "503 and each reply closes its connection. Set it to the time that the load balancer in "
        "front needs to notice.",
    )
    drain_s: Int = Field(
        default=30,
        ge=1,
        le=86_400,
        description="How long running requests may take to finish after SIGTERM.",
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
