"""The words of money: scopes, budgets, windows, reservations, refusals, and the ledger's port.

All amounts are integer nano-dollars; all times are seconds, of the ledger's clock where they are
compared with a window, since the Unix epoch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""

MAX_LIMIT_NANO = 2**53 - 1
"""The largest limit of a budget: Lua's numbers are doubles, exact up to 2^53 ($9.007 million)."""

Enforcement = Literal["hard", "expected", "soft"]
Window = Literal["hour", "day", "week", "month", "ever"]
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
    window: Window = "ever"
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
        windowed = self.window != "ever" and self.enforcement != "soft"
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


class Held(Protocol):
    """Where a reservation's money is held."""

    key: "Key"

    def settle(self, amount_nano: int, cost_nano: int) -> None:
        """Turn a hold of `amount_nano` into a cost, which may be above it."""
        ...


class Reservation:
    """A hold for one attempt over all budgets that bind it; settled or voided exactly once."""

    # The mutable state of a reservation is whether it has ended; the wallet changes it.
    __slots__ = ("ended", "hard_nano", "holds")

    def __init__(self, holds: tuple[tuple[Held, int], ...], hard_nano: int | None = None) -> None:
        """`hard_nano` is the most that a hard budget holds of it; None where none binds it."""
        self.holds = holds
        self.hard_nano = hard_nano
        self.ended = False

    def told(self) -> dict[str, int]:
        """Return what is held for it, by budget (0.3 us a scope)."""
        return {held.key.budget: amount_nano for held, amount_nano in self.holds}


Reason = Literal["exhausted", "held", "unbounded", "ledger_down", "ledger_lost"]


@dataclass(frozen=True, slots=True)
class Refusal:
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
class Posture:
    """What budgets near their limit ask of a choice: only arms up to a price, and what then."""

    max_price_usd: float | None = None
    then: Then = "reject"


# ------------------------------------------------------------------- between wallet and ledger


@dataclass(frozen=True, slots=True)
class Key:
    """One lease of one budget in one window; `lease` is unique for ever."""

    budget: str
    window_start_s: int
    window_end_s: int | None
    lease: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the holder of a lease says and asks, in one atomic step; (key, seq) is its id.

    A lease has one exchange under way at a time and numbers them from 1. A ledger remembers the
    last number and its grant, so that the same exchange asked again is answered, not applied.

    settled_nano: all that was ever settled on this lease, so saying it twice changes nothing.
    held_nano, flushed_nano: what the last answer left in the lease, and had been told as settled;
                  a ledger that went back in time (a failover) learns the truth from them.
    open_nano:    what is reserved and unsettled now: what is charged if the holder is never heard
                  of again is the whole lease, this only tells others what cannot come back soon.
    give_nano:    handed back, unspent.
    need_nano:    the least that is of use (the smallest reservation that waits); 0: ask nothing.
    due_nano:     all that waits.
    want_nano:    what would be leased ahead of need, if the ledger thinks it a fair share.
    """

    key: Key
    seq: int
    settled_nano: int = 0
    held_nano: int = 0
    flushed_nano: int = 0
    open_nano: int = 0
    give_nano: int = 0
    need_nano: int = 0
    due_nano: int = 0
    want_nano: int = 0
    close: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """A budget's figures in one window, over all holders; idle is leased but not reserved.

    `spenders` is how many holders have leased in the last minute.
    """

    limit_nano: int
    credit_nano: int
    spent_nano: int
    leased_nano: int
    open_nano: int
    unaccounted_nano: int
    carried_nano: int = 0
    spenders: int = 0

    @property
    def used_nano(self) -> int:
        """What is gone of the limit: spent, now or by windows before."""
        return self.carried_nano + self.spent_nano

    @property
    def free_nano(self) -> int:
        """What may still be leased."""
        return max(0, self.limit_nano - self.used_nano - self.leased_nano)

    @property
    def overdraft_nano(self) -> int:
        """How far all that is used and leased is above the limit."""
        return max(0, self.used_nano + self.leased_nano - self.limit_nano)


@dataclass(frozen=True, slots=True)
class Reply:
    """A ledger's answer to one exchange.

    ended:   the lease expired, was reconciled or released: nothing more may be spent from it.
    short:   somebody asked for more than is free, so idle money is to be handed back.
    stale:   the window is not the current one by the ledger's clock, so nothing was granted.
    crossed: shares of the limit that this exchange was the first to cross.
    overdrawn_nano: by how much this exchange has added to the overdraft.
    """

    grant_nano: int
    position: Position
    ended: bool = False
    short: bool = False
    stale: bool = False
    crossed: tuple[float, ...] = ()
    overdrawn_nano: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A ledger's answers to a batch; `ledger_id` changes when a ledger has lost what it knew."""

    now_s: float
    ledger_id: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a dead holder's till proves of one lease; `heard`: the ledger had answered it once."""

    key: Key
    settled_nano: int
    open_nano: int
    heard: bool = True


@dataclass(frozen=True, slots=True)
class LeaseView:
    """One lease as an operator sees it; `charged_nano` counts as spent, unproven."""

    lease: str
    state: Literal["live", "ended", "closed"]
    held_nano: int
    open_nano: int
    settled_nano: int
    charged_nano: int
    expires_at_s: float


@dataclass(frozen=True, slots=True)
class Statement:
    """What a ledger has in its book of one budget in one window, with the leases."""

    budget: str
    window_start_s: int
    position: Position
    leases: tuple[LeaseView, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """An operator's act on a budget, kept for ever.

    `limit` sets the limit to `amount_nano`; `credit` adds `amount_nano` to one window's limit;
    `release` declares that of a lease's unproven charge `amount_nano` was billed, and the rest was
    not spent. Nothing ever sets spent to 0.
    """

    kind: Literal["limit", "credit", "release"]
    budget: str
    amount_nano: int
    who: str
    why: str
    window_start_s: int = 0
    lease: str = ""
    at_s: float = 0.0


class LedgerDown(Exception):  # noqa: N818 - says a state
    """The ledger did not answer; whether it applied what was asked is unknown."""


class Ledger(Protocol):
    """The authority that knows what each budget has spent and leased. Raises LedgerDown.

    `may_forget`: it runs elsewhere and could come back empty, so gateways remember which it was.
    """

    may_forget: bool

    async def open(self) -> None:
        """Connect, and make what storage is missing."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...

    async def register(self, budgets: Sequence[Budget]) -> Answer:
        """Make budgets known. A limit that differs from the last registered one takes effect.

        With none, the answer only tells the time.
        """
        ...

    async def exchange(self, exchanges: Sequence[Exchange]) -> Answer:
        """Apply each exchange once, whole; replies are in the order asked.

        Raises KeyError for a budget that is not registered: the ledger has lost its memory.
        """
        ...

    async def reconcile(self, claims: Sequence[Claim]) -> int:
        """End dead leases by what their tills prove; return how much was free again.

        A lease that it has forgotten, or a budget that it does not know, is passed over.
        """
        ...

    async def accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[Statement, ...]:
        """Return the (budget, window start) accounts asked for, expired leases charged."""
        ...

    async def change(self, change: Change) -> Position:
        """Apply an operator's act, and keep it; return what the account has come to.

        Raises KeyError for a budget or a lease that is not there.
        """
        ...

    async def changes(self, budget: str) -> tuple[Change, ...]:
        """Return the acts on a budget, oldest first."""
        ...


Clock = Callable[[], float]
