"""The words of money: scopes, budgets, windows, reservations, refusals, and the ledger's port.

All amounts are integer nano-dollars; all times are seconds, of the ledger's clock where they are
compared with a window, since the Unix epoch.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from tollway.backends.money import NANO_PER_USD

NANO = NANO_PER_USD
"""Nano-dollars in a dollar."""

MAX_LIMIT_NANO = 2**53 - 1
"""The largest limit of a budget: Lua's numbers are doubles, exact up to 2^53 ($9.007 million)."""

Enforcement = Literal["hard", "expected", "soft"]
Window = Literal["hour", "day", "week", "month", "lifetime"]
Then = Literal["reject", "cheapest", "rules"]
Pacing = Literal["none", "even", "forecast"]
OnExhausted = Literal["cheapest", "reject"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a budget binds: a call that matches every part given (none given: every call)."""

    tenant: str | None = None
    route: str | None = None
    backend: str | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def parts(self) -> dict[str, object]:
        """Return the parts given, as a refusal shows them."""
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
        """Whether it may set a pace: one without an end, a soft one, or a backend's does not."""
        windowed = self.window != "lifetime" and self.enforcement != "soft"
        return windowed and self.scope.backend is None and self.pacing != "none"

    def pacing_of(self, objective: str) -> Pacing:
        """Return how it paces a route: as it says, else by forecast for the best within it."""
        if not self.paces:
            return "none"
        return self.pacing or ("forecast" if objective == "max_quality" else "none")

    @property
    def paces_some(self) -> bool:
        """Whether it paces only some of the requests of a route."""
        return self.paces and bool(self.scope.tenant or self.scope.tags)


class BudgetHolding(Protocol):
    """Where a reservation's money is held."""

    key: "LeaseKey"

    def settle(self, amount_nano: int, cost_nano: int) -> None:
        """Turn a hold of `amount_nano` into a cost, which may be above it."""
        ...


class Reservation:
    """A hold for one attempt over all budgets that bind it; settled or voided exactly once."""

    # The mutable state of a reservation is whether it has ended; the wallet changes it.
    __slots__ = ("ended", "hard_nano", "holds")

    def __init__(
        self, holds: tuple[tuple[BudgetHolding, int], ...], hard_nano: int | None = None
    ) -> None:
        """`hard_nano` is the most that a hard budget holds of it; None where none binds it."""
        self.holds = holds
        self.hard_nano = hard_nano
        self.ended = False

    def told(self) -> dict[str, int]:
        """Return what is held for it, by budget (0.3 us a scope)."""
        return {held.key.budget: amount_nano for held, amount_nano in self.holds}


Reason = Literal["exhausted", "held", "unbounded", "ledger_down", "ledger_lost"]


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """Why an attempt may not be made: the budget that has too little, and its state.

    `reason`: `exhausted` (what is not spent is less than the call needs), `held` (it would be
    enough, but other calls hold it), `unbounded` (nothing bounds what the call can cost; `why` says
    what is missing), or the ledger cannot be asked (`ledger_down`) or has lost what it knew
    (`ledger_lost`). `then` is what that budget says to do; `left_nano` what is not spent of it.
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
        """Whether the budget refuses; else its ledger could not be asked."""
        return self.reason in ("exhausted", "held", "unbounded")

    @property
    def resets_at(self) -> str | None:
        """When the window ends, in RFC 3339, UTC; None for a budget without an end."""
        if self.resets_at_s is None:
            return None
        return datetime.fromtimestamp(self.resets_at_s, UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget in its current window: `limit + overdraft = carried + spent + held + free`.

    `carried_nano` is what earlier windows overspent and this one makes good. `limit_nano` includes
    `credit_nano`, what operators added to this window; `held_nano` is all that is leased to any
    process, reserved or idle, and `spenders` how many have spent of late; `unaccounted_nano` is
    the part of `spent_nano` that nobody can prove: open calls of processes that died, and leases
    that were never returned.
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
        """What is gone of the limit: spent, now or by windows before."""
        return self.carried_nano + self.spent_nano


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """Something an operator wants to know about a budget.

    Kinds: `threshold` (a share of the limit was crossed; once per window on all replicas),
    `overdraft` (settlements broke the limit, by `amount_nano` more than before), `unaccounted` (a
    dead process's open calls were charged), `estimated` (the same, by their estimate: the budget is
    not hard), `fenced` (this process's lease had ended),
    `ledger_down`, `ledger_up`, `ledger_lost`.
    """

    kind: str
    budget: str
    detail: str
    share: float | None = None
    amount_nano: int | None = None
    window_start_s: int | None = None


@dataclass(frozen=True, slots=True)
class DowngradeAdvice:
    """What budgets near their limit ask of a choice: only arms up to a price, and what then."""

    max_price_usd: float | None = None
    then: Then = "reject"


# ------------------------------------------------------------------- between wallet and ledger


@dataclass(frozen=True, slots=True)
class LeaseKey:
    """One lease of one budget in one window; `lease` is unique for ever."""

    budget: str
    window_start_s: int
    window_end_s: int | None
    lease: str
