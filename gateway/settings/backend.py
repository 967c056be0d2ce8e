"""The table of a backend: its address, protocol, limits and price."""

from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    model_validator,
)

from tollway.backends import catalog
from tollway.backends.batching.registry import JOINERS
from tollway.backends.catalog import CatalogMissing, DatedTariff, Entry, UnknownModel
from tollway.backends.http.affinity import key_reader
from tollway.backends.needs import Feature
from tollway.backends.pricing import Price, parse_price
from tollway.backends.protocols.http import places
from tollway.backends.protocols.registry import ANY_REPLY, LANGUAGE_MODELS, protocol
from tollway.gateway.security import addresses
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.credential import BackendAuth, BackendKey
from tollway.gateway.settings.device import DeviceTimeConfig
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

_AZURE = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_REMOTE = ("url", "replicas", "affinity", "health_path", "protocol", "model", "answer")


class BackendTlsConfig(ConfigTable):
    """TLS files for connections to a backend, in PEM format."""

    ca: LocalPath | None = Field(
        default=None,
        description="CA certificates that verify the backend. Default: the system's trust store.",
    )
    cert: LocalPath | None = Field(
        default=None, description="Client certificate, for a backend that requires one."
    )
    key: LocalPath | None = Field(
        default=None, description="Private key of the client certificate."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.cert is None) != (self.key is None):
            missing = "key" if self.key is None else "cert"
            raise KeyProblem(
                missing,
                "is missing: a certificate and its key must be set together; set both or neither",
            )
        return self


