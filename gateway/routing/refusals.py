"""Refusal reasons as values: the routing layer knows reasons, not HTTP statuses.

`data_plane.problems` maps each reason to its status and title.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from tollway.backends.money import format_usd, to_usd
from tollway.gateway.budgets.model import BudgetRefusal

Reason = Literal[
    "no_backend",
    "overloaded",
    "rate_limited",
    "backends_failed",
    "credential_rejected",
    "not_supported",
    "no_object",
    "deadline_exceeded",
    "cost_ceiling",
    "budget_downgraded",
    "budget_exhausted",
    "budget_held",
    "cost_unbounded",
    "ledger_unreachable",
    "learner_away",
    "not_cached",
    "guard_refused",
]


class RequestRefused(Exception):  # noqa: N818 - reads as what happened
    """A request that no backend answers; `members` are details for programs.

    `retry_after_s`: when a retry may help. `retryable`: whether clients should retry at all; None
    leaves it to the client's own rules. The router fills in `decision`, the decision's id, and
    `cost_nano`, the cost already incurred by the attempts.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        retry_after_s: int | None = None,
        retryable: bool | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.retryable = retryable
        self.members = members
        self.decision = ""
        self.cost_nano = 0


def not_cached(route: str) -> RequestRefused:
    """Refuse: the request takes only a kept answer (`only-if-cached`), and there is none."""
    return RequestRefused("not_cached", f"route {route!r} has no cached answer to this request")


def no_backend(route: str, why: str) -> RequestRefused:
    """Refuse: every backend of the route is down."""
    detail = f"no backend of route {route!r} can answer: {why}"
    return RequestRefused("no_backend", detail, retry_after_s=1)


def overloaded(what: str) -> RequestRefused:
    """Refuse: no more concurrent requests can be answered in time."""
    detail = f"{what} has more requests in progress than it can answer in time"
    return RequestRefused("overloaded", detail, retry_after_s=1)


def resting(route: str, seconds: float) -> RequestRefused:
    """Refuse: every backend that could answer has asked for a pause."""
    wait_s = max(1, math.ceil(seconds))
    detail = f"the backends of route {route!r} limit their rate; retry in {wait_s} s"
    return RequestRefused("rate_limited", detail, retry_after_s=wait_s)


def all_failed(route: str, failed: Mapping[str, str]) -> RequestRefused:
    """Refuse: the backends that were called failed."""
    tried = "; ".join(f"{backend}: {error}" for backend, error in failed.items())
    return RequestRefused("backends_failed", f"no answer on route {route!r} ({tried})")


def credential_rejected(route: str, refused: Mapping[str, str]) -> RequestRefused:
    """Refuse: the gateway's own keys are rejected; an operator has to replace them."""
    reasons = "; ".join(f"{backend}: {why}" for backend, why in refused.items())
    detail = f"no backend of route {route!r} answers ({reasons})"
    return RequestRefused("credential_rejected", detail, retryable=False)


def beyond_all(route: str, left_out: Mapping[str, str]) -> RequestRefused:
    """Refuse: every backend lacks something that the request needs; list it by backend."""
    lacking = "; ".join(f"{backend} {why}" for backend, why in left_out.items())
    detail = f"no backend of route {route!r} can serve this request ({lacking})"
    return RequestRefused("not_supported", detail)


def no_object(name: str) -> RequestRefused:
    """Refuse: the object that a request names was made by another tenant."""
    return RequestRefused("no_object", f"no object has the id {name[:80]!r}")


def held_apart(name: str) -> RequestRefused:
    """Refuse: the objects that a request names are at several backends."""
    detail = f"the object {name[:80]!r} and another that the request names are at two backends"
    return RequestRefused("not_supported", detail)


def deadline(route: str) -> RequestRefused:
    """Refuse: the deadline passed before an answer arrived."""
    detail = f"no backend of route {route!r} answered in time"
    return RequestRefused("deadline_exceeded", detail)


def cost_ceiling(route: str, cost_nano_max: int) -> RequestRefused:
    """Refuse: no backend is certain to stay below the client's cost ceiling."""
    most = format_usd(cost_nano_max)
    detail = f"no backend of route {route!r} is certain to cost at most {most}"
    return RequestRefused("cost_ceiling", detail)


def downgraded(route: str) -> RequestRefused:
    """Refuse: a budget near its limit allows only calls below a price that no backend meets."""
    detail = f"a budget near its limit leaves no backend of route {route!r} that is cheap enough"
    return RequestRefused("budget_downgraded", detail, retryable=False)


def over_budget(refusal: BudgetRefusal) -> RequestRefused:
    """Refuse: a budget cannot pay for any backend that could answer.

    Spent money is not retryable: waiting a moment does not help, and retrying clients would cause a
    retry storm. Money that other calls hold is retryable, and so is an unreachable ledger.
    """
    if not refusal.by_budget:
        detail = f"budget {refusal.budget!r} has no reachable ledger, and its local lease is spent"
        return RequestRefused("ledger_unreachable", detail, retry_after_s=1, budget=refusal.budget)
    if refusal.reason == "unbounded":
        detail = (
            f"the cost of this call has no upper bound, and budget {refusal.budget!r} is hard: "
            f'{refusal.why}, or enforcement = "expected" in the budget'
        )
        return RequestRefused("cost_unbounded", detail, retryable=False, budget=refusal.budget)
    is_held = refusal.reason == "held"
    detail = (
        f"the rest of budget {refusal.budget!r} is held by calls in progress; retry"
        if is_held
        else f"budget {refusal.budget!r} cannot pay for any backend that could answer"
    )
    return RequestRefused(
        "budget_held" if is_held else "budget_exhausted",
        detail,
        retry_after_s=1 if is_held else None,
        retryable=is_held,
        budget=refusal.budget,
        scope=refusal.scope,
        limit_usd=to_usd(refusal.limit_nano),
        spent_usd=to_usd(refusal.spent_nano),
        held_usd=to_usd(refusal.held_nano),
        resets_at=refusal.resets_at,
    )
