"""The table of a route: its backends, its policy, and the schemas of requests and replies."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from tollway.backends.protocols.http import places
from tollway.backends.protocols.registry import LANGUAGE_MODELS, PRESET, PRESET_NAMES
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.caching.tables import RouteCacheConfig
from tollway.gateway.settings.errors import KeyProblem, did_you_mean
from tollway.gateway.settings.signals.guard import GuardConfig
from tollway.gateway.settings.signals.hook import SignalConfig
from tollway.gateway.settings.types import (
    PROTOCOL_NAMES,
    DefaultBy,
    Float,
    ForwardedHeader,
    FreePath,
    FreeTable,
    Int,
    JsonPath,
    Name,
    PolicyName,
    Protocol,
    RoutePath,
    Seconds,
    Share,
    StaticModel,
)
from tollway.gateway.settings.validation import ConstraintConfig
from tollway.policies.registry import POLICIES
from tollway.policies.types import Objective

_POLICIES = ", ".join(f"`{name}`" for name in sorted({*POLICIES} - {"cascade"}))


class FeaturesConfig(ConfigTable):
    """The request features that the policy uses, as paths into the request's JSON."""

    numeric: tuple[JsonPath, ...] = Field(
        default=(),
        description="Paths of numbers, or of lists of numbers.",
        examples=[["inputs[0].data"]],
    )
    text: tuple[JsonPath, ...] = Field(
        default=(),
        description="Paths of texts, which are split into words.",
        examples=[["messages[*].content"]],
    )
    categorical: tuple[JsonPath, ...] = Field(
        default=(),
        description="Paths of strings that are used as a whole.",
        examples=[["parameters.country"]],
    )
    range: tuple[Float, Float] | None = Field(
        default=None,
        description="Minimum and maximum of the numbers, used to scale them.",
        examples=[[0, 16]],
    )

    embedding: StaticModel | None = Field(
        default=None,
        description="Static model that turns the texts into 64 numbers, in this process: "
        '`"wordllama"` (extra `embeddings`), or a folder with `tokenizer.json` and one '
        "`*.safetensors`. The policy uses the numbers as far as they route better.",
        examples=["wordllama"],
    )

    embedding_backend: Name | None = Field(
        default=None,
        description="Backend with protocol openai that embeds the texts instead, by "
        "`/v1/embeddings`, before the request is routed ([what it costs](choosing.md#embeddings)).",
        examples=["embedder"],
    )
    embedding_timeout_s: Seconds = Field(
        default=0.3,
        description="Longest that a request waits for `embedding_backend`; then it is routed "
        "without an embedding.",
    )

    @property
    def is_embedded(self) -> bool:
        """Whether requests have an embedding."""
        return self.embedding is not None or self.embedding_backend is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        key = "embedding" if self.embedding is not None else "embedding_backend"
        if self.is_embedded and not self.text:
            raise KeyProblem(key, 'needs texts; write text = ["messages[*].content"], or remove it')
        if self.embedding is not None and self.embedding_backend is not None:
            raise KeyProblem(key, "contradicts embedding_backend; remove one of them")
        for path in (*self.numeric, *self.text, *self.categorical):
            places.check_request(path)
        if self.range is not None and not self.range[0] < self.range[1]:
            raise KeyProblem("range", "must be [minimum, maximum]; write it like [0, 16]")
        return self


