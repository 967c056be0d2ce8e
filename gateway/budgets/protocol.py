"""The port of a ledger, and the values that pass through it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tollway.gateway.budgets.model import Budget, LeaseKey


@dataclass(frozen=True, slots=True)
class LeaseExchange:
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
class ExchangeReply:
    """A ledger's answer to one exchange.

    ended:   the lease expired, was reconciled or released: nothing more may be spent from it.
    short:   somebody asked for more than is free, so idle money is to be handed back.
    stale:   the window is not the current one by the ledger's clock, so nothing was granted.
    crossed: shares of the limit that this exchange was the first to cross.
    overdrawn_nano: by how much this exchange has added to the overdraft.
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
    """A ledger's answers to a batch; `ledger_id` changes when a ledger has lost what it knew."""

    now_s: float
    ledger_id: str
    replies: tuple[ExchangeReply, ...]


@dataclass(frozen=True, slots=True)
class RecoveryClaim:
    """What a dead holder's till proves of one lease; `heard`: the ledger had answered it once."""

    key: LeaseKey
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
class WindowStatement:
    """What a ledger has in its book of one budget in one window, with the leases."""

    budget: str
    window_start_s: int
    position: BudgetPosition
    leases: tuple[LeaseView, ...]


@dataclass(frozen=True, slots=True)
class BudgetChange:
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


class LedgerUnavailable(Exception):  # noqa: N818 - says a state
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

    async def register(self, budgets: Sequence[Budget]) -> BatchReply:
        """Make budgets known. A limit that differs from the last registered one takes effect.

        With none, the answer only tells the time.
        """
        ...

    async def exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        """Apply each exchange once, whole; replies are in the order asked.

        Raises KeyError for a budget that is not registered: the ledger has lost its memory.
        """
        ...

    async def reconcile(self, claims: Sequence[RecoveryClaim]) -> int:
        """End dead leases by what their tills prove; return how much was free again.

        A lease that it has forgotten, or a budget that it does not know, is passed over.
        """
        ...

    async def accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[WindowStatement, ...]:
        """Return the (budget, window start) accounts asked for, expired leases charged."""
        ...

    async def change(self, change: BudgetChange) -> BudgetPosition:
        """Apply an operator's act, and keep it; return what the account has come to.

        Raises KeyError for a budget or a lease that is not there.
        """
        ...

    async def changes(self, budget: str) -> tuple[BudgetChange, ...]:
        """Return the acts on a budget, oldest first."""
        ...


Clock = Callable[[], float]
