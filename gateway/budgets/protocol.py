"""The `Ledger` protocol and the values it exchanges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tollway.gateway.budgets.model import Budget, LeaseKey


@dataclass(frozen=True, slots=True)
class LeaseExchange:
    """A lease holder's report and request, applied in one atomic step. Its id is (key, seq).

    A lease has at most one exchange under way and numbers its exchanges from 1. The ledger stores
    the last number and its grant. A repeated exchange is therefore answered but not applied.

    settled_nano: total ever settled on this lease, so reporting it twice changes nothing.
    held_nano, flushed_nano: what the lease held, and the total reported as settled, after the last
                  reply. A ledger that lost recent writes (a failover) corrects itself from them.
    open_nano:    reserved and not settled. If the holder is never heard of again, the whole lease
                  is charged; this figure only shows others what cannot come back soon.
    give_nano:    returned unspent.
    need_nano:    smallest useful grant (the smallest waiting reservation); 0 requests nothing.
    due_nano:     sum of all waiting reservations.
    want_nano:    amount to lease ahead of need, which the ledger caps at a fair share.
    """

    key: LeaseKey
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
class BudgetPosition:
    """A budget's totals in one window, over all holders.

    `spenders` is the number of holders that leased in the last minute.
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
        """Part of the limit that is used: spent in this window or carried from earlier ones."""
        return self.carried_nano + self.spent_nano

    @property
    def free_nano(self) -> int:
        """Amount that may still be leased."""
        return max(0, self.limit_nano - self.used_nano - self.leased_nano)

    @property
    def overdraft_nano(self) -> int:
        """Amount by which the used and leased money exceeds the limit."""
        return max(0, self.used_nano + self.leased_nano - self.limit_nano)


@dataclass(frozen=True, slots=True)
class ExchangeReply:
    """A ledger's reply to one exchange.

    ended:   the lease expired, was reconciled or was released; nothing more may be spent from it.
    short:   another holder requested more than is free, so idle money must be returned.
    stale:   the window is not current by the ledger's clock, so nothing was granted.
    crossed: shares of the limit that this exchange was the first to cross.
    overdrawn_nano: amount that this exchange added to the overdraft.
    """

    grant_nano: int
    position: BudgetPosition
    ended: bool = False
    short: bool = False
    stale: bool = False
    crossed: tuple[float, ...] = ()
    overdrawn_nano: int = 0


@dataclass(frozen=True, slots=True)
class BatchReply:
    """A ledger's replies to a batch. `ledger_id` changes when the ledger loses its data."""

    now_s: float
    ledger_id: str
    replies: tuple[ExchangeReply, ...]


@dataclass(frozen=True, slots=True)
class RecoveryClaim:
    """What a dead holder's recovery file proves about one lease.

    `heard`: the ledger had replied to at least one exchange of this lease.
    """

    key: LeaseKey
    settled_nano: int
    open_nano: int
    acknowledged: bool = True


@dataclass(frozen=True, slots=True)
class LeaseView:
    """One lease as operators see it. `charged_nano` counts as spent but is unproven."""

    lease: str
    state: Literal["live", "ended", "closed"]
    held_nano: int
    open_nano: int
    settled_nano: int
    charged_nano: int
    expires_at_s: float


@dataclass(frozen=True, slots=True)
class WindowStatement:
    """A ledger's record of one budget in one window, with its leases."""

    budget: str
    window_start_s: int
    position: BudgetPosition
    leases: tuple[LeaseView, ...]


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """An operator's change to a budget, stored permanently.

    - `limit` sets the limit to `amount_nano`.
    - `credit` adds `amount_nano` to one window's limit.
    - `release` declares that `amount_nano` of a lease's unproven charge was billed and that the
      rest was not spent.

    No change ever resets the spent amount to 0.
    """

    kind: Literal["limit", "credit", "release"]
    budget: str
    amount_nano: int
    who: str
    why: str
    window_start_s: int = 0
    lease: str = ""
    at_s: float = 0.0


class LedgerUnavailable(Exception):  # noqa: N818 - says a state
    """The ledger did not answer. It is unknown whether it applied the request."""


class Ledger(Protocol):
    """The authority on what each budget has spent and leased. Raises LedgerUnavailable.

    `may_forget`: the ledger runs elsewhere and could come back empty, so gateways record its id.
    """

    may_forget: bool

    async def open(self) -> None:
        """Connect and create missing storage."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...

    async def register(self, budgets: Sequence[Budget]) -> BatchReply:
        """Register budgets. A limit that differs from the last registered one takes effect.

        With no budgets, the reply only carries the ledger's time and id.
        """
        ...

    async def exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        """Apply each exchange atomically and once. Return the replies in the same order.

        Raises KeyError for a budget that is not registered: the ledger has lost its data.
        """
        ...

    async def reconcile(self, claims: Sequence[RecoveryClaim]) -> int:
        """End dead holders' leases by their recovery files; return the amount freed.

        Unknown leases and budgets are skipped.
        """
        ...

    async def accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[WindowStatement, ...]:
        """Return the statement for each (budget, window start), after charging expired leases."""
        ...

    async def change(self, change: BudgetChange) -> BudgetPosition:
        """Apply and store an operator's change; return the resulting position.

        Raises KeyError for an unknown budget or lease.
        """
        ...

    async def changes(self, budget: str) -> tuple[BudgetChange, ...]:
        """Return a budget's changes, oldest first."""
        ...


Clock = Callable[[], float]