class ScoreConfig(ConfigTable):
    """How an answer is scored against the true label that feedback provides."""

    exact: JsonPath | None = Field(
        default=None,
        description="Path of the answer in the reply. The answer is correct if it equals the "
        "label. A list is scored row by row against a list of labels.",
        examples=["outputs[0].data[0]"],
    )
    near: JsonPath | None = Field(
        default=None,
        description="Path of the answer in the reply. The answer is correct if it is within "
        "`tolerance` of the label.",
        examples=["outputs[0].data[0]"],
    )
    tolerance: Float | None = Field(
        default=None,
        gt=0,
        description="Largest difference that counts as correct.",
        examples=[0.5],
    )
    argmax: bool | None = Field(
        default=None,
        description="With `exact`: whether the answer is a list of scores, one per class, of which "
        "the greatest counts. The label is then the index of a class, starting at 0. Default: "
        "true if the list holds fractions that add up to 1.",
        examples=[True],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.argmax is not None and self.exact is None:
            raise KeyProblem("argmax", "applies only to exact, not to near; remove it")
        if (self.exact is None) == (self.near is None):
            raise ValueError('needs either exact or near; write { exact = "outputs[0].data[0]" }')
        if (self.near is None) != (self.tolerance is None):
            raise KeyProblem("tolerance", "must be set together with near; set both or neither")
        return self


class AuditConfig(ConfigTable):
    """Audits: some answers are compared with a reference backend's, off the clients' path."""

    backend: str = Field(
        description="The reference: a backend of the route whose answers are taken as correct.",
        examples=["digits-gpu"],
    )
    share: Share = Field(
        default=0.01,
        gt=0,
        description="Average share of answers to audit. Answers that teach the policy more are "
        "audited more often.",
    )
    budget_share: Float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Maximum cost of audits, as a share of the cost of the route's requests.",
    )


class ConfidenceConfig(ConfigTable):
    """How sure a language model's reply is, for the cascade that accepts or escalates it."""

    logprobs: bool = Field(
        default=True,
        description="Whether backends with protocol `openai` are asked for the log-probabilities "
        "of their tokens. They are removed from the reply unless the client asked for them.",
    )
    hold_tokens: Int = Field(
        default=24,
        ge=0,
        le=4096,
        description="Tokens of a stream that are held back before the cascade accepts the reply "
        "or escalates it; 0: all of it.",
    )
    verifier: Name | None = Field(
        default=None,
        description="Backend with protocol `openai` that says how likely a cheap reply is right, "
        "before it is accepted; best a model of its own. Its calls are paid like a judge's. "
        "Streams are not verified unless `hold_tokens = 0`.",
        examples=["verifier"],
    )
    verifier_timeout_s: Seconds = Field(
        default=2.0, description="Longest that a request waits for the verifier."
    )


