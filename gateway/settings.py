"""The configuration: `tollway.toml` as typed, frozen tables, each key with its unit and its limits.

A description says what a key does and `examples` what to write there: both are read by the errors
and by docs/configuration.md, which is made from this file. What several tables must agree on (names
that refer to each other) is in `consistency.py`, the kinds of values in `fields.py`, what the
environment may override in `environment.py`. `load` reads all of it, and reports everything that is
wrong at once.
"""

import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from backends.documents import load_reply
from backends.paths import compile_path
from backends.pricing import Price, parse_price
from backends.registry import PROTOCOLS, protocol
from backends.rules import Whole, open_rules
from backends.types import Payload, Reply
from gateway import addresses, consistency, contract, environment
from gateway.fields import (
    FOLDER,
    BackendUrl,
    Float,
    FreeTable,
    Int,
    JsonPath,
    KeyHash,
    LedgerUrl,
    Listener,
    LocalPath,
    Megabytes,
    Name,
    PolicyName,
    PriceTable,
    Protocol,
    RoutePath,
    Seconds,
    Share,
    TimeZone,
    Usd,
    WebUrl,
)
from gateway.ledger.types import MAX_LIMIT_NANO, NANO, Budget, Enforcement, Scope, Window
from gateway.problems import (
    ConfigError,
    Location,
    Problem,
    WrongKey,
    did_you_mean,
    key_of,
    of_validation,
    show,
)
from policies.registry import POLICIES, build
from policies.types import Objective

__all__ = ["ConfigError", "Settings", "load", "parse"]

_FILE_BYTES_MAX = 4 << 20  # ten thousand tenants take about one
_PROTOCOLS = ", ".join(f"`{name}`" for name in sorted(PROTOCOLS))
_POLICIES = ", ".join(f"`{name}`" for name in sorted({*POLICIES} - {"cascade"}))
_ADMIN_KEY_CHARS_MIN = 16  # a key that people think up is guessed; `tollway keys new` makes one


