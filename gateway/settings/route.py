"""The table of a route: who can answer, how one is chosen, what is asked of both sides."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem, did_you_mean
from tollway.gateway.settings.types import (
    PROTOCOL_NAMES,
    DefaultBy,
    Float,
    ForwardedHeader,
    FreeTable,
    JsonPath,
    Name,
    PolicyName,
    Protocol,
    RoutePath,
    Seconds,
    Share,
)
from tollway.gateway.settings.validation import ConstraintConfig
from tollway.policies.registry import POLICIES
from tollway.policies.types import Objective

_POLICIES = ", ".join(f"`{name}`" for name in sorted({*POLICIES} - {"cascade"}))


class FeaturesConfig(ConfigTable):
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
            raise KeyProblem("range", "must rise; write it like [0, 16]")
        return self


class ScoreConfig(ConfigTable):
    """How an answer is scored when feedback brings the true label."""

    exact: JsonPath | None = Field(
        default=None,
        description="The answer's place in the reply: right when it equals the label. A list is "
        "scored row by row against a list of labels.",
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
    argmax: bool | None = Field(
        default=None,
        description="With `exact`: whether the answer is a list of scores, one for each class, of "
        "which the greatest counts; the label is then the index of a class, from 0. By default "
        "where the list holds fractions that add up to 1.",
        examples=[True],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.argmax is not None and self.exact is None:
            raise KeyProblem("argmax", "goes with exact; near compares numbers")
        if (self.exact is None) == (self.near is None):
            raise ValueError('needs either exact or near; write { exact = "outputs[0].data[0]" }')
        if (self.near is None) != (self.tolerance is None):
            raise KeyProblem("tolerance", "goes with near; give both or neither")
        return self


class AuditConfig(ConfigTable):
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


class RouteConfig(ConfigTable):
    """A path that clients call, the backends that can answer it, and how to choose among them."""

    name: Name = Field(description="Its name in budgets, metrics and reports.")
    path: RoutePath = Field(
        description="The path that clients call: exact, with `{model}` for a whole segment, or "
        "with a trailing `/*` for all below. Of several that match, the most specific is taken.",
        examples=["/v2/models/digits/infer"],
    )
    protocol: Protocol = Field(
        description=f"What clients speak on it, and so do its backends: {PROTOCOL_NAMES}.",
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
    fallbacks: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        description="Whom to ask in place of a backend that fails, first to last, until one "
        "answers; by default once whom the policy thinks next best.",
        examples=[["digits-cpu", "digits-rules"]],
    )
    static_response: str | None = Field(
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
    request_schema: tuple[ConstraintConfig, ...] = Field(
        default=(),
        max_length=64,
        description="What requests must hold; others get 422, and no backend is asked.",
        examples=['[{ tensor = "image", datatype = "FP32", shape = [1, 64], range = [0, 16] }]'],
    )
    response_schema: tuple[ConstraintConfig, ...] = Field(
        default=(),
        max_length=64,
        description="What replies must hold; for others another backend is asked, and they never "
        "reach the client.",
        examples=['[{ at = "label", type = "integer", range = [0, 9] }]'],
    )
    forward_headers: tuple[ForwardedHeader, ...] = Field(
        default=(),
        max_length=16,
        description="Which of a client's own credentials go on to the backends: `authorization`, "
        "`x-api-key`, `api-key`, `x-goog-api-key`, `cookie`, ... By default none does. A key of "
        "this gateway never does, and a backend's `auth` replaces the field of the same name.",
        examples=[["authorization"]],
    )
    no_answer: Literal["unknown", "wrong"] = Field(
        default="unknown",
        description="What a label or an audit says of a reply that holds no answer (empty, null, "
        "NaN): nothing, or that it was wrong. The reply reaches the client in either case.",
    )
    timeout_s: Seconds = Field(
        default_factory=DefaultBy("protocol", 30, openai=600),
        description="The longest that a request may take in all.",
        examples=[30],
    )
    context: FeaturesConfig = Field(default=FeaturesConfig(), description="What the policy sees.")
    score: ScoreConfig | None = Field(
        default=None, description="How a true label is turned into quality."
    )
    feedback: Literal["own", "labellers"] = Field(
        default="own",
        description="Who may say what answers were worth. `own`: each tenant, of its own requests. "
        "`labellers`: tenants marked `labeller` alone, of all requests. The admin key may always.",
    )
    audit: AuditConfig | None = Field(
        default=None,
        description="Where labels are scarce: answers of which backend others are compared to.",
        examples=['{ backend = "digits-gpu", share = 0.01, budget_share = 0.05 }'],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.backends)) != len(self.backends):
            raise KeyProblem("backends", "names one of them twice; remove one")
        if self.models and self.protocol != "openai":
            raise KeyProblem("models", "is for protocol openai alone; others have them in the path")
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
            raise KeyProblem("objective", "needs a floor; write it like accuracy_floor = 0.97")
        if self.audit is not None and self.audit.backend not in self.backends:
            near = did_you_mean(self.audit.backend, self.backends)
            raise KeyProblem("audit", f"names no backend of the route; {near}")
        if self.audit is not None and self.score is None:
            raise KeyProblem(
                "audit", "needs to compare answers; add a score, such as { exact = ... }"
            )
        if self.guard != "off" and self.objective == "min_cost":
            raise KeyProblem("guard", "is not for min_cost: its floor is guarded by the baseline")
        if self.guard != "off" and self.cascade:
            raise KeyProblem("guard", "is not for cascades; remove one of the two")
        if self.objective == "value" and self.value_per_correct_usd is None:
            raise KeyProblem("objective", "needs a value; write value_per_correct_usd = 0.01")
        return self

    @model_validator(mode="after")
    def _check_the_way_down(self) -> Self:
        for name in self.fallbacks:
            if name not in self.backends:
                near = did_you_mean(name, self.backends)
                why = f"names {name!r}, which is not among the route's backends; {near}"
                raise KeyProblem("ladder", why)
        if len(set(self.fallbacks)) != len(self.fallbacks):
            raise KeyProblem("ladder", "names one of them twice; remove one")
        if self.fallbacks and not self.fallback:
            raise KeyProblem("ladder", "is a way to fall back; remove fallback = false")
        if self.protocol != "oip":
            for key in ("request_schema", "response_schema"):
                if any(clause.tensor is not None for clause in getattr(self, key)):
                    raise KeyProblem(key, "names a tensor, which only protocol oip has; write `at`")
        return self

    def to_objective(self) -> Objective:
        """Return what the route wants of its policy."""
        return Objective(
            kind=self.objective,
            floor=self.accuracy_floor,
            value_per_correct_usd=self.value_per_correct_usd,
            baseline=self.baseline,
        )