class RouteConfig(ConfigTable):
    """A path that clients call, its backends, and how the gateway chooses among them."""

    POLICY: ClassVar[tuple[str, ...]] = (
        "policy",
        "policy_options",
        "objective",
        "accuracy_floor",
        "value_per_correct_usd",
        "baseline",
        "guard",
        "cascade",
    )
    """Keys that define a route's policy."""

    FEATURES: ClassVar[tuple[str, ...]] = ("context", "protocol", "features")
    """Keys that say what a policy sees of a request."""

    name: Name = Field(description="Name of the route in budgets, metrics and reports.")
    path: RoutePath = Field(
        description="Path that clients call: exact, with `{model}` for a whole segment, or with a "
        "trailing `/*` for everything below. If several paths match, the most specific one is "
        "used.",
        examples=["/v2/models/digits/infer"],
    )
    protocol: Protocol = Field(
        description=f"Protocol of the clients and of all backends of the route: {PROTOCOL_NAMES}.",
        examples=["oip"],
    )
    preset: Literal[PRESET_NAMES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="`http` only: what is known of a kind of server (its free paths, the answer in "
        "its replies, its errors).",
        examples=["tei"],
    )
    free: tuple[FreePath, ...] | None = Field(
        default=None,
        max_length=64,
        description="`http` and `mlflow`: paths that are passed on free of charge, such as health "
        "and schema, below the path of the route or beside it if it has no `/*`. GET and HEAD, "
        "or the method that is named. Default: those of the preset; below a `/*` without a preset, "
        "the usual ones.",
        examples=[["/health", "/docs/*", "POST /tokenize"]],
    )
    strip_path: Annotated[str, Field(pattern=r"^/[!-~]*[^/*]$")] | None = Field(
        default=None,
        description="`http` only: what is removed from the beginning of a path before it goes to a "
        "backend.",
        examples=["/bento"],
    )
    models: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        BeforeValidator(lambda models: ("*",) if models == "*" else models),
    ] = Field(
        default=(),
        max_length=64,
        description="`openai`, `anthropic` and `gemini` only: model names that select this "
        "route among several with the same path. One of those routes may omit `models`; it serves "
        'all other names. `"*"`: the same, for all models that the backends list; `GET /v1/models` '
        "shows those.",
        examples=[["smart", "gpt-4o"]],
    )
    backends: tuple[str, ...] = Field(
        min_length=1,
        max_length=64,
        description="Backends of the route.",
        examples=[["digits-cpu", "digits-gpu"]],
    )
    objective: Literal["max_quality", "min_cost", "value"] = Field(
        default="max_quality",
        description="`max_quality`: the best quality that the budgets can pay for. `min_cost`: the "
        "lowest cost above the accuracy floor. `value`: the maximum of `value_per_correct_usd` "
        "times quality, minus cost.",
    )
    accuracy_floor: Share | None = Field(
        default=None, description="Minimum share of correct answers.", examples=[0.97]
    )
    value_per_correct_usd: Float | None = Field(
        default=None, gt=0, description="Value of one correct answer, in dollars.", examples=[0.01]
    )
    baseline: str | None = Field(
        default=None,
        description="Backend that is known to meet the accuracy floor. Learning falls back to it.",
        examples=["digits-gpu"],
    )
    policy: PolicyName = Field(
        default="lagrangian",
        description=f"Policy that chooses the backend: {_POLICIES}.",
    )
    policy_options: FreeTable = Field(
        default_factory=dict,
        description="Options of the policy, such as `arm` for `fixed` or `weights` for `weighted`.",
        examples=['{ head = "ridge" }'],
    )
    guard: Literal["off", "shadow", "observe"] = Field(
        default="off",
        description="`shadow`: the baseline, or the best fixed backend if there is none, answers "
        "until the learned policy is shown to be worth more, and again when it no longer is. "
        "`observe`: it always answers, and the learned choice is only recorded.",
    )
    cascade: bool = Field(
        default=False,
        description="Whether the answer of a cheap backend may be accepted or escalated to another "
        "backend.",
    )
    confidence: ConfidenceConfig | None = Field(
        default=None,
        description="With `cascade` on a route of language models: how a reply's confidence is "
        "computed. Default: the defaults of its keys.",
        examples=["{ logprobs = true, hold_tokens = 24 }"],
    )
    fallback: bool = Field(
        default=True, description="Whether one other backend is tried when a backend fails."
    )
    fallbacks: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        description="Backends to try, in order, when a backend fails, until one answers. Default: "
        "one attempt on the backend that the policy ranks next.",
        examples=[["digits-cpu", "digits-rules"]],
    )
    static_response: str | None = Field(
        default=None,
        max_length=65_536,
        description="JSON reply to send when no backend can answer. It is not charged.",
        examples=['{"label": "unknown"}'],
    )
    retry_share: Share = Field(
        default=0.2,
        description="Maximum number of fallback calls, as a share of the requests. Calls to rules "
        "are not counted. The first 100 are not limited.",
    )
    hedge_share: float = Field(
        default=0.0,
        ge=0.0,
        le=0.5,
        description="Maximum share of requests that are hedged: the slowest requests are sent to "
        "their backend a second time, once they are slower than the rest. The first good reply is "
        "used and both calls are charged. Streams are not hedged.",
        examples=[0.05],
    )
    request_schema: tuple[ConstraintConfig, ...] = Field(
        default=(),
        max_length=64,
        description="Constraints on requests. A request that violates one gets 422 without any "
        "call to a backend.",
        examples=['[{ tensor = "image", datatype = "FP32", shape = [1, 64], range = [0, 16] }]'],
    )
    response_schema: tuple[ConstraintConfig, ...] = Field(
        default=(),
        max_length=64,
        description="Constraints on replies. A reply that violates one is never sent to the "
        "client; another backend is tried.",
        examples=['[{ at = "label", type = "integer", range = [0, 9] }]'],
    )
    forward_headers: tuple[ForwardedHeader, ...] = Field(
        default=(),
        max_length=16,
        description="Client credentials that are forwarded to the backends: `authorization`, "
        "`x-api-key`, `api-key`, `x-goog-api-key`, `cookie`, ... Default: none. A key of this "
        "gateway is never forwarded, and a backend's `auth` replaces the field of the same name.",
        examples=[["authorization"]],
    )
    no_answer: Literal["unknown", "wrong"] = Field(
        default="unknown",
        description="How a label or an audit scores a reply without an answer (empty, null, NaN): "
        "`unknown`, not at all; `wrong`, as incorrect. The reply reaches the client in either "
        "case.",
    )
    timeout_s: Seconds = Field(
        default_factory=DefaultBy("protocol", 30, **dict.fromkeys(LANGUAGE_MODELS, 600)),
        description="Maximum duration of a request, including all attempts.",
        examples=[30],
    )
    context: FeaturesConfig = Field(
        default=FeaturesConfig(), description="Features that the policy uses."
    )
    features: tuple[Name, ...] = Field(
        default=(),
        max_length=16,
        description="Groups of `[[features]]` that are joined to the context.",
        examples=[["user"]],
    )
    features_ms: Float = Field(
        default=10.0,
        ge=0,
        le=60_000,
        description="Longest wait for features. Those that come later are replaced by their "
        "defaults, or by the last known values.",
    )
    score: ScoreConfig | None = Field(
        default=None, description="How a true label is turned into quality."
    )
    cache: RouteCacheConfig | None = Field(
        default=None,
        description="Answers that are kept, and given again to the same request at no cost.",
        examples=["{ ttl_s = 3600 }"],
    )
    feedback: Literal["own", "labellers"] = Field(
        default="own",
        description="Who may send labels. `own`: each tenant, for its own requests. `labellers`: "
        "only tenants marked `labeller`, for all requests. The admin key may always send labels.",
    )
    audit: AuditConfig | None = Field(
        default=None,
        description="Audits, for routes with few labels: the reference backend and the shares.",
        examples=['{ backend = "digits-gpu", share = 0.01, budget_share = 0.05 }'],
    )

    signals: tuple[SignalConfig, ...] = Field(
        default=(),
        max_length=16,
        description="Signals that score answers after they were sent, to learn from without labels "
        "([signals](signals.md)).",
        examples=['[{ kind = "schema" }, { kind = "judge", backend = "judge", share = 0.2 }]'],
    )

    guards: tuple[GuardConfig, ...] = Field(
        default=(),
        max_length=16,
        description="Guards that tag, rewrite or refuse requests before a backend is chosen, in "
        "this order ([guards](signals.md#guards)).",
        examples=[r'[{ name = "cards", kind = "regex", pattern = "\\d{16}", act = "rewrite" }]'],
    )

    @model_validator(mode="after")
    def _check_guards(self) -> Self:
        names = [guard.name for guard in self.guards]
        if len(set(names)) != len(names):
            raise KeyProblem("guards", "has two guards with one name; rename one of them")
        return self

    @model_validator(mode="after")
    def _check_signals(self) -> Self:
        names = [signal.name for signal in self.signals]
        if len(set(names)) != len(names):
            raise KeyProblem("signals", "has two signals with one name; set `name` on one of them")
        for signal in self.signals:
            own = {"reference": signal.backend, "judge": signal.compare_to}.get(signal.kind)
            if own is not None and own not in self.backends:
                near = did_you_mean(own, self.backends)
                raise KeyProblem(
                    "signals", f"names {own!r}, which is not among the route's backends; {near}"
                )
            if signal.kind in {"judge", "users"} and self.protocol not in LANGUAGE_MODELS:
                raise KeyProblem(
                    "signals",
                    f"of kind {signal.kind!r} need a route of a language model; remove it",
                )
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.backends)) != len(self.backends):
            raise KeyProblem("backends", "contains a backend twice; remove the duplicate")
        if self.models and self.protocol not in LANGUAGE_MODELS:
            known = ", ".join(LANGUAGE_MODELS)
            raise KeyProblem(
                "models",
                f"applies only to the protocols {known}; other requests name no model, or name it "
                "in the path",
            )
        if "*" in self.models and len(self.models) > 1:
            raise KeyProblem("models", 'has "*" beside other names; write models = "*" alone')
        if self.baseline is not None and self.baseline not in self.backends:
            near = did_you_mean(self.baseline, self.backends)
            raise KeyProblem("baseline", f"is not among the route's backends; {near}")
        weights = self.policy_options.get("weights")
        named = [self.policy_options.get("arm"), *(weights if isinstance(weights, dict) else ())]
        for name in named:
            if isinstance(name, str) and name not in self.backends:
                near = did_you_mean(name, self.backends)
                why = f"names {name!r}, which is not among the route's backends; {near}"
                raise KeyProblem("policy_options", why)
        if self.objective == "min_cost" and self.accuracy_floor is None:
            raise KeyProblem(
                "objective", "requires accuracy_floor; write it like accuracy_floor = 0.97"
            )
        if self.audit is not None and self.audit.backend not in self.backends:
            near = did_you_mean(self.audit.backend, self.backends)
            raise KeyProblem(
                "audit",
                f"names {self.audit.backend!r}, which is not among the route's backends; {near}",
            )
        if self.audit is not None and self.score is None:
            raise KeyProblem(
                "audit",
                "requires a score to compare answers; write it like score = { exact = ... }",
            )
        if self.guard != "off" and self.objective == "min_cost":
            raise KeyProblem(
                "guard",
                'does not apply to objective = "min_cost", which the baseline guards; remove it',
            )
        if self.guard != "off" and self.cascade:
            raise KeyProblem("guard", "cannot be combined with cascade; remove one of them")
        if self.objective == "value" and self.value_per_correct_usd is None:
            raise KeyProblem(
                "objective",
                "requires value_per_correct_usd; write it like value_per_correct_usd = 0.01",
            )
        return self

    @model_validator(mode="after")
    def _check_paths(self) -> Self:
        for key in ("preset", "strip_path", "free"):
            takes = (*PRESET, "mlflow") if key == "free" else PRESET
            if getattr(self, key) is not None and self.protocol not in takes:
                raise KeyProblem(key, f"applies only to the protocols {', '.join(takes)}")
        return self

    @model_validator(mode="after")
    def _check_the_way_down(self) -> Self:
        for name in self.fallbacks:
            if name not in self.backends:
                near = did_you_mean(name, self.backends)
                why = f"names {name!r}, which is not among the route's backends; {near}"
                raise KeyProblem("fallbacks", why)
        if len(set(self.fallbacks)) != len(self.fallbacks):
            raise KeyProblem("fallbacks", "contains a backend twice; remove the duplicate")
        if self.fallbacks and not self.fallback:
            raise KeyProblem("fallbacks", "contradicts fallback = false; remove one of them")
        if self.protocol != "oip":
            for key in ("request_schema", "response_schema"):
                if any(clause.tensor is not None for clause in getattr(self, key)):
                    raise KeyProblem(
                        key, "names a tensor, which only protocol oip has; write `at` instead"
                    )
        return self

    @model_validator(mode="after")
    def _check_embedding(self) -> Self:
        if not self.context.is_embedded:
            return self
        if self.policy != "lagrangian" or self.cascade:
            raise KeyProblem(
                "context",
                'has an embedding, which only policy = "lagrangian" without cascade can choose to '
                "use; remove it",
            )
        if self.policy_options.get("head", "ridge") != "ridge":
            raise KeyProblem(
                "policy_options", 'an embedding needs head = "ridge"; remove one of them'
            )
        return self

    @model_validator(mode="after")
    def _check_confidence(self) -> Self:
        if self.confidence is not None and not (self.cascade and self.protocol in LANGUAGE_MODELS):
            known = ", ".join(LANGUAGE_MODELS)
            raise KeyProblem(
                "confidence",
                f"applies only to cascades of the protocols {known}; write cascade = true or "
                "remove it",
            )
        return self

    @property
    def text_confidence(self) -> ConfidenceConfig | None:
        """How the confidence of replies is computed; None if they are not texts in a cascade."""
        if not self.cascade or self.protocol not in LANGUAGE_MODELS:
            return None
        return self.confidence or ConfidenceConfig()

    def to_objective(self) -> Objective:
        """Return the objective that the policy optimizes."""
        return Objective(
            kind=self.objective,
            floor=self.accuracy_floor,
            value_per_correct_usd=self.value_per_correct_usd,
            baseline=self.baseline,
        )