class Table(BaseModel):
    """What all tables share: unknown keys are refused, nothing changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ListenerTls(Table):
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


class BackendTls(Table):
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
            raise WrongKey(missing, "is missing: a certificate and its key go together")
        return self


class Server(Table):
    """The listener, its limits, and who may administer it."""

    listen: Listener = Field(
        default="127.0.0.1:8080", description="`HOST:PORT` (port 0: a free one) or `unix:/PATH`."
    )
    tls: ListenerTls | None = Field(
        default=None, description="Serve over TLS (https); left out, in the clear."
    )
    workers: Int = Field(
        default=1,
        ge=1,
        le=256,
        description="Worker processes, one a core; more than one need a ledger that they share.",
    )
    open: bool = Field(
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
        description="How long requests are still taken after SIGTERM, while `/readyz` says 503: as "
        "long as the load balancer before it takes to notice.",
    )
    drain_s: Int = Field(
        default=30, ge=1, le=86_400, description="How long running requests may take after SIGTERM."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.admin_key and self.admin_key_hash:
            raise WrongKey("admin_key", "stands beside admin_key_hash; keep one of them")
        if self.admin_key and len(self.admin_key.get_secret_value()) < _ADMIN_KEY_CHARS_MIN:
            why = f"is shorter than {_ADMIN_KEY_CHARS_MIN} characters"
            raise WrongKey("admin_key", f"{why}; make one with: tollway keys new")
        guarded = self.admin_key or self.admin_key_hash
        if self.open and not guarded and not addresses.is_local(self.listen):
            why = "lets anyone who reaches the listener change budgets"
            raise WrongKey(
                "open", f"{why}; listen on 127.0.0.1, or set admin_key_hash (tollway keys new)"
            )
        return self


class Ledger(Table):
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
    when_down: Literal["closed", "open"] = Field(
        default="closed",
        description="What happens once the ledger is unreachable and what was leased is spent: "
        "refuse (`closed`), or go on and record (`open`).",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.password is not None and self.url.startswith(("sqlite:", "memory:")):
            raise WrongKey("password", "is for Redis only; remove it, or change url")
        return self


class Journal(Table):
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


class State(Table):
    """Where learned state is kept across restarts."""

    dir: LocalPath = Field(
        default=Path(".tollway/state"), validate_default=True, description="Where its files are."
    )
    interval_s: Seconds = Field(default=30, description="How often it is saved, besides on exit.")


class Backend(Table):
    """One model server with a price, or rules that run inside the gateway."""

    name: Name = Field(description="Its name in routes, metrics and reply headers.")
    kind: Literal["gpu", "cpu", "rules"] = Field(
        description="What it runs on; `rules` run inside the gateway.", examples=["gpu"]
    )
    enabled: bool = Field(default=True, description="Whether it is offered at all.")
    protocol: Protocol | None = Field(
        default=None,
        description=f"What it speaks: {_PROTOCOLS}; required unless rules.",
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
        description="With `replicas`: a path that is asked at each address every 5 seconds; an "
        "address that does not answer it with 2xx gets no calls while others do.",
        examples=["/v2/health/ready"],
    )
    tls: BackendTls | None = Field(
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
    price: PriceTable = Field(
        min_length=1,
        description="What a call costs: a sum of `per_request_usd`, device time "
        "(`device_usd_per_hour` with `concurrency` and `utilization`) and tokens (with `tiers` for "
        "long inputs).",
        examples=["{ per_request_usd = 0.0001 }"],
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
    timeout_s: Seconds = Field(default=30, description="The longest that one attempt may take.")
    connect_timeout_s: Seconds = Field(
        default=2, description="The longest that connecting may take."
    )
    concurrency: Int = Field(default=64, ge=1, le=65_536, description="Most calls to it at once.")
    adaptive: bool = Field(
        default=True,
        description="Whether fewer than `concurrency` calls are made at once where more would only "
        "wait for each other there.",
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
        for key in ("confidence", "probabilities"):
            if self.protocol != "plain" and getattr(self, key) is not None:
                raise WrongKey(key, 'is for protocol = "plain"; remove it')
        return self

    def _check_rules(self) -> None:
        if (self.rules is None) == (self.entry_point is None):
            raise WrongKey("kind", 'needs one of: rules = "FILE.toml", entry_point = "module:name"')
        for key in ("url", "replicas", "health_path", "protocol", "model", "answer"):
            if getattr(self, key):
                raise WrongKey(key, "is not for rules, which run inside the gateway; remove it")

    def _check_remote(self) -> None:
        for key in ("rules", "entry_point"):
            if getattr(self, key) is not None:
                raise WrongKey(key, 'needs kind = "rules"; write that or remove it')
        if self.protocol is None:
            raise WrongKey("protocol", 'is missing; write it like protocol = "oip"')
        if self.url is None:
            raise WrongKey("url", 'is missing; write it like url = "http://127.0.0.1:9001"')
        self._check_replicas(self.url)
        if not self.allow_link_local and addresses.is_link_local(addresses.host_of(self.url)):
            raise WrongKey(
                "url",
                "is a link-local or metadata address, which hands out credentials; write the "
                "model server's own address, or allow_link_local = true if this is one",
            )

    def _check_replicas(self, url: str) -> None:
        if len({url, *self.replicas}) != 1 + len(self.replicas):
            raise WrongKey("replicas", "names an address twice; remove one")
        if self.health_path is not None and not self.replicas:
            raise WrongKey("health_path", "chooses among several addresses; add replicas")
        for replica in self.replicas:
            if urlsplit(replica).path.rstrip("/") != urlsplit(url).path.rstrip("/"):
                raise WrongKey("replicas", "must have the base path of url; write it the same")
            if not self.allow_link_local and addresses.is_link_local(addresses.host_of(replica)):
                raise WrongKey("replicas", "has a link-local or metadata address; remove it")

    def parsed_price(self) -> Price:
        """Return the price table as a Price."""
        return parse_price(self.price)


class Features(Table):
    """Which features of a request the policy sees: paths into its JSON."""

    numeric: tuple[JsonPath, ...] = Field(
        default=(), description="Numbers, or lists of them.", examples=[["inputs[0].data"]]
    )
    text: tuple[JsonPath, ...] = Field(
        default=(), description="Texts, seen as words.", examples=[["messages[*].content"]]
    )
    categorical: tuple[JsonPath, ...] = Field(
        default=(), description="Words that are seen whole.", examples=[["parameters.country"]]
    )
    range: tuple[Float, Float] | None = Field(
        default=None,
        description="What the numbers lie between; they are scaled by it.",
        examples=[[0, 16]],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise WrongKey("range", "must rise; write it like [0, 16]")
        return self


class Score(Table):
    """How an answer is scored when feedback brings the true label."""

    exact: JsonPath | None = Field(
        default=None,
        description="The answer's place in the reply: right when it equals the label.",
        examples=["outputs[0].data[0]"],
    )
    near: JsonPath | None = Field(
        default=None,
        description="The answer's place in the reply: right when within `tolerance` of the label.",
        examples=["outputs[0].data[0]"],
    )
    tolerance: Float | None = Field(
        default=None,
        gt=0,
        description="The largest difference that counts as right.",
        examples=[0.5],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.exact is None) == (self.near is None):
            raise ValueError('needs either exact or near; write { exact = "outputs[0].data[0]" }')
        if (self.near is None) != (self.tolerance is None):
            raise WrongKey("tolerance", "goes with near; give both or neither")
        return self


class Audit(Table):
    """Some answers are compared to a reference's, off the clients' path, and learned from."""

    backend: str = Field(
        description="The reference: the route's backend whose answers are taken to be right.",
        examples=["digits-gpu"],
    )
    share: Share = Field(
        default=0.01,
        gt=0,
        description="The share of answers to audit in the mean: more of those that teach most.",
    )
    budget_share: Float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="What audits may cost at most, as a share of what the route's requests cost.",
    )


class Clause(Table):
    """What one place of a request, or of a reply, must hold."""

    at: str | None = Field(
        default=None,
        description="The place: a path into the document.",
        examples=["inputs[0].data"],
    )
    tensor: str | None = Field(
        default=None,
        description="Or, for `oip`, the name of a tensor, of which `type`, `range`, `length` and "
        "`one_of` bind the elements.",
        examples=["image"],
    )
    type: Literal["number", "integer", "text", "boolean", "list", "object"] | None = Field(
        default=None, description="What is there."
    )
    datatype: str | None = Field(
        default=None, description="A tensor's datatype.", examples=["FP32"]
    )
    shape: tuple[Int, ...] | None = Field(
        default=None, description="A tensor's shape; -1 stands for any length.", examples=[[-1, 64]]
    )
    range: tuple[Float, Float] | None = Field(
        default=None,
        description="Between what all numbers there lie, in lists too.",
        examples=[[0, 16]],
    )
    length: tuple[Int, Int] | None = Field(
        default=None,
        description="How many elements or characters there are, from and to.",
        examples=[[1, 64]],
    )
    one_of: tuple[str | bool | int | float, ...] = Field(
        default=(), description="The values that may be there.", examples=[["cat", "dog"]]
    )
    optional: bool = Field(default=False, description="Whether it may be missing or null.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.at is None) == (self.tensor is None):
            raise WrongKey("at", "or `tensor` says what place it is; write one of the two")
        if self.tensor is None and (self.datatype or self.shape is not None):
            raise WrongKey("tensor", "is what has a datatype and a shape; name one, not a path")
        if self.at is not None:
            try:
                compile_path(self.at)
            except ValueError as exc:
                raise WrongKey("at", str(exc)) from None
        for name in ("range", "length"):
            span = getattr(self, name)
            if span is not None and not span[0] <= span[1]:
                raise WrongKey(name, "must go from the lesser to the greater")
        return self

    def to_clause(self) -> contract.Clause:
        """Return the clause."""
        return contract.Clause(
            at=self.at or "",
            tensor=self.tensor or "",
            kind=self.type,
            datatype=self.datatype,
            shape=self.shape,
            range=self.range,
            length=self.length,
            one_of=self.one_of,
            optional=self.optional,
        )


class Route(Table):
    """A path that clients call, the backends that can answer it, and how to choose among them."""

    name: Name = Field(description="Its name in budgets, metrics and reports.")
    path: RoutePath = Field(
        description="The path that clients call: exact, with `{model}` for a whole segment, or "
        "with a trailing `/*` for all below. Of several that match, the most specific is taken.",
        examples=["/v2/models/digits/infer"],
    )
    protocol: Protocol = Field(
        description=f"What clients speak on it, and so do its backends: {_PROTOCOLS}.",
        examples=["oip"],
    )
    models: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(),
        max_length=64,
        description="`openai` only: the names of a model by which requests mean this route, where "
        "several share a path. One of them may have none, and answers all other names.",
        examples=[["smart", "gpt-4o"]],
    )
    backends: tuple[str, ...] = Field(
        min_length=1,
        max_length=64,
        description="The backends that can answer it.",
        examples=[["digits-cpu", "digits-gpu"]],
    )
    objective: Literal["max_quality", "min_cost", "value"] = Field(
        default="max_quality",
        description="The best that the budgets pay for, the cheapest above the floor, or the most "
        "of `value_per_correct_usd` times quality less cost.",
    )
    accuracy_floor: Share | None = Field(
        default=None, description="The share of right answers to hold.", examples=[0.97]
    )
    value_per_correct_usd: Float | None = Field(
        default=None, gt=0, description="What one right answer is worth.", examples=[0.01]
    )
    baseline: str | None = Field(
        default=None,
        description="The backend that is known to hold the floor; learning falls back to it.",
        examples=["digits-gpu"],
    )
    policy: PolicyName = Field(default="lagrangian", description=f"Who chooses: {_POLICIES}.")
    policy_options: FreeTable = Field(
        default_factory=dict,
        description="The policy's own settings, such as `arm` of `fixed`, `weights` of `weighted`.",
        examples=['{ head = "ridge" }'],
    )
    guard: Literal["off", "shadow", "observe"] = Field(
        default="off",
        description="`shadow`: the baseline, or else the best fixed backend, answers until what is "
        "learned is shown to be worth more, and again when it no longer is. `observe`: it always "
        "answers; what is learned is only written down.",
    )
    cascade: bool = Field(
        default=False, description="Whether a cheap answer in hand may be accepted or escalated."
    )
    fallback: bool = Field(
        default=True, description="Whether another backend is asked once when one fails."
    )
    ladder: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        description="Whom to ask in place of a backend that fails, first to last, until one "
        "answers; by default once whom the policy thinks next best.",
        examples=[["digits-cpu", "digits-rules"]],
    )
    last_resort: str | None = Field(
        default=None,
        max_length=65_536,
        description="A reply's JSON, given where no backend can; nothing is charged for it.",
        examples=['{"label": "unknown"}'],
    )
    retry_share: Share = Field(
        default=0.2,
        description="How many calls to other backends after failures, as a share of the requests; "
        "rules are not counted. The first 100 are free.",
    )
    hedge_share: float = Field(
        default=0.0,
        ge=0.0,
        le=0.5,
        description="How many requests, as a share, may be asked of their backend a second time: "
        "the slowest, as soon as they are slower than the rest. The first good reply counts, both "
        "calls are paid. Not for streams.",
        examples=[0.05],
    )
    accepts: tuple[Clause, ...] = Field(
        default=(),
        max_length=64,
        description="What requests must hold; others get 422, and no backend is asked.",
        examples=['[{ tensor = "image", datatype = "FP32", shape = [1, 64], range = [0, 16] }]'],
    )
    answers: tuple[Clause, ...] = Field(
        default=(),
        max_length=64,
        description="What replies must hold; others count as failures of their backend.",
        examples=['[{ at = "label", type = "integer", range = [0, 9] }]'],
    )
    timeout_s: Seconds = Field(
        default=30, description="The longest that a request may take in all."
    )
    context: Features = Field(default=Features(), description="What the policy sees.")
    score: Score | None = Field(
        default=None, description="How a true label is turned into quality."
    )

    audit: Audit | None = Field(
        default=None,
        description="Where labels are scarce: answers of which backend others are compared to.",
        examples=['{ backend = "digits-gpu", share = 0.01, budget_share = 0.05 }'],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.backends)) != len(self.backends):
            raise WrongKey("backends", "names one of them twice; remove one")
        if self.models and self.protocol != "openai":
            raise WrongKey("models", "is for protocol openai alone; others have them in the path")
        if self.baseline is not None and self.baseline not in self.backends:
            near = did_you_mean(self.baseline, self.backends)
            raise WrongKey("baseline", f"is not among the route's backends; {near}")
        weights = self.policy_options.get("weights")
        named = [self.policy_options.get("arm"), *(weights if isinstance(weights, dict) else ())]
        for name in named:
            if isinstance(name, str) and name not in self.backends:
                near = did_you_mean(name, self.backends)
                why = f"names {name!r}, which is not among the route's backends; {near}"
                raise WrongKey("policy_options", why)
        if self.objective == "min_cost" and self.accuracy_floor is None:
            raise WrongKey("objective", "needs a floor; write it like accuracy_floor = 0.97")
        if self.audit is not None and self.audit.backend not in self.backends:
            near = did_you_mean(self.audit.backend, self.backends)
            raise WrongKey("audit", f"names no backend of the route; {near}")
        if self.audit is not None and self.score is None:
            raise WrongKey(
                "audit", "needs to compare answers; add a score, such as { exact = ... }"
            )
        if self.guard != "off" and self.objective == "min_cost":
            raise WrongKey("guard", "is not for min_cost: its floor is guarded by the baseline")
        if self.guard != "off" and self.cascade:
            raise WrongKey("guard", "is not for cascades; remove one of the two")
        if self.objective == "value" and self.value_per_correct_usd is None:
            raise WrongKey("objective", "needs a value; write value_per_correct_usd = 0.01")
        return self

    @model_validator(mode="after")
    def _check_the_way_down(self) -> Self:
        for name in self.ladder:
            if name not in self.backends:
                near = did_you_mean(name, self.backends)
                why = f"names {name!r}, which is not among the route's backends; {near}"
                raise WrongKey("ladder", why)
        if len(set(self.ladder)) != len(self.ladder):
            raise WrongKey("ladder", "names one of them twice; remove one")
        if self.ladder and not self.fallback:
            raise WrongKey("ladder", "is a way to fall back; remove fallback = false")
        if self.protocol != "oip":
            for key in ("accepts", "answers"):
                if any(clause.tensor is not None for clause in getattr(self, key)):
                    raise WrongKey(key, "names a tensor, which only protocol oip has; write `at`")
        return self

    def to_objective(self) -> Objective:
        """Return what the route wants of its policy."""
        return Objective(
            kind=self.objective,
            floor=self.accuracy_floor,
            value_per_correct_usd=self.value_per_correct_usd,
            baseline=self.baseline,
        )


class TenantKey(Table):
    """A key that ends by itself, as the one that is being replaced."""

    hash: KeyHash = Field(
        description="Its hash, as `tollway keys new` prints it.",
        examples=["sha256:<64 hex digits>"],
    )
    expires: AwareDatetime = Field(
        description="From when on it is refused.", examples=["2027-01-31T00:00:00Z"]
    )


class TenantRate(Table):
    """How fast the tenant may call; above it, 429 with Retry-After. Workers have equal shares."""

    requests_per_s: float | None = Field(
        default=None, gt=0.0, le=1e6, description="Requests a second."
    )
    burst: float | None = Field(
        default=None, ge=1.0, le=1e6, description="Requests at once; those of a second by default."
    )
    usd_per_s: float | None = Field(
        default=None,
        gt=0.0,
        le=1e6,
        description="Dollars a second, over a few of them; what holds spend exactly is a budget.",
    )


class Tenant(Table):
    """Someone who calls, known by a key."""

    name: Name = Field(description="Its name in budgets, metrics and reports.")
    key_hash: KeyHash | None = Field(
        default=None,
        description="The hash of its key, as `tollway keys new` prints it.",
        examples=["sha256:<64 hex digits>"],
    )
    key_hashes: tuple[KeyHash, ...] = Field(
        default=(), description="Several, while a key is being replaced."
    )
    keys: tuple[TenantKey, ...] = Field(default=(), description="Keys that end by themselves.")
    routes: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The routes it may call; all, if left out."
    )
    rate: TenantRate | None = Field(default=None, description="How fast it may call.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.hashes and not self.keys:
            raise WrongKey("key_hash", "is missing; write what this prints: tollway keys new")
        return self

    @property
    def hashes(self) -> tuple[str, ...]:
        """The hashes of all its keys."""
        single = () if self.key_hash is None else (self.key_hash,)
        return tuple(value.get_secret_value() for value in (*single, *self.key_hashes))

    @property
    def ends(self) -> dict[str, float]:
        """The keys that end by themselves: by hash, when, in seconds since the epoch."""
        return {key.hash.get_secret_value(): key.expires.timestamp() for key in self.keys}


class BudgetScope(Table):
    """Whom a budget binds: calls that match every part given; none given, every call."""

    tenant: str | None = Field(default=None, description="A tenant's name.")
    route: str | None = Field(default=None, description="A route's name.")
    backend: str | None = Field(default=None, description="A backend's name.")
    tags: dict[Name, str] = Field(
        default_factory=dict,
        max_length=16,
        description="Tags that the request carries.",
        examples=['{ cost_center = "ads" }'],
    )


class BudgetLimit(Table):
    """A limit in dollars for a scope and a window."""

    name: Name = Field(description="Its name in refusals, metrics and alerts.")
    scope: BudgetScope = Field(default=BudgetScope(), description="Whom it binds.")
    limit_usd: Usd = Field(
        description="The limit for each window; at most 9 decimals.", examples=[10.0]
    )
    window: Window = Field(
        default="ever", description="`hour`, `day`, `week` (from Monday), `month`, or `ever`."
    )
    timezone: TimeZone = Field(
        default="UTC", description="Where its days begin.", examples=["Europe/Berlin"]
    )
    enforcement: Enforcement = Field(
        default="hard",
        description="`hard` holds the certain maximum of each call, `expected` the learned 95 % "
        "quantile, `soft` only counts and alerts.",
    )
    alert_at: tuple[Annotated[Float, Field(gt=0, le=10)], ...] = Field(
        default=(0.8, 0.9, 1.0),
        max_length=10,
        description="Shares of the limit that raise an event each.",
    )
    downgrade_at: Share | None = Field(
        default=None,
        description="Share of the limit above which only calls up to `downgrade_max_usd` are made.",
        examples=[0.8],
    )
    downgrade_max_usd: Float | None = Field(
        default=None, gt=0, description="The dearest call after `downgrade_at`.", examples=[0.0001]
    )
    then: Literal["reject", "cheapest", "rules"] = Field(
        default="reject",
        description="What a call gets that the budget does not pay for: a refusal, the cheapest "
        "backend that it does pay for, or a rules backend.",
    )
    carry_overdraft: bool = Field(
        default=False,
        description="Whether what bills overspent in a window is taken from the next one's limit.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.carry_overdraft and (self.window == "ever" or self.enforcement == "soft"):
            raise WrongKey(
                "carry_overdraft",
                "needs a window that ends and an enforcement that refuses; set window, and "
                'enforcement = "hard" or "expected", or leave it out',
            )
        if self.limit_nano > MAX_LIMIT_NANO:
            raise WrongKey(
                "limit_usd",
                "must be below 9007199.254740992 (2^53 nano-dollars); use a shorter window, or "
                "several budgets",
            )
        if (self.downgrade_at is None) != (self.downgrade_max_usd is None):
            raise WrongKey("downgrade_at", "goes with downgrade_max_usd; give both or neither")
        if list(self.alert_at) != sorted(set(self.alert_at)):
            raise WrongKey("alert_at", "must rise; write it like [0.8, 0.9, 1.0]")
        return self

    @property
    def limit_nano(self) -> int:
        """The limit in nano-dollars, exactly."""
        return int(self.limit_usd * NANO)

    def to_budget(self) -> Budget:
        """Return the budget in integer nano-dollars."""
        scope = self.scope
        return Budget(
            name=self.name,
            scope=Scope(
                scope.tenant, scope.route, scope.backend, tuple(sorted(scope.tags.items()))
            ),
            limit_nano=self.limit_nano,
            window=self.window,
            timezone=self.timezone,
            enforcement=self.enforcement,
            alert_at=self.alert_at,
            downgrade_at=self.downgrade_at,
            downgrade_max_usd=self.downgrade_max_usd,
            then=self.then,
            carry_overdraft=self.carry_overdraft,
        )


class Anomalies(Table):
    """What spend counts as not as usual; noticed without any setting."""

    enabled: bool = Field(default=True, description="Whether spend is watched.")
    ratio: Float = Field(
        default=1.5,
        gt=1,
        le=1000,
        description="How many times the usual for this hour of the week; more while less is known.",
    )
    min_usd_per_hour: Float = Field(
        default=1.0, ge=0, description="The least excess over the usual that is told of."
    )


class Webhook(Table):
    """An address that events are sent to."""

    name: Name = Field(description="Its name in the log.", examples=["on-call"])
    url: WebUrl = Field(
        description="Where they are posted; hidden wherever settings are shown, since Slack's are "
        "secret. Better set as `TOLLWAY_WEBHOOKS__<NAME>__URL`.",
        examples=["https://hooks.example.com/tollway"],
    )
    format: Literal["cloudevents", "slack"] = Field(
        default="cloudevents", description="CloudEvents 1.0 in JSON, or a message as Slack has it."
    )
    secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Signs them (`webhook-signature`, as Standard Webhooks has it).",
    )
    events: tuple[str, ...] = Field(
        default=(),
        description="The kinds of events that it gets; all of them by default.",
        examples=[["spend_anomaly", "threshold"]],
    )


class Log(Table):
    """The log, on stderr."""

    format: Literal["text", "json"] = Field(
        default="text", description="Lines for people, or one JSON object a line."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="The least that is written; requests have their own setting."
    )
    requests: Literal["off", "failed", "all"] = Field(
        default="off",
        description="A line for each request with its decision, backend, cost and duration; or for "
        "those answered with 4xx or 5xx, or not at all.",
    )


class Tracing(Table):
    """OpenTelemetry traces; needs `tollway[otel]`."""

    endpoint: BackendUrl | None = Field(
        default=None,
        description="The base address of an OTLP receiver (HTTP); without one nothing is traced. "
        "The standard's variables hold too, such as `OTEL_EXPORTER_OTLP_HEADERS`.",
        examples=["http://127.0.0.1:4318"],
    )
    sample: Share = Field(
        default=0.01,
        description="The share of requests to trace, of those that bring no trace context; the "
        "others are traced where their caller is.",
    )


class Settings(BaseSettings):
    """A whole configuration. Read one with `load`, which also checks what its tables agree on."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the document alone: `environment` has written the overrides into it."""
        return (init_settings,)

    server: Server = Server()
    ledger: Ledger = Ledger()
    journal: Journal = Journal()
    state: State = State()
    backends: tuple[Backend, ...] = Field(min_length=1)
    routes: tuple[Route, ...] = Field(min_length=1)
    tenants: tuple[Tenant, ...] = ()
    budgets: tuple[BudgetLimit, ...] = ()
    anomalies: Anomalies = Anomalies()
    webhooks: tuple[Webhook, ...] = ()
    log: Log = Log()
    tracing: Tracing = Tracing()
    pepper: SecretStr | None = Field(
        default=None,
        description="The secret that `hmac-sha256:` key hashes are made with. "
        "Set it as `TOLLWAY_PEPPER`, not in the file.",
    )

    def effective(self) -> dict[str, Any]:
        """Return all of it, defaults included and secrets hidden, as JSON types."""
        document: dict[str, Any] = _shown(self.model_dump(exclude_none=True))
        return document


