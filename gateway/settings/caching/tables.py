"""The tables of caches: what a route keeps of its answers, and where all routes keep them."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Float, HeaderName, Int, Megabytes


def _check_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    if "@" in rest or "password=" in rest:
        raise ValueError("must not contain a password; set TOLLWAY_CACHE__PASSWORD instead")
    return url


class CacheConfig(ConfigTable):
    """Where answers are kept, for the routes that have a `cache`: in memory, then in Redis."""

    NEEDS_RESTART: ClassVar[tuple[str, ...]] = ("*",)

    memory_mb: Megabytes = Field(
        default=256,
        description="Memory of each worker for kept answers. Above it, the least recently used go "
        "first, of the tenant that holds more than its share.",
    )
    entries: Int = Field(
        default=100_000, ge=1, le=10_000_000, description="Maximum number of answers in memory."
    )
    url: Annotated[str, AfterValidator(_check_url)] | None = Field(
        default=None,
        description="Second tier that workers and gateways share: `redis://HOST:PORT/DB`, "
        "`rediss://...` (TLS) or `unix:///SOCKET`. `?cluster=1`: the address is one of a Redis "
        "Cluster; `?timeout_ms=20`: how long to wait for it. Default: none.",
        examples=["redis://localhost:6379/1"],
    )
    password: SecretStr | None = Field(
        default=None,
        description="Redis password. Prefer the environment variable `TOLLWAY_CACHE__PASSWORD`.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.password is not None and self.url is None:
            raise KeyProblem("password", "applies only with url; set url, or remove it")
        return self


class RouteCacheConfig(ConfigTable):
    """Answers of a route that are kept, and given again to the same request at no cost."""

    ttl_s: Float = Field(
        gt=0,
        le=2_592_000,
        description="How long an answer is fresh. A backend's `Cache-Control` may shorten it.",
        examples=[3600],
    )
    stale_s: Float = Field(
        default=60.0,
        ge=0,
        le=2_592_000,
        description="How long after that it may still be given while a fresh one is fetched.",
    )
    early: Float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="How early an answer may be fetched again before it expires, in durations of "
        "its call (the beta of XFetch). 0: not before it expires.",
    )
    scope: Literal["tenant", "route"] = Field(
        default="tenant",
        description="`tenant`: a tenant gets only answers to its own requests. `route`: all "
        "tenants share them.",
    )
    sampled: bool = Field(
        default=False,
        description="Whether to keep answers to requests that ask for sampling: those to language "
        "models without `temperature = 0`.",
    )
    ignore: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(),
        max_length=64,
        description="Members of a request's JSON object that do not change the answer, beyond "
        "those known of the protocol, such as `user`.",
        examples=[["trace_id"]],
    )
    headers: tuple[HeaderName, ...] = Field(
        default=(),
        max_length=16,
        description="Header fields of a request that change the answer, beyond `accept`, "
        "`accept-language`, `content-type` and the versions of APIs.",
        examples=[["x-region"]],
    )
    max_kb: Int = Field(
        default=1024, ge=1, le=65_536, description="Largest answer that is kept, in KiB."
    )
    join_s: Float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="How long a request waits for the answer to the same request that is under "
        "way. 0: it does not.",
    )
    client_max_age_s: Int | None = Field(
        default=None,
        ge=0,
        le=31_536_000,
        description="GET only: how long browsers and CDNs may keep an answer, as `Cache-Control`, "
        "`ETag`, `Age` and `Vary` tell them. `private` unless `scope` is `route`. Default: the "
        "gateway adds nothing.",
        examples=[60],
    )
    fresh_share: Float = Field(
        default=0.01,
        ge=0,
        le=0.5,
        description="Share of the requests with a kept answer that get a fresh one all the same, "
        "so that labels can compare the two.",
    )
    version: str = Field(
        default="",
        max_length=64,
        description="Part of every key. Change it to forget all answers of the route.",
    )
