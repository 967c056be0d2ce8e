"""The table of a backend: where it is, what it speaks, what it costs."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    model_validator,
)

from tollway.backends import catalog
from tollway.backends.catalog import CatalogMissing, Entry, UnknownModel
from tollway.backends.needs import Feature
from tollway.backends.pricing import Price, parse_price
from tollway.gateway.security import addresses
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.credential import BackendAuth
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import (
    FROM_CATALOG,
    PROTOCOL_NAMES,
    BackendUrl,
    DefaultBy,
    FieldPath,
    Float,
    Int,
    JsonPath,
    LocalPath,
    Name,
    PriceOrCatalog,
    Protocol,
    ProxyUrl,
    Seconds,
    Share,
    StaticHeaders,
)

_REMOTE = ("url", "replicas", "health_path", "protocol", "model", "answer")


class BackendTlsConfig(ConfigTable):
    """Files of the TLS to a backend, in PEM."""

    ca: LocalPath | None = Field(
        default=None, description="Who vouches for it; the system's trust, if left out."
    )
    cert: LocalPath | None = Field(
        default=None, description="The certificate that it is shown, where it asks for one."
    )
    key: LocalPath | None = Field(default=None, description="That certificate's key.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.cert is None) != (self.key is None):
            missing = "key" if self.key is None else "cert"
            raise KeyProblem(missing, "is missing: a certificate and its key go together")
        return self


class BackendConfig(ConfigTable):
    """One model server with a price, or rules that run inside the gateway."""

    name: Name = Field(description="Its name in routes, metrics and reply headers.")
    kind: Literal["gpu", "cpu", "api", "rules"] = Field(
        description="What it runs on: `api` is a provider's paid API, whose room is not ours to "
        "watch; `rules` run inside the gateway.",
        examples=["gpu"],
    )
    enabled: bool = Field(default=True, description="Whether it is offered at all.")
    protocol: Protocol | None = Field(
        default=None,
        description=f"What it speaks: {PROTOCOL_NAMES}; required unless rules.",
        examples=["oip"],
    )
    url: BackendUrl | None = Field(
        default=None,
        description="Its address, with the base path where it has one; required unless rules.",
        examples=["http://127.0.0.1:9001"],
    )
    replicas: tuple[BackendUrl, ...] = Field(
        default=(),
        max_length=64,
        description="More addresses of the same model server, with the same base path: calls go to "
        "the less loaded of two, and one that keeps failing is left out for a while.",
        examples=[["http://127.0.0.1:9011"]],
    )
    health_path: Annotated[str, Field(pattern=r"^/[!-~]*$")] | None = Field(
        default=None,
        description="A path that tells whether the server is well. It is asked when a call has "
        "failed for a reason that may be the request's own, such as a 500: if it fails as well, "
        "the failure counts for everybody. With `replicas` it is also asked at each address every "
        "5 seconds; an address that does not answer it with 2xx gets no calls while others do.",
        examples=["/v2/health/ready"],
    )
    auth: BackendAuth | None = Field(
        default=None,
        description="The credential that the gateway adds to its calls, from an environment "
        "variable or a file. A client's own field of that name is replaced.",
        examples=['{ bearer_env = "OPENAI_API_KEY" }'],
    )
    headers: StaticHeaders = Field(
        default_factory=dict,
        max_length=16,
        description="Header fields that are added to its calls; a client's own of that name are "
        "replaced. No credentials: those are `auth`.",
        examples=['{ anthropic-version = "2023-06-01" }'],
    )
    proxy: ProxyUrl | None = Field(
        default=None,
        description="The proxy that leads to it, or `none`. By default the environment says: "
        "`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, except for `NO_PROXY` and this machine.",
        examples=["http://user:password@proxy:3128"],
    )
    tls: BackendTlsConfig | None = Field(
        default=None, description="Whom to trust and what to show, where `url` is https."
    )
    http2: bool = Field(
        default=False, description="Speak HTTP/2 to it (slower here, and it must be https)."
    )
    allow_link_local: bool = Field(
        default=False, description="Permit a link-local or metadata address, refused otherwise."
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        description="The model's name there, where it differs from the client's.",
    )
    rules: LocalPath | None = Field(
        default=None, description="The TOML file of a rules backend.", examples=["rules.toml"]
    )
    entry_point: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][\w.-]*(:[A-Za-z_][\w.]*)?$",
        description="The Python function of a rules backend: `module:function`, or a name in the "
        "entry point group `tollway.rules`.",
        examples=["package.module:function"],
    )
    context_tokens: Int | None = Field(
        default=None,
        ge=1,
        description="How many tokens its prompt and reply may have together; a request that cannot "
        "fit, by a low estimate, goes to another backend. Under a hard budget it also bounds what "
        "the request does not: images, sounds, stored conversations; left out, the catalogue's.",
        examples=[128_000],
    )
    max_output_tokens: Int | None = Field(
        default=None,
        ge=1,
        description="How many tokens one answer has at most, reasoning included, whatever the "
        "request allows: what a hard budget holds where the request sets no lower limit.",
        examples=[16_384],
    )
    min_output_tokens: Int | None = Field(
        default=None,
        ge=1,
        description="The least limit that is written into a request because a hard budget has no "
        "more left; below it the request is refused. By default twice the longest answers of late, "
        "within 16 and 256.",
        examples=[512],
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        default=None,
        description="The field that limits the output of its chat requests. Left out, learned: "
        "`max_tokens`, until the backend refuses it and takes the other.",
    )
    lacks: tuple[Feature, ...] = Field(
        default=(),
        description="What its model cannot do; a request that needs it goes to another backend.",
        examples=[["vision", "tools"]],
    )
    drop_fields: Annotated[tuple[FieldPath, ...], Field(max_length=64)] = Field(
        default=(),
        description="Fields of requests that it refuses, and that are taken out of what is sent to "
        "it: names at the top level, or dotted ones below. Every other byte stays as it is.",
        examples=[["top_k", "chat_template_kwargs"]],
    )
    price: PriceOrCatalog = Field(
        min_length=1,
        description="What a call costs: a sum of `per_request_usd`, device time "
        "(`device_usd_per_hour` with `concurrency` and `utilization`), tokens of each kind and "
        'other units, by length, service tier and hour; or `"catalog"`, the price that a known '
        "model has in the catalogue: see [prices](prices.md).",
        examples=["{ per_request_usd = 0.0001 }"],
    )
    catalog: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="The model's name in the catalogue of prices, where that is not `model`.",
        examples=["openai/gpt-4o-mini"],
    )
    declared_accuracy: Share | None = Field(
        default=None,
        description="Its accuracy as far as known: where learning begins.",
        examples=[0.97],
    )
    prompt_cache_s: Float = Field(
        default=300,
        ge=0,
        description="Where cached input tokens have a price of their own: how long the backend is "
        "taken to keep a prompt that it has answered, so that a conversation stays with it unless "
        "the gain pays for the move; 0: quotes count on the usual share of cached tokens instead.",
    )
    timeout_s: Seconds = Field(
        default_factory=DefaultBy("protocol", 30, openai=600),
        description="The longest that one attempt may take, to the last byte of its reply.",
        examples=[30],
    )
    first_byte_timeout_s: Seconds | None = Field(
        default=None,
        description="How long until its reply, or of a stream the first event, must begin; by "
        "default as long as the attempt may take. A model that answers without a stream begins "
        "its reply when it has finished.",
        examples=[2],
    )
    first_event_timeout_s: Seconds | None = Field(
        default_factory=DefaultBy("protocol", None, openai=120),
        description="How long until the first event of a streamed reply.",
        examples=[120],
    )
    event_idle_timeout_s: Seconds = Field(
        default=60,
        description="The longest silence between two parts of a streamed reply; comments and "
        "pings end a silence as events do.",
    )
    on_abandon: Literal["close", "drain"] = Field(
        default="close",
        description="What is done with a stream whose client leaves: `close` the connection to the "
        "backend at once, or, for a provider that generates and bills it to its end all the same, "
        "`drain` it: read on for the usage at its end.",
        examples=["drain"],
    )
    abandoned_drain_s: Seconds = Field(
        default=60,
        description="How long such a stream is read on at most, within `timeout_s`; one that takes "
        "longer is closed.",
    )
    connect_timeout_s: Seconds = Field(
        default=2, description="The longest that connecting may take."
    )
    keep_alive: bool | None = Field(
        default=None,
        description="Whether connections to it are used for more than one call; left out, learned: "
        "a server that closes them after a reply without saying so gets a new one for each call.",
        examples=[False],
    )
    repeat_on_close: bool = Field(
        default=False,
        description="Make a call again where its reused connection was closed instead of a reply "
        "and the first may have run: both are charged then. What certainly did not run is repeated "
        "free in any case.",
    )
    concurrency: Int = Field(
        default_factory=DefaultBy("kind", 64, api=1000),
        ge=1,
        le=65_536,
        description="Most calls to it at once.",
        examples=[64],
    )
    adaptive: bool = Field(
        default_factory=DefaultBy("kind", True, api=False),
        description="Whether fewer than `concurrency` calls are made at once where more would only "
        "wait for each other there; before `openai` models found from the first events of streams.",
    )
    latency_tolerance: Float = Field(
        default=3.0,
        ge=1,
        le=100,
        description="How many times its latency when idle a backend may take before it gets fewer "
        "calls at once; more for servers that answer in batches.",
    )
    queue_s: Seconds = Field(
        default=1.0,
        description="How long a call may wait for its turn; one that would wait longer is refused "
        "at once, with 503.",
    )
    answer: JsonPath | None = Field(
        default=None,
        description="Where a reply holds its answer, if not where its protocol says.",
        examples=["result.label"],
    )
    confidence: JsonPath | None = Field(
        default=None,
        description="Where a `plain` reply holds its confidence, in [0, 1].",
        examples=["result.confidence"],
    )
    probabilities: JsonPath | None = Field(
        default=None,
        description="Where a `plain` reply holds the probabilities of all classes.",
        examples=["result.probabilities"],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "rules":
            self._check_rules()
        else:
            self._check_remote()
        self._check_price()
        for key in ("confidence", "probabilities"):
            if self.protocol != "plain" and getattr(self, key) is not None:
                raise KeyProblem(key, 'is for protocol = "plain"; remove it')
        return self

    @model_validator(mode="after")
    def _check_what_it_takes(self) -> Self:
        for key in ("drop_fields", "limit_field", "min_output_tokens"):
            if getattr(self, key) and self.protocol != "openai":
                raise KeyProblem(key, 'is for protocol = "openai"; remove it')
        if self.lacks and self.protocol != "openai" and self.kind != "rules":
            raise KeyProblem("lacks", 'is for protocol = "openai" and for rules; remove it')
        if self.max_output_tokens and (self.min_output_tokens or 0) > self.max_output_tokens:
            raise KeyProblem("min_output_tokens", "is above max_output_tokens; write it lower")
        for name in ("model", "stream"):
            if name in self.drop_fields:
                raise KeyProblem(
                    "drop_fields", f"cannot name {name!r}, which every reply depends on"
                )
        return self

    def _check_rules(self) -> None:
        if (self.rules is None) == (self.entry_point is None):
            raise KeyProblem(
                "kind", 'needs one of: rules = "FILE.toml", entry_point = "module:name"'
            )
        for key in (*_REMOTE, "auth", "headers", "proxy", "repeat_on_close"):
            if getattr(self, key):
                raise KeyProblem(key, "is not for rules, which run inside the gateway; remove it")

    def _check_remote(self) -> None:
        for key in ("rules", "entry_point"):
            if getattr(self, key) is not None:
                raise KeyProblem(key, 'needs kind = "rules"; write that or remove it')
        if self.protocol is None:
            raise KeyProblem("protocol", 'is missing; write it like protocol = "oip"')
        if self.url is None:
            raise KeyProblem("url", 'is missing; write it like url = "http://127.0.0.1:9001"')
        self._check_replicas(self.url)
        if self.auth is not None and self.auth.field_name in self.headers:
            raise KeyProblem("headers", f"has {self.auth.field_name}, as auth does; remove one")
        if not self.allow_link_local and addresses.is_link_local(addresses.host_of(self.url)):
            raise KeyProblem(
                "url",
                "is a link-local or metadata address, which hands out credentials; write the "
                "model server's own address, or allow_link_local = true if this is one",
            )

    def _check_replicas(self, url: str) -> None:
        if len({url, *self.replicas}) != 1 + len(self.replicas):
            raise KeyProblem("replicas", "names an address twice; remove one")
        for replica in self.replicas:
            if urlsplit(replica).path.rstrip("/") != urlsplit(url).path.rstrip("/"):
                raise KeyProblem("replicas", "must have the base path of url; write it the same")
            if not self.allow_link_local and addresses.is_link_local(addresses.host_of(replica)):
                raise KeyProblem("replicas", "has a link-local or metadata address; remove it")

    @property
    def urls(self) -> tuple[str, ...]:
        """All of its addresses; rules have none."""
        return () if self.url is None else (self.url, *self.replicas)

    @property
    def proxy_setting(self) -> str | None:
        """The proxy as it is written; None where the environment says."""
        return None if self.proxy is None else self.proxy.get_secret_value()

    @property
    def from_catalog(self) -> bool:
        """Whether its price is the catalogue's."""
        return self.price == FROM_CATALOG

    def _check_price(self) -> None:
        if not self.from_catalog:
            if self.catalog is not None:
                raise KeyProblem("catalog", 'is for price = "catalog"; write that or remove it')
            return
        if self.catalog is None and self.model is None:
            like = 'catalog = "openai/gpt-4o-mini"'
            raise KeyProblem("catalog", f"is missing, and there is no model; write it like {like}")
        try:
            self._from_catalog()
        except CatalogMissing as exc:
            raise KeyProblem("price", f"{exc}, or write the prices") from None
        except UnknownModel as exc:
            key = "model" if self.catalog is None else "catalog"
            raise KeyProblem(key, f"has no price: {exc}") from None

    def _from_catalog(self) -> Entry:
        # A name that is given means that model, wherever the backend is.
        return catalog.find(
            self.catalog or self.model or "", "" if self.catalog else self.url or ""
        )

    @property
    def input_tokens_max(self) -> int | None:
        """What bounds the input of a call: the context, as declared or as the catalogue has it."""
        if self.context_tokens is None and self.from_catalog:
            return self._from_catalog().context_tokens
        return self.context_tokens

    def parsed_price(self) -> Price:
        """Return the price table, or the catalogue's, as a Price."""
        return parse_price(self._from_catalog().table if self.from_catalog else self.price)
