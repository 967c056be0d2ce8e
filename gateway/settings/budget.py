"""The tables of a budget, and of costs that do not depend on requests."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from tollway.backends.money import NANO_PER_USD
from tollway.gateway.budgets.model import (
    MAX_LIMIT_NANO,
    Budget,
    Enforcement,
    OnExhausted,
    Pacing,
    Scope,
    Window,
)
from tollway.gateway.settings.base import ConfigTable
from tollway.gateway.settings.errors import KeyProblem
from tollway.gateway.settings.types import Float, Name, Share, TimeZone, Usd


class BudgetScopeConfig(ConfigTable):
    """Scope filter of a budget. A call must match every part; an empty one matches every call."""

    tenant: str | None = Field(default=None, description="Name of a tenant.")
    route: str | None = Field(default=None, description="Name of a route.")
    backend: str | None = Field(default=None, description="Name of a backend.")
    tags: dict[Name, str] = Field(
        default_factory=dict,
        max_length=16,
        description="Tags that the request must carry.",
        examples=['{ cost_center = "ads" }'],
    )


class BudgetConfig(ConfigTable):
    """A spend limit in dollars for a scope and a window."""

    name: Name = Field(description="Name of the budget in refusals, metrics and alerts.")
    scope: BudgetScopeConfig = Field(
        default=BudgetScopeConfig(),
        description="Scope filter: the calls that the budget applies to.",
    )
    limit_usd: Usd = Field(
        description="Spend limit for each window, in dollars, with at most 9 decimals.",
        examples=[10.0],
    )
    window: Window = Field(
        default="lifetime",
        description="Period of the limit: `hour`, `day`, `week` (from Monday), `month` or "
        "`lifetime`.",
    )
    timezone: TimeZone = Field(
        default="UTC", description="Time zone of the window boundaries.", examples=["Europe/Berlin"]
    )
    enforcement: Enforcement = Field(
        default="hard",
        description="`hard` reserves the maximum cost of each call, `expected` the learned 95 % "
        "quantile; `soft` only counts and alerts.",
    )
    alert_at: tuple[Annotated[Float, Field(gt=0, le=10)], ...] = Field(
        default=(0.8, 0.9, 1.0),
        max_length=10,
        description="Shares of the limit at which an event is raised.",
    )
    downgrade_at: Share | None = Field(
        default=None,
        description="Share of the limit above which only calls of at most `downgrade_max_usd` are "
        "made.",
        examples=[0.8],
    )
    downgrade_max_usd: Float | None = Field(
        default=None,
        gt=0,
        description="Maximum cost of a call above `downgrade_at`.",
        examples=[0.0001],
    )
    then: Literal["reject", "cheapest", "rules"] = Field(
        default="reject",
        description="What happens to a call that the budget cannot pay for: `reject` refuses it, "
        "`cheapest` uses the cheapest backend that the budget can pay for, `rules` uses a rules "
        "backend.",
    )
    pacing: Pacing | None = Field(
        default=None,
        description="How the limit is spread over its window, on routes that choose by it. `none`: "
        "the limit is only a cap. `even`: spread over the expected requests, assuming the rate of "
        "the last minutes. `forecast`: spread over the requests that the same hours of earlier "
        "days and weeks predict; only a cap until one day is known. Default: `forecast` on routes "
        "with objective `max_quality`, `none` on others.",
        examples=["even"],
    )
    on_exhausted: OnExhausted = Field(
        default="cheapest",
        description="What a request gets when the budget is spent: `cheapest`, the cheapest "
        "backend that the budget does not apply to, if there is one; `reject`, 402.",
    )
    carry_overdraft: bool = Field(
        default=False,
        description="Whether spend that bills add beyond the limit of a window is deducted from "
        "the limit of the next window.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.carry_overdraft and (self.window == "lifetime" or self.enforcement == "soft"):
            raise KeyProblem(
                "carry_overdraft",
                "requires a window other than lifetime and an enforcement other than soft; set "
                'window, and enforcement = "hard" or "expected", or remove it',
            )
        spreads = (
            self.window != "lifetime" and self.enforcement != "soft" and not self.scope.backend
        )
        if self.pacing in ("even", "forecast") and not spreads:
            raise KeyProblem(
                "pacing",
                "requires a window other than lifetime, an enforcement other than soft, and a "
                'scope without a backend; set window, and enforcement = "hard" or "expected", or '
                'write "none"',
            )
        if self.limit_nano > MAX_LIMIT_NANO:
            raise KeyProblem(
                "limit_usd",
                "must be below 9007199.254740992 (2^53 nano-dollars); use a shorter window or "
                "several budgets",
            )
        if (self.downgrade_at is None) != (self.downgrade_max_usd is None):
            raise KeyProblem(
                "downgrade_at", "must be set together with downgrade_max_usd; set both or neither"
            )
        if list(self.alert_at) != sorted(set(self.alert_at)):
            raise KeyProblem(
                "alert_at", "must be in increasing order; write it like [0.8, 0.9, 1.0]"
            )
        return self

    @property
    def limit_nano(self) -> int:
        """The limit in nano-dollars, exactly."""
        return int(self.limit_usd * NANO_PER_USD)

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
            pacing=self.pacing,
            on_exhausted=self.on_exhausted,
        )


class FixedCostConfig(ConfigTable):
    """A monthly cost such as pipelines; only reports of the return on spend count it."""

    name: Name = Field(description="Name of the cost in reports.", examples=["feature-pipelines"])
    monthly_usd: Usd = Field(
        gt=0,
        description="Dollars for each calendar month; a part of a month counts in proportion.",
        examples=[1200.0],
    )
    route: str | None = Field(
        default=None, description="Route that the cost belongs to. Default: all routes."
    )
    team: str | None = Field(
        default=None,
        description="Value of the tag `team` of the requests that it belongs to. Default: all.",
    )
    backend: str | None = Field(
        default=None,
        description="Backend that it belongs to: the routes that may choose it share the cost.",
    )

    @property
    def monthly_nano(self) -> int:
        """The monthly cost in nano-dollars, exactly."""
        return int(self.monthly_usd * NANO_PER_USD)
