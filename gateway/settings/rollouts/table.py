"""The table of a rollout: a candidate version of a backend, its steps and its criteria.

The steps speak Argo Rollouts' vocabulary: `setWeight`, `pause`, `analysis`, `failureLimit`.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import BackendUrl, Float, FreeTable, Int, Name, Share, Usd

METRICS = ("quality", "error_rate", "invalid_rate", "p95_latency", "cost", "value", "answers")
MIN_S: dict[str, float] = {"": 0.0, "staging": 600.0, "production": 86_400.0}
MAX_S: dict[str, float] = {"": 604_800.0, "staging": 86_400.0, "production": 604_800.0}

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)([smhd])")
_DURATION_S_MAX = 90 * 86_400.0


def _duration_s(value: Any) -> float:
    """Return the seconds of a duration, written as Argo writes it: 30s, 10m, 1h, 7d."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value)):
        seconds = float(found[1]) * _UNITS_S[found[2]]
        if seconds <= _DURATION_S_MAX:
            return seconds
        raise ValueError("is longer than 90d; write a shorter one")
    if isinstance(value, float) and 0.0 <= value <= _DURATION_S_MAX:  # read before, as seconds
        return value
    raise ValueError('must be a duration with its unit; write it like "10m", "24h" or "7d"')


Duration = Annotated[float, BeforeValidator(_duration_s)]


def _pause(value: Any) -> Any:
    """Return a pause as a table; a text is its duration."""
    return {"duration": value} if isinstance(value, str | float) else value


class PauseConfig(ConfigTable):
    """How long a step lasts at least."""

    duration: Duration | None = Field(
        default=None,
        description="Minimum length of the step. If omitted, the step lasts until a person "
        "resumes the rollout.",
        examples=["10m"],
    )