class BatchConfig(ConfigTable):
    """How calls to a backend are joined into batches."""

    max_size: Int = Field(
        default=16,
        ge=2,
        le=1024,
        description="Most rows in a batch. A call with more goes alone.",
    )
    max_wait_ms: Float = Field(
        default=3.0,
        ge=0,
        le=1000,
        description="Longest time that a call waits for others while the backend has free slots. "
        "With 0, calls are joined only while all slots are taken.",
    )
    target_ms: Float | None = Field(
        default=None,
        gt=0,
        le=600_000,
        description="Time from the arrival of a call to its reply, in a batch that finds a free "
        "slot, that 99 of 100 batches are to keep. Batches grow and shrink to keep it. If "
        "omitted, they always have up to `max_size` rows.",
        examples=[50],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.target_ms is not None and self.target_ms <= self.max_wait_ms:
            raise KeyProblem(
                "target_ms",
                f"is not above max_wait_ms = {self.max_wait_ms:g}, so nothing is left for the "
                "server; raise it or lower max_wait_ms",
            )
        return self

    @property
    def server_s(self) -> float | None:
        """What the target leaves for the server, in seconds."""
        return None if self.target_ms is None else (self.target_ms - self.max_wait_ms) / 1000


class BackendConfig(ConfigTable):
    """A model server with a price, or rules that run inside the gateway."""

    SERVER: ClassVar[tuple[str, ...]] = (
        "kind",
        "protocol",
        "url",
        "model",
        "rules",
        "entry_point",
        "proxy",
        "tls",
        "http2",
        "allow_link_local",
        "api_version",
    )
    """Keys that identify a server: observations of one server say nothing about another."""

    REACHED_BY: ClassVar[tuple[str, ...]] = (
        *SERVER,
        "replicas",
        "affinity",
        "health_path",
        "auth",
        "keys",
        "headers",
        "connect_timeout_s",
        "event_idle_timeout_s",
        "keep_alive",
    )
    """Keys that a backend's connections and health checks depend on."""

    name: Name = Field(description="Name of the backend in routes, metrics and reply headers.")
    kind: Literal["gpu", "cpu", "api", "rules"] = Field(
        description="What the backend runs on. `api` is a provider's paid API, whose capacity the "
        "gateway does not manage. `rules` run inside the gateway.",
        examples=["gpu"],
    )
    enabled: bool = Field(default=True, description="Whether the backend may receive calls.")
    protocol: Protocol | None = Field(
        default=None,
        description=f"Protocol of the backend: {PROTOCOL_NAMES}. Required except for rules.",
        examples=["oip"],
    )
    url: BackendUrl | None = Field(
        default=None,
        description="Address of the backend, with its base path if it has one. Required except for "
        "rules.",
        examples=["http://127.0.0.1:9001"],
    )
    replicas: tuple[BackendUrl, ...] = Field(
        default=(),
        max_length=64,
        description="Further addresses of the same model server, with the same base path. Each "
        "call goes to the less loaded of two addresses. An address that keeps failing is excluded "
        "for a while.",
        examples=[["http://127.0.0.1:9011"]],
    )
    affinity: str | None = Field(
        default=None,
        max_length=256,
        description="With `replicas`: what keeps calls on one address, as long as that is not "
        "overloaded. `tenant`; `prompt`: the beginning of the prompt, for servers that cache it; "
        "`header:NAME`, such as a session; `body:PATH`, such as a user. All gateways choose the "
        "same address. Default: the less loaded of two.",
        examples=["header:x-session-id"],
    )
    health_path: Annotated[str, Field(pattern=r"^/[!-~]*$")] | None = Field(
        default=None,
        description="Path of a health check. It is requested after a call failed in a way that the "
        "request itself may have caused, such as a 500: only if the health check fails too does "
        "the failure count against the backend. With `replicas`, each address is also checked "
        "every 5 seconds; an address that does not answer with 2xx gets no calls while others do.",
        examples=["/v2/health/ready"],
    )
    auth: BackendAuth | None = Field(
        default=None,
        description="Credential that the gateway adds to calls, from an environment variable or a "
        "file. It replaces a client's field of the same name.",
        examples=['{ bearer_env = "OPENAI_API_KEY" }'],
    )
    keys: tuple[BackendKey, ...] = Field(
        default=(),
        max_length=64,
        description="Several credentials in place of `auth`, used in turn by their weights. A key "
        "that is answered with 429 rests while the others go on, and a refused key is out of "
        "service by itself; such a call is repeated once with another key.",
        examples=['[{ bearer_env = "KEY_1", weight = 3 }, { bearer_env = "KEY_2" }]'],
    )
    headers: StaticHeaders = Field(
        default_factory=dict,
        max_length=16,
        description="Header fields added to calls. They replace a client's fields of the same "
        "name. Credentials are not allowed here; use `auth`.",
        examples=['{ anthropic-version = "2023-06-01" }'],
    )
    proxy: ProxyUrl | None = Field(
        default=None,
        description="URL of the proxy for this backend, or `none`. Default: the environment's "
        "`HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY`; `NO_PROXY` and addresses of this machine are "
        "exempt.",
        examples=["http://user:password@proxy:3128"],
    )
    tls: BackendTlsConfig | None = Field(
        default=None,
        description="TLS files for an https `url`: the CA to trust and the client certificate to "
        "present.",
    )
    http2: bool = Field(
        default=False, description="Use HTTP/2. It requires https, and is slower in this gateway."
    )
    allow_link_local: bool = Field(
        default=False,
        description="Allow a link-local or metadata address, which is refused by default.",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        description="The model's name at the backend, if it differs from the client's.",
    )
    api_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,32}$")] | None = Field(
        default=None,
        description="`openai` only, for Azure: the version of its API. Calls go to "
        "`/openai/deployments/MODEL/...?api-version=`, whatever path the client used. Without it, "
        "Azure gets `/openai/v1/...`, or the client's own path of a deployment.",
        examples=["2024-10-21"],
    )
    rules: LocalPath | None = Field(
        default=None, description="TOML file of a rules backend.", examples=["rules.toml"]
    )
    entry_point: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][\w.-]*(:[A-Za-z_][\w.]*)?$",
        description="Python function of a rules backend: `module:function`, or a name in the entry "
        "point group `tollway.rules`.",
        examples=["package.module:function"],
    )
    context_tokens: Int | None = Field(
        default=None,
        ge=1,
        description="Context window: maximum tokens of prompt and reply together. A request that "
        "cannot fit, by a low estimate, goes to another backend. Under a hard budget it also "
        "bounds input that the request itself does not bound: images, audio, stored "
        "conversations. Default: the catalogue's value.",
        examples=[128_000],
    )
    max_output_tokens: Int | None = Field(
        default=None,
        ge=1,
        description="Maximum tokens of one answer, including reasoning, regardless of what the "
        "request allows. A hard budget reserves this amount when the request sets no lower limit.",
        examples=[16_384],
    )
    min_output_tokens: Int | None = Field(
        default=None,
        ge=1,
        description="Smallest output limit that the gateway writes into a request when a hard "
        "budget has little left. A request that would need a smaller limit is refused. Default: "
        "twice the longest recent answers, between 16 and 256.",
        examples=[512],
    )
    max_audio_s: Seconds | None = Field(
        default=None,
        description="Longest recording that the backend takes, in seconds. A hard budget reserves "
        "its price for each transcription, because a request does not tell how long its recording "
        "is.",
        examples=[1500],
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        default=None,
        description="Field that limits the output of chat requests. If omitted, it is learned: "
        "`max_tokens`, until the backend rejects it and accepts the other.",
    )
    lacks: tuple[Feature, ...] = Field(
        default=(),
        description="Capabilities that the model lacks. A request that needs one goes to another "
        "backend.",
        examples=[["vision", "tools"]],
    )
    drop_fields: Annotated[tuple[FieldPath, ...], Field(max_length=64)] = Field(
        default=(),
        description="Request fields that the backend rejects and that the gateway therefore "
        "removes: top-level names, or dotted names for nested fields. All other bytes are sent "
        "unchanged.",
        examples=[["top_k", "chat_template_kwargs"]],
    )
    price: PriceOrCatalog = Field(
        default_factory=dict,
        min_length=1,
        description="Required unless the backend has a `device`. Price of a call: a sum of "
        "`per_request_usd`, device time (`device_usd_per_hour` with `concurrency` and "
        "`utilization`), tokens of each kind and other units, optionally by length, service tier "
        'and hour; or `"catalog"`, the '
        "catalogue's price of a known model. See [prices](prices.md).",
        examples=["{ per_request_usd = 0.0001 }"],
    )
    catalog: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="The model's name in the price catalogue, if it is not `model`.",
        examples=["openai/gpt-4o-mini"],
    )
    device: Name | None = Field(
        default=None,
        description="Device that the backend runs on, by its name in `[[devices]]`. Calls are then "
        "charged their share of its cost, and `price` is omitted. See "
        "[devices](prices.md#devices).",
        examples=["gpu-1"],
    )
    device_time: DeviceTimeConfig | None = Field(
        default=None,
        description="Where the device seconds of calls come from. If omitted: from "
        "`x-device-seconds` or the like where replies have it, else the duration of the call.",
        examples=['{ source = "triton", url = "http://127.0.0.1:8002/metrics" }'],
    )
    declared_accuracy: Share | None = Field(
        default=None,
        description="Known accuracy of the model, used as the starting point of learning.",
        examples=[0.97],
    )
    prompt_cache_s: Float = Field(
        default=300,
        ge=0,
        description="For backends with a separate price for cached input tokens: how long the "
        "backend is assumed to cache a prompt that it has answered. A conversation stays on that "
        "backend unless the gain of moving exceeds the cost. With 0, estimates use the average "
        "share of cached tokens instead.",
    )
    timeout_s: Seconds = Field(
        default_factory=DefaultBy("protocol", 30, **dict.fromkeys(LANGUAGE_MODELS, 600)),
        description="Maximum duration of one attempt, until the last byte of the reply.",
        examples=[30],
    )
    first_byte_timeout_s: Seconds | None = Field(
        default=None,
        description="Maximum time until the reply begins, or, for a stream, until its first event. "
        "Default: the timeout of the attempt. A model that does not stream begins its reply only "
        "when it has finished.",
        examples=[2],
    )
    first_event_timeout_s: Seconds | None = Field(
        default_factory=DefaultBy("protocol", None, **dict.fromkeys(LANGUAGE_MODELS, 120)),
        description="Maximum time until the first event of a streamed reply.",
        examples=[120],
    )
    event_idle_timeout_s: Seconds = Field(
        default=60,
        description="Maximum silence between two parts of a streamed reply. Comments and pings "
        "count as parts.",
    )
    on_abandon: Literal["close", "drain"] = Field(
        default="close",
        description="What happens to a stream when its client disconnects. `close` closes the "
        "connection to the backend at once. `drain` keeps reading to get the usage at the end of "
        "the stream; use it for a provider that generates and bills the whole reply in any case.",
        examples=["drain"],
    )
    abandoned_drain_s: Seconds = Field(
        default=60,
        description="Maximum time that an abandoned stream is drained, within `timeout_s`. A "
        "stream that takes longer is closed.",
    )
    connect_timeout_s: Seconds = Field(
        default=2, description="Maximum time to establish a connection."
    )
    keep_alive: bool | None = Field(
        default=None,
        description="Whether connections are reused. If omitted, it is learned: a server that "
        "closes connections after a reply without announcing it gets a new connection for each "
        "call.",
        examples=[False],
    )
    repeat_on_close: bool = Field(
        default=False,
        description="Repeat a call when its reused connection was closed instead of a reply, even "
        "though the first call may have run. Both calls are then charged. A call that certainly "
        "did not run is always repeated, without charge.",
    )
    concurrency: Int = Field(
        default_factory=DefaultBy("kind", 64, api=1000),
        ge=1,
        le=65_536,
        description="Maximum number of concurrent calls.",
        examples=[64],
    )
    adaptive: bool = Field(
        default_factory=DefaultBy("kind", True, api=False),
        description="Whether the concurrency limit drops below `concurrency` when additional calls "
        "would only queue at the backend. For `openai` models this is measured from the first "
        "events of streams.",
    )
    rate_limit_headers: bool = Field(
        default=True,
        description="Leave the backend out, while others can answer, when its replies say that "
        "nothing is left of its rate limit (`x-ratelimit-remaining-*` and the like).",
    )
    latency_tolerance: Float = Field(
        default=3.0,
        ge=1,
        le=100,
        description="Latency, as a multiple of the idle latency, above which the concurrency limit "
        "shrinks. Use a higher value for servers that process requests in batches.",
    )
    queue_s: Seconds = Field(
        default=1.0,
        description="Maximum time a call may wait for a concurrency slot. A call that would wait "
        "longer is refused at once with 503.",
    )
    batch: BatchConfig | None = Field(
        default=None,
        description="Joins calls of the same path and shape into batches, for servers whose "
        "inputs have a row for each inference (`http`, `mlflow`, `oip`, `plain`, `tfserving`): "
        "`{ max_size = 16, max_wait_ms = 3 }`. See [batches](protocols.md#batches).",
    )
    answer: JsonPath | None = Field(
        default=None,
        description="Path of the answer in a reply, if it is not where the protocol puts it; for "
        "`http`, `mlflow`, `plain` and `tfserving` also `$headers.NAME`, a header field.",
        examples=["result.label"],
    )
    confidence: JsonPath | None = Field(
        default=None,
        description="Path of the confidence, in [0, 1], in a reply of `http`, `mlflow`, `plain` or "
        "`tfserving`; `$headers.NAME` is a header field.",
        examples=["result.confidence"],
    )
    probabilities: JsonPath | None = Field(
        default=None,
        description="Path of the probabilities of all classes in such a reply.",
        examples=["result.probabilities"],
    )
    logprobs: Literal["auto", "null", "absent", "off"] = Field(
        default="auto",
        description="`openai` only: what the server writes for a client that asks for no "
        "log-probabilities, which a cascade does instead: `null`, or nothing (`absent`). `auto`: "
        "known from its replies. `off`: it is never asked.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "rules":
            self._check_rules()
        else:
            self._check_remote()
        self._check_price()
        if self.batch is not None and (self.kind == "rules" or self.protocol not in JOINERS):
            known = ", ".join(sorted(JOINERS))
            raise KeyProblem(
                "batch", f"applies only to servers of the protocols {known}; remove it"
            )
        for key in ("answer", "confidence", "probabilities"):
            path = getattr(self, key) or ""
            places.check_reply(path)
            if path.startswith("$") and self.protocol not in ANY_REPLY:
                raise KeyProblem(key, "is a header field, which this protocol has no answer in")
        for key in ("confidence", "probabilities"):
            if self.protocol not in ANY_REPLY and getattr(self, key) is not None:
                known = ", ".join(ANY_REPLY)
                raise KeyProblem(key, f"applies only to the protocols {known}; remove it")
        return self

    @model_validator(mode="after")
    def _check_what_it_takes(self) -> Self:
        if self.logprobs != "auto" and self.protocol != "openai":
            raise KeyProblem("logprobs", 'applies only to protocol = "openai"; remove it')
        for key in ("limit_field", "max_audio_s", "api_version"):
            if getattr(self, key) and self.protocol != "openai":
                raise KeyProblem(key, 'applies only to protocol = "openai"; remove it')
        known = ", ".join(LANGUAGE_MODELS)
        for key in ("drop_fields", "min_output_tokens"):
            if getattr(self, key) and self.protocol not in LANGUAGE_MODELS:
                raise KeyProblem(key, f"applies only to the protocols {known}; remove it")
        if self.lacks and self.protocol not in LANGUAGE_MODELS and self.kind != "rules":
            raise KeyProblem(
                "lacks", f"applies only to the protocols {known} and to rules; remove it"
            )
        if self.max_output_tokens and (self.min_output_tokens or 0) > self.max_output_tokens:
            raise KeyProblem("min_output_tokens", "is greater than max_output_tokens; lower it")
        for name in ("model", "stream"):
            if name in self.drop_fields:
                raise KeyProblem(
                    "drop_fields",
                    f"must not contain {name!r}: the gateway needs that field; remove it",
                )
        return self

    def _check_rules(self) -> None:
        if (self.rules is None) == (self.entry_point is None):
            raise KeyProblem(
                "kind",
                'requires exactly one of rules = "FILE.toml" and entry_point = "module:name"',
            )
        for key in (
            *_REMOTE,
            "device",
            "device_time",
            "auth",
            "keys",
            "headers",
            "proxy",
            "repeat_on_close",
        ):
            if getattr(self, key):
                raise KeyProblem(
                    key, "does not apply to rules, which run inside the gateway; remove it"
                )

    def _check_remote(self) -> None:
        for key in ("rules", "entry_point"):
            if getattr(self, key) is not None:
                raise KeyProblem(key, 'applies only to kind = "rules"; set that kind or remove it')
        if self.protocol is None:
            raise KeyProblem("protocol", 'is missing; write it like protocol = "oip"')
        if self.url is None:
            raise KeyProblem("url", 'is missing; write it like url = "http://127.0.0.1:9001"')
        self._check_replicas(self.url)
        if self.auth is not None and self.keys:
            raise KeyProblem("keys", "is set beside auth; write all keys in it, and remove auth")
        for auth in self.credentials.values():
            if auth.field_name in self.headers:
                key = "keys" if self.keys else "auth"
                raise KeyProblem(
                    "headers",
                    f"sets {auth.field_name}, which {key} also sets; remove one of them",
                )
        if not self.allow_link_local and addresses.is_link_local(addresses.host_of(self.url)):
            raise KeyProblem(
                "url",
                "is a link-local or metadata address, which may expose credentials; write the "
                "model server's address, or set allow_link_local = true if this is correct",
            )

    def _check_replicas(self, url: str) -> None:
        if self.affinity is not None:
            if not self.replicas:
                raise KeyProblem(
                    "affinity", "needs replicas to choose from; set them, or remove it"
                )
            try:
                key_reader(self.affinity, protocol(self.protocol or "oip"))
            except ValueError as exc:
                raise KeyProblem("affinity", f"{exc}; write it like header:x-session-id") from None
        if len({url, *self.replicas}) != 1 + len(self.replicas):
            raise KeyProblem("replicas", "contains an address twice; remove the duplicate")
        for replica in self.replicas:
            if urlsplit(replica).path.rstrip("/") != urlsplit(url).path.rstrip("/"):
                raise KeyProblem(
                    "replicas", "must have the same base path as url; change one of them"
                )
            if not self.allow_link_local and addresses.is_link_local(addresses.host_of(replica)):
                raise KeyProblem("replicas", "contains a link-local or metadata address; remove it")

    @property
    def urls(self) -> tuple[str, ...]:
        """All addresses of the backend; empty for rules."""
        return () if self.url is None else (self.url, *self.replicas)

    @property
    def credentials(self) -> dict[str, BackendAuth]:
        """The credentials by their place: `auth`, or `keys[0]` and so on."""
        if self.auth is not None:
            return {"auth": self.auth}
        return {f"keys[{number}]": key for number, key in enumerate(self.keys)}

    @property
    def azure_version(self) -> str | None:
        """The version of Azure's API, empty if it has none; None if the backend is not Azure."""
        azure = self.url is not None and addresses.host_of(self.url).endswith(_AZURE)
        return self.api_version or ("" if azure and self.protocol == "openai" else None)

    @property
    def proxy_setting(self) -> str | None:
        """The configured proxy; None if the environment decides."""
        return None if self.proxy is None else self.proxy.get_secret_value()

    @property
    def from_catalog(self) -> bool:
        """Whether the price comes from the catalogue."""
        return self.price == FROM_CATALOG

    def _check_price(self) -> None:
        if self.device is not None and self.price:
            raise KeyProblem("price", "is set beside device, which is the price; remove one")
        if self.device is None and not self.price:
            like = "write it like price = { per_request_usd = 0.0001 }"
            raise KeyProblem("price", f"is missing; {like}, or name the device that it runs on")
        clock = self.device_time
        if clock is not None and clock.is_polled and self.device is None:
            raise KeyProblem(
                "device_time", "is polled, which corrects the price of a device; name its device"
            )
        if clock is not None and clock.is_polled and self.replicas:
            raise KeyProblem(
                "device_time",
                "is polled from one server, but the backend has replicas; remove it, or make each "
                "a backend of its own",
            )
        if not self.from_catalog:
            if self.catalog is not None:
                raise KeyProblem(
                    "catalog", 'applies only to price = "catalog"; set that price or remove it'
                )
            return
        if self.catalog is None and self.model is None:
            like = 'catalog = "openai/gpt-4o-mini"'
            raise KeyProblem(
                "catalog", f"is missing, and model is not set either; write it like {like}"
            )
        try:
            self._from_catalog()
        except CatalogMissing as exc:
            raise KeyProblem("price", f"{exc}, or write the prices") from None
        except UnknownModel as exc:
            key = "model" if self.catalog is None else "catalog"
            raise KeyProblem(key, f"has no price: {exc}") from None

    def _from_catalog(self) -> Entry:
        return catalog.find(self.catalog or self.model or "", self._catalog_url)

    @property
    def _catalog_url(self) -> str:
        # An explicit catalogue name identifies the model regardless of the backend's address.
        return "" if self.catalog else self.url or ""

    @property
    def input_tokens_max(self) -> int | None:
        """The bound on the input of a call: `context_tokens`, or the catalogue's value."""
        if self.context_tokens is None and self.from_catalog:
            return self._from_catalog().context_tokens
        return self.context_tokens

    def tariff(self) -> DatedTariff | None:
        """Return what follows the catalogue's dates, if it has a change of price to come."""
        if not self.from_catalog:
            return None
        name = self.catalog or self.model or ""
        return catalog.dated(name, self._catalog_url, call_s=self.timeout_s)

    def parsed_price(self) -> Price:
        """Return the configured price table, or the catalogue's, as a Price.

        Not for a backend with a device, whose price is learned.
        """
        assert self.device is None, self.name
        return parse_price(self._from_catalog().table if self.from_catalog else self.price)