def _shown(value: Any) -> Any:
    match value:
        case dict():
            return {key: _shown(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_shown(inner) for inner in value]
        case SecretStr():
            return "(hidden)"
        case Path() | datetime():
            return str(value)
        case Decimal():
            # A number where a double holds it exactly, else its digits: nothing is rounded.
            number = float(value)
            return number if Decimal(repr(number)) == value else str(value)
    return value


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a configuration file with what `environ` overrides; ConfigError names all problems.

    The rules that it names are read too, and its policies are tried with their options.
    """
    text, folder = _read(path), path.absolute().parent
    settings = parse(text, environ, source=path.name, folder=folder)
    problems = [
        *_unusable_rules(settings, path.name),
        *_unusable_files(settings, path.name),
        *_unusable_options(settings, path.name),
        *_unusable_resorts(settings, path.name),
        *_missing(settings, path.name),
    ]
    if problems:
        raise ConfigError(problems)
    return settings


def parse(
    text: str, environ: Mapping[str, str], *, source: str = "tollway.toml", folder: Path = Path()
) -> Settings:
    """Read a configuration's text, as `load` does; relative paths in it begin at `folder`."""
    try:
        raw = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as exc:
        # What is never closed is noticed "at end of document": say where that is.
        end = f"at line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}"
        why = f"is not TOML: {exc}".replace("at end of document", end)
        raise ConfigError([Problem(source, "", why)]) from None
    for table in ("server", "ledger", "journal", "state"):
        raw.setdefault(table, {})  # so that defaults which are paths begin at `folder` too
    overridden, problems = environment.apply(raw, environ, Settings)
    settings: Settings | None = None
    try:
        token = FOLDER.set(folder)
        try:
            settings = Settings(**raw)
        finally:
            FOLDER.reset(token)
    except ValidationError as exc:
        problems += [
            _problem(source, location, value, why, overridden)
            for location, value, why in of_validation(exc, Settings)
        ]
    problems += [
        _problem(source, location, value, why, overridden)
        for location, value, why in consistency.check(raw)
    ]
    if settings is None or problems:
        raise ConfigError(problems)
    return settings


def _problem(
    source: str, location: Location, value: str, why: str, overridden: Mapping[Location, str]
) -> Problem:
    for length in range(len(location), 0, -1):
        variable = overridden.get(location[:length])
        if variable is not None:
            return Problem("environment", variable, why, value)
    return Problem(source, key_of(location), why, value)


def _unusable_rules(settings: Settings, source: str) -> Iterator[Problem]:
    for index, backend in enumerate(settings.backends):
        if backend.kind != "rules":
            continue
        key = "rules" if backend.rules is not None else "entry_point"
        # Rules speak what their routes speak; those of no route are read all the same.
        spoken = {route.protocol for route in settings.routes if backend.name in route.backends}
        try:
            for name in sorted(spoken) or ["oip"]:
                open_rules(protocol(name), rules=backend.rules, entry_point=backend.entry_point)
        except OSError as exc:
            why = f"cannot be read: {exc.strerror}; write the path of a file of rules"
            yield Problem(source, f"backends[{index}].{key}", why, show(str(backend.rules)))
        except ValueError as exc:
            yield Problem(source, f"backends[{index}].{key}", str(exc))


def _unusable_files(settings: Settings, source: str) -> Iterator[Problem]:
    from gateway import tls  # noqa: PLC0415 - it knows the settings

    served = settings.server.tls
    if served is not None:
        try:
            tls.listening(served)
        except OSError as exc:
            why = tls.trouble(exc, served.cert, served.key, served.client_ca)
            yield Problem(source, "server.tls", why)
    for index, backend in enumerate(settings.backends):
        try:
            tls.connecting(backend.tls)
        except OSError as exc:
            assert backend.tls is not None
            why = tls.trouble(exc, backend.tls.ca, backend.tls.cert, backend.tls.key)
            yield Problem(source, f"backends[{index}].tls", why)


def _unusable_options(settings: Settings, source: str) -> Iterator[Problem]:
    for index, route in enumerate(settings.routes):
        try:
            build(route.policy, route.to_objective(), options=route.policy_options, seed=0)
        except ValueError as exc:
            yield Problem(source, f"routes[{index}].policy_options", str(exc))


def _unusable_resorts(settings: Settings, source: str) -> Iterator[Problem]:
    """Hold each last resort to what the replies of its route are held to."""
    for index, route in enumerate(settings.routes):
        if route.last_resort is None:
            continue
        clauses = contract.Contract([clause.to_clause() for clause in route.answers], "outputs")
        body = route.last_resort.encode()
        try:
            protocol(route.protocol).answer(Payload(), Reply(200, [], Whole(body)), body)
            breach = clauses.breach(load_reply(body))
        except ValueError as exc:
            why = f"is no answer of protocol {route.protocol}: {exc}"
            yield Problem(source, f"routes[{index}].last_resort", why, show(route.last_resort))
        else:
            if breach is not None:
                why = f"is not what `answers` asks for: {breach.field} {breach.why}"
                yield Problem(source, f"routes[{index}].last_resort", why)


def _missing(settings: Settings, source: str) -> Iterator[Problem]:
    if settings.tracing.endpoint is not None and find_spec("opentelemetry") is None:
        why = "needs OpenTelemetry; install it with: pip install 'tollway[otel]'"
        yield Problem(source, "tracing.endpoint", why)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as exc:
        why = f"cannot be read: {exc.strerror}; give the path of a file such as tollway.toml"
        raise ConfigError([Problem(str(path), "", why)]) from None
    if len(content) > _FILE_BYTES_MAX:
        why = f"is larger than {_FILE_BYTES_MAX} bytes; split its tenants over several gateways"
        raise ConfigError([Problem(path.name, "", why)])
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        why = f"is not UTF-8 at byte {exc.start}; save it as UTF-8"
        raise ConfigError([Problem(path.name, "", why)]) from None