class StepConfig(ConfigTable):
    """One step: Argo's keys, one or several in a table."""

    setWeight: Float | None = Field(  # noqa: N815 - Argo's name
        default=None,
        ge=0,
        le=100,
        description="The candidate's percentage of what the stable version would have got. Begins "
        "a new step.",
        examples=[10],
    )
    pause: Annotated[PauseConfig | None, BeforeValidator(_pause)] = Field(
        default=None,
        description='How long the step lasts at least: `"10m"` or `{ duration = "10m" }`. `{}`: '
        "until a person resumes the rollout.",
        examples=["10m"],
    )
    analysis: bool = Field(
        default=True, description="Whether the criteria must be met before the step ends."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.setWeight is None and self.pause is None:
            raise ValueError('needs setWeight or pause; write { setWeight = 10, pause = "10m" }')
        return self


class CriterionConfig(ConfigTable):
    """What one metric of the candidate must show, compared with the stable version."""

    metric: Literal[
        "quality", "error_rate", "invalid_rate", "p95_latency", "cost", "value", "answers"
    ] = Field(
        description="`quality`: of labels, audits or agreement. `error_rate`. `invalid_rate`: "
        "replies without an answer (empty, NaN) or that break the route's schema. `p95_latency`. "
        "`cost` per request. `value`: `value_per_correct_usd` times quality, less the cost, in "
        "dollars. `answers`: how far the distribution of answers is from the stable version's.",
        examples=["error_rate"],
    )
    tolerance: Float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="The rollout is rolled back as soon as the candidate is shown to be worse than "
        "the stable version by more than this. `p95_latency` and `cost`: as a share, 0.1 is 10 %.",
        examples=[0.005],
    )
    margin: Float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="A step ends once the candidate is shown to be worse by no more than this. If "
        "omitted, the metric only ever stops a rollout.",
        examples=[0.02],
    )
    limit: Float | None = Field(
        default=None,
        description="Absolute bound on the candidate: the least quality or value, the greatest "
        "rate, seconds of latency or dollars. It is checked beside `tolerance`, which is 0 if "
        "omitted, and does not replace it: raise `tolerance` where only the limit should stop a "
        "rollout.",
        examples=[0.85],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.margin is not None and self.margin <= self.tolerance:
            raise KeyProblem("margin", "must be greater than tolerance; raise it")
        return self


class CandidateConfig(ConfigTable):
    """The new version: an address, a backend of this configuration, or a registry's entry."""

    url: BackendUrl | None = Field(
        default=None,
        description="Its address. All other settings are those of the stable backend, except "
        "`model` and `price`, where given.",
        examples=["http://127.0.0.1:9003"],
    )
    model: str | None = Field(
        default=None, description="Its name of the model, with `url`.", examples=["digits-v2"]
    )
    price: FreeTable | None = Field(
        default=None,
        description="Its price, with `url`. Default: the stable backend's.",
        examples=["{ per_request_usd = 0.0001 }"],
    )
    backend: str | None = Field(
        default=None,
        description="The name of a backend of this configuration, which is on none of the "
        "rollout's routes.",
        examples=["digits-gpu-v2"],
    )
    registry: str | None = Field(
        default=None,
        description="The model in the registry, whose `challenger` is the candidate.",
        examples=["digits"],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [key for key in ("url", "backend", "registry") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                'needs one of url, backend and registry; write { url = "http://127.0.0.1:9003" }'
            )
        for key in ("model", "price"):
            if getattr(self, key) is not None and self.url is None:
                raise KeyProblem(key, "belongs to a candidate with a url; remove it")
        return self


class MirrorConfig(ConfigTable):
    """Mirrored requests: copies to the candidate, off the clients' path."""

    share: Share = Field(
        default=0.1, gt=0, description="Share of the stable version's requests to mirror."
    )
    budget_usd_per_hour: Usd | None = Field(
        default=None,
        description="Most that mirrored requests may cost per hour and process. The budgets that "
        "match a request apply to its copy as well.",
        examples=[0.5],
    )
    concurrency: Int = Field(
        default=4, ge=1, le=256, description="Mirrored requests in progress at once, per process."
    )


class SmokeConfig(ConfigTable):
    """A request that the candidate must answer with a status below 400 before the switch."""

    path: str = Field(
        default="",
        description="Its path. With an empty `body` it is a GET. Default: the route's path.",
        examples=["/v2/health/ready"],
    )
    body: str = Field(
        default="",
        max_length=65_536,
        description="Its JSON body, sent by POST.",
        examples=['{"inputs": []}'],
    )


class RolloutConfig(ConfigTable):
    """A new version of a backend, rolled out in steps. See [rollouts](rollouts.md)."""

    name: Name = Field(description="Name of the rollout.", examples=["digits-v2"])
    backend: str = Field(description="The stable version.", examples=["digits-gpu"])
    candidate: CandidateConfig = Field(
        description="The new version.", examples=['{ url = "http://127.0.0.1:9003" }']
    )
    strategy: Literal["shadow", "canary", "blue_green"] = Field(
        default="canary",
        description="`shadow`: only copies of requests. `canary`: a share that grows by `steps`. "
        "`blue_green`: all at once, after smoke requests.",
    )
    routes: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        description="The routes on which the candidate takes part. Default: all with `backend`.",
        examples=[["digits"]],
    )
    sticky: str = Field(
        default="request",
        pattern=r"^(request|tenant|session|header:[a-z0-9-]{1,64})$",
        description="What keeps a client on one version: its `tenant`, its `session` (the header "
        "x-session-id) or another header, `header:x-user-id`. `request`: nothing.",
        examples=["header:x-user-id"],
    )
    preset: Literal["", "staging", "production"] = Field(
        default="",
        description="Durations: `staging` lasts 10 minutes to 24 hours, `production` 24 hours to 7 "
        "days. Without it, the minimum is 0 and the maximum 7 days.",
    )
    min_duration: Duration | None = Field(
        default=None, description="Minimum time until promotion.", examples=["1h"]
    )
    max_duration: Duration | None = Field(
        default=None,
        description="Time after which a rollout is inconclusive if its criteria are still not met.",
        examples=["24h"],
    )
    steps: tuple[StepConfig, ...] = Field(
        default=(),
        max_length=32,
        description="The steps of a canary. Default: 10, 50 and 100 percent.",
        examples=['[{ setWeight = 10, pause = "10m" }, { setWeight = 50, pause = "1h" }]'],
    )
    criteria: tuple[CriterionConfig, ...] = Field(
        default=(),
        max_length=7,
        description="What must hold. Default: see [rollouts](rollouts.md#criteria).",
        examples=['[{ metric = "error_rate", tolerance = 0.001, margin = 0.01 }]'],
    )
    alpha: Float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="Chance that a candidate which is no worse is rolled back, however long the "
        "rollout lasts, over all criteria.",
    )
    failureLimit: Int = Field(  # noqa: N815 - Argo's name
        default=0,
        ge=0,
        le=100,
        description="Number of failed analyses after which the step is only restarted. The next "
        "one rolls back.",
    )
    inconclusive: Literal["pause", "abort", "promote"] = Field(
        default="pause", description="What to do when `max_duration` is over."
    )
    min_samples: Int = Field(
        default=30,
        ge=1,
        le=1_000_000,
        description="Observations of the candidate per criterion before a step may end.",
    )
    keep_s: Float = Field(
        default=600.0,
        ge=0,
        le=604_800,
        description="How long the stable version is kept warm after the promotion, so that `abort` "
        "switches back at once.",
    )
    smoke: tuple[SmokeConfig, ...] = Field(
        default=(),
        max_length=16,
        description="Requests that the candidate of a `blue_green` must answer before the switch.",
        examples=['[{ path = "/v2/health/ready" }]'],
    )
    mirror: MirrorConfig | None = Field(
        default=None, description="How a `shadow` mirrors requests.", examples=["{ share = 0.1 }"]
    )
    start: Literal["auto", "manual"] = Field(
        default="manual",
        description="`auto`: starts with the gateway, if it never ran. `manual`: starts with "
        "`tollway rollout start`.",
    )

    @property
    def candidate_name(self) -> str:
        """The name of the candidate's backend."""
        return self.candidate.backend or self.name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.candidate.backend == self.backend:
            raise KeyProblem("candidate", "is the stable backend itself; name another")
        if self.steps and self.strategy != "canary":
            raise KeyProblem("steps", f'do not apply to strategy = "{self.strategy}"; remove them')
        if self.steps and self.steps[0].setWeight is None:
            raise KeyProblem("steps", "must begin with setWeight; write { setWeight = 10 } first")
        if self.smoke and self.strategy != "blue_green":
            raise KeyProblem("smoke", 'applies only to strategy = "blue_green"; remove it')
        if self.mirror is not None and self.strategy != "shadow":
            raise KeyProblem("mirror", 'applies only to strategy = "shadow"; remove it')
        for at, one in enumerate(self.criteria):
            if self.strategy == "blue_green" and (one.limit is None or one.margin is not None):
                raise KeyProblem(
                    "criteria",
                    f"[{at}] needs a limit and no margin: after a blue_green switch there is no "
                    "stable version to compare with; write it like limit = 0.02",
                )
        metrics = [one.metric for one in self.criteria]
        if len(set(metrics)) != len(metrics):
            raise KeyProblem("criteria", "have a metric twice; remove one of them")
        if self.min_s > self.max_s:
            raise KeyProblem("min_duration", "is longer than the maximum; shorten it")
        return self

    @property
    def min_s(self) -> float:
        """The minimum time until promotion."""
        return MIN_S[self.preset] if self.min_duration is None else self.min_duration

    @property
    def max_s(self) -> float:
        """The time after which it is inconclusive."""
        return MAX_S[self.preset] if self.max_duration is None else self.max_duration
