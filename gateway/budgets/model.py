"""Value types for budgets: scopes, windows, reservations, refusals and events.

All amounts are integer nano-dollars. All times are seconds since the Unix epoch. A time that is
compared with a window is a time of the ledger's clock.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

MAX_LIMIT_NANO = 2**53 - 1
"""Largest limit of a budget: Lua's numbers are doubles, exact up to 2^53 ($9.007 million)."""

Enforcement = Literal["hard", "expected", "soft"]
Window = Literal["hour", "day", "week", "month", "lifetime"]
Then = Literal["reject", "cheapest", "rules"]
Pacing = Literal["none", "even", "forecast"]
OnExhausted = Literal["cheapest", "reject"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Scope filter of a budget. An empty filter matches every call."""

    tenant: str | None = None
    route: str | None = None
    backend: str | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def parts(self) -> dict[str, object]:
        """Return the parts that are set, in the form that a refusal shows."""
        named = {"tenant": self.tenant, "route": self.route, "backend": self.backend}
        parts: dict[str, object] = {name: part for name, part in named.items() if part is not None}
        return {**parts, "tags": dict(self.tags)} if self.tags else parts


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in nano-dollars for a scope and a window."""

    name: str
    scope: Scope
    limit_nano: int
    window: Window = "lifetime"
    timezone: str = "UTC"
    enforcement: Enforcement = "hard"
    alert_at: tuple[float, ...] = (0.8, 0.9, 1.0)
    downgrade_at: float | None = None
    downgrade_max_usd: float | None = None
    then: Then = "reject"
    carry_overdraft: bool = False
    pacing: Pacing | None = None
    on_exhausted: OnExhausted = "cheapest"

    @property
    def paces(self) -> bool:
        """Whether the budget may pace spending. Lifetime, soft and backend budgets never do."""
        windowed = self.window != "lifetime" and self.enforcement != "soft"
        return windowed and self.scope.backend is None and self.pacing != "none"

    def pacing_of(self, objective: str) -> Pacing:
        """Return the pacing for a route with this objective.

        Where `pacing` is not set, a `max_quality` route is paced by forecast and others are not.
        """
        if not self.paces:
            return "none"
        return self.pacing or ("forecast" if objective == "max_quality" else "none")

    @property
    def paces_some(self) -> bool:
        """Whether the budget paces only some of a route's requests."""
        return self.paces and bool(self.scope.tenant or self.scope.tags)


class BudgetHolding(Protocol):
    """A lease that holds a reservation's money."""

    key: "LeaseKey"

    def settle(self, amount_nano: int, cost_nano: int) -> None:
        """Convert a hold of `amount_nano` into a cost, which may exceed it."""
        ...


class Reservation:
    """One attempt's hold on every budget that matches it. Settled or voided exactly once."""

    # The only mutable state is `ended`; `Reservations` changes it.
    __slots__ = ("ended", "hard_nano", "holds")

    def __init__(
        self, holds: tuple[tuple[BudgetHolding, int], ...], hard_nano: int | None = None
    ) -> None:
        """`hard_nano` is the amount held in hard budgets; None if no hard budget matches."""
        self.holds = holds
        self.hard_nano = hard_nano
        self.ended = False

    def held_by_budget(self) -> dict[str, int]:
        """Return the amount held, by budget (0.3 us a scope)."""
        return {held.key.budget: amount_nano for held, amount_nano in self.holds}


Reason = Literal["exhausted", "held", "unbounded", "ledger_down", "ledger_lost"]


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """A refused reservation: the budget that lacks money, its state, and the reason.

    `reason` is one of:

    - `exhausted`: the unspent amount is less than the call needs.
    - `held`: the unspent amount would suffice, but other calls hold it.
    - `unbounded`: nothing bounds the call's cost; `why` says what is missing.
    - `ledger_down`: the ledger does not answer.
    - `ledger_lost`: the ledger has lost its data.

    `then` is the budget's configured action. `left_nano` is the unspent amount.
    """

    budget: str
    scope: dict[str, object]
    limit_nano: int
    spent_nano: int
    held_nano: int
    free_nano: int
    asked_nano: int
    resets_at_s: int | None
    reason: Reason = "exhausted"
    then: Then = "reject"
    on_exhausted: OnExhausted = "cheapest"
    left_nano: int = 0
    why: str = ""

    @property
    def by_budget(self) -> bool:
        """Whether the budget itself refuses; False if its ledger was unavailable."""
        return self.reason in ("exhausted", "held", "unbounded")

    @property
    def resets_at(self) -> str | None:
        """End of the window in RFC 3339, UTC; None for a lifetime budget."""
        if self.resets_at_s is None:
            return None
        return datetime.fromtimestamp(self.resets_at_s, UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget in its current window: `limit + overdraft = carried + spent + held + free`.

    `carried_nano` is the overspending of earlier windows that this window must absorb.
    `limit_nano` includes `credit_nano`, which operators added to this window. `held_nano` is the
    total leased to any process, reserved or idle. `spenders` is the number of processes that spent
    recently. `unaccounted_nano` is the unproven part of `spent_nano`: open calls of processes that
    died, and leases that were never returned.
    """

    budget: Budget
    window_start_s: int
    resets_at_s: int | None
    limit_nano: int
    spent_nano: int
    held_nano: int
    free_nano: int
    overdraft_nano: int
    unaccounted_nano: int
    credit_nano: int = 0
    carried_nano: int = 0
    spenders: int = 0

    @property
    def used_nano(self) -> int:
        """Part of the limit that is used: spent in this window or carried from earlier ones."""
        return self.carried_nano + self.spent_nano


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """A budget event for operators.

    Kinds:

    - `threshold`: spending crossed a share of the limit; sent once per window across all replicas.
    - `overdraft`: settlements exceeded the limit, by `amount_nano` more than before.
    - `unaccounted`: a dead process's open calls were charged.
    - `estimated`: the same, charged by their estimate, because the budget is not hard.
    - `fenced`: this process's lease had ended.
    - `ledger_down`, `ledger_up`, `ledger_lost`: the state of the ledger.
    """

    kind: str
    budget: str
    detail: str
    share: float | None = None
    amount_nano: int | None = None
    window_start_s: int | None = None


@dataclass(frozen=True, slots=True)
class DowngradeAdvice:
    """Price cap that budgets near their limit put on routing, and the action if no arm fits."""

    max_price_usd: float | None = None
    then: Then = "reject"


# ------------------------------------------------------------------- between process and ledger


@dataclass(frozen=True, slots=True)
class LeaseKey:
    """Key of one lease of one budget in one window. `lease` is never reused."""

    budget: str
    window_start_s: int
    window_end_s: int | None
    lease: str
