"""The listeners' tables: addresses, limits, TLS and the keys of the control plane."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from tollway.gateway.security import addresses
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import (
    Float,
    Int,
    KeyHash,
    Listener,
    LocalPath,
    Megabytes,
    checked,
)

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s*]+")
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


class CorsConfig(ConfigTable):
    """Web pages of other origins that may call the routes. The control plane is never opened."""

    origins: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description='Origins of the pages, or `["*"]` for all.',
        examples=[["https://chat.example.com"]],
    )
    headers: tuple[str, ...] = Field(
        default=("*",),
        description='Request fields that the pages may send; `["*"]` allows all.',
        examples=[["authorization", "content-type"]],
    )
    credentials: bool = Field(
        default=False,
        description="Let browsers send cookies and client certificates. Keys in `Authorization` do "
        "not need it. Not with `*` origins.",
    )
    max_age_s: Int = Field(
        default=600,
        ge=0,
        le=86_400,
        description="How long browsers may remember that a request is allowed.",
    )

    @field_validator("origins", "headers")
    @classmethod
    def _lower(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one.lower() for one in given)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise KeyProblem(
                    "origins", f"{origin!r} is no origin; write it like https://chat.example.com"
                )
        if self.credentials and "*" in self.origins:
            raise KeyProblem("credentials", "needs the origins by name; list them, or remove it")
        return self


class ServerConfig(ConfigTable):
    """The listener, its limits and the keys of the control plane."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = (
        "listen",
        "tls",
        "workers",
        "max_event_bytes",
        "buffer_bytes",
        "max_header_bytes",
        "max_headers",
        "max_in_flight",
        "idempotency_s",
        "idempotency_mb",
        "keep_alive_s",
        "grace_s",
        "drain_s",
    )

    listen: Listener = Field(
        default="127.0.0.1:8080",
        description="Listen address: `HOST:PORT` (port 0 selects a free port) or `unix:/PATH`.",
    )
    tls: ListenerTlsConfig | None = Field(
        default=None, description="TLS files. If omitted, the listener serves plain HTTP."
    )
    cors: CorsConfig | None = Field(
        default=None,
        description="Web pages of other origins that may call the routes. If omitted, none may.",
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
        "`TOLLWAY_SERVER__ADMIN_KEY`, or `admin_key_hash`. Without either, `tollway serve` makes a "
        "key, prints it once and keeps it in `admin.key` in `state.dir`.",
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
    callbacks: bool = Field(
        default=True,
        description="Answer requests that have to wait for nothing but a backend's reply in the "
        "callbacks of the event loop, which takes less time. Replies, budgets and the journal are "
        "the same without it. Turn it off to find out whether a problem depends on it.",
    )
    stream_cost: Literal["off", "comment", "event"] = Field(
        default="off",
        description="Tell clients the cost of a stream after its last event: in a `comment` of the "
        "event stream, which clients ignore, or as an `event` of the type `tollway.cost` with "
        "`decision`, `cost_usd` and `provenance`.",
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
    max_decoded_bytes: Int = Field(
        default=8 << 20,
        ge=1024,
        le=1 << 31,
        description="Maximum size of a compressed request body when decoded. A larger one gets "
        "413, and so does one that expands more than a hundred times.",
    )
    gzip_reply_bytes: Int | None = Field(
        default=None,
        ge=1024,
        le=1 << 31,
        description="Compress replies of this size or more for clients that accept gzip; streams, "
        "sounds and images never. If omitted, replies go on as their backends sent them.",
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
    buffer_bytes: Int = Field(
        default=512 << 20,
        ge=64 << 10,
        le=1 << 34,
        description="Memory in each worker for request bodies, replies and incomplete events of "
        "streams, of all requests together; small ones are not counted. One tenant may use half of "
        "it, and always enough for one request of `max_body_bytes` and its reply. A request that "
        "needs more gets 503, and a stream ends with an error.",
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
        "503 with Retry-After. One tenant may have eight times as many as are free.",
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
        if self.buffer_bytes < self.max_event_bytes:
            why = f"is smaller than max_event_bytes ({self.max_event_bytes})"
            raise KeyProblem("buffer_bytes", f"{why}; raise it, or lower max_event_bytes")
        if self.hide_amounts and self.stream_cost != "off":
            raise KeyProblem("stream_cost", "conflicts with hide_amounts; remove one of them")
        if self.admin_key and self.admin_key_hash:
            raise KeyProblem("admin_key", "conflicts with admin_key_hash; remove one of them")
        if self.admin_key and len(self.admin_key.get_secret_value()) < _ADMIN_KEY_CHARS_MIN:
            why = f"is shorter than {_ADMIN_KEY_CHARS_MIN} characters"
            raise KeyProblem("admin_key", f"{why}; make one with: tollway keys new")
        return self


class GrpcConfig(ConfigTable):
    """The `oip` routes over gRPC. Needs the extra `grpc`; TLS and limits are of `[server]`."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    listen: Annotated[str, checked(addresses.split_listen)] = Field(
        description="Listen address: `HOST:PORT` (port 0 selects a free port).",
        examples=["127.0.0.1:8001"],
    )
    json_models: tuple[str, ...] = Field(
        default=(),
        description="Models whose servers do not know REST's binary tensors (MLServer): raw "
        'tensors are sent to them as JSON. `["*"]` stands for all models.',
        examples=[["iris"]],
    )
    max_calls: Int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="Maximum number of concurrent calls and open streams in each worker; each may "
        "hold `max_body_bytes` of memory. Further calls get UNAVAILABLE. One tenant, or one "
        "address without a key, may have eight times as many as are free.",
    )
    max_connections: Int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Maximum number of open connections to each worker. Further ones are closed.",
    )
