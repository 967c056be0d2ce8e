"""The state of one budget in one window: the leases, their holders' shares, and the spending.

Theory of operation. A budget's limit is always split into spent, leased and free:

    limit + overdraft = carried + spent + leased + free          (each >= 0)

`carried` is 0 unless the budget carries overdrafts. Then it is the overspending of earlier windows
that has not been absorbed, by Lindley's recursion over the windows w before this one:

    carried := 0;  for each w: carried := max(0, carried + spent(w) + leased(w) - limit(w))

Over any run of windows, spending is therefore at most the sum of the limits plus the last
overdraft. `carried` is derived from the earlier windows' current state: a late settlement in an old
window takes effect in this one at once.

Only three operations move money. A *grant* moves it from free to leased. An *exchange* moves what
the holder has settled from leased to spent, and what the holder returns from leased to free. The
*end* of a lease, when its holder is gone, moves all of it from leased to spent, as `charged`. A
charge is unproven and counted as `unaccounted`. It is reduced only on proof: the holder's recovery
file, a late report from the holder, or an operator.

    state    operation               held        charged
    live     exchange                >= 0        0
    live     expires                 -> 0        += held           (now ended)
    ended    settles d more          0           -= min(d, charged), the rest is spent in addition
    ended    returns g               0           -= min(g, charged), which is free again
    live     closes                  -> free     0                 (now closed)
    any      recovery file is read   0           what was reserved (now closed)

A closed lease ignores exchanges: its holder is gone, and late exchanges were sent before it closed.

Every exchange has a number. The window stores the last number and its grant, so a repeated exchange
is applied once and answered each time.

These rules serve the memory and SQLite stores. `redis.lua` implements the same rules in Lua, and
the tests compare the two.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from tollway.gateway.budgets.model import MAX_LIMIT_NANO
from tollway.gateway.budgets.protocol import (
    BudgetPosition,
    ExchangeReply,
    LeaseExchange,
    LeaseView,
    RecoveryClaim,
    WindowStatement,
)

LEASE_S = 30.0  # outlasts a ledger restart; a lost machine's money is in doubt for this long
SMALLEST_PART = 200  # a slice is at least 1/200 of the limit; else the last dollar costs most calls
KEEP_CLOSED_S = 600.0  # a closing exchange is repeated until its reply arrives
SPENT_S = 60.0  # a holder with little traffic leases for only a second at a time
KEEP_ENDED_S = 3_456_000.0  # 40 days, as in Redis: a forgotten holder would be charged twice
CARRY_WINDOWS = 60  # an overdraft not absorbed within this many windows is forgiven


def carry(balances: Iterable[int]) -> int:
    """Return the overdraft that windows with these balances, oldest first, carry forward."""
    carried_nano = 0
    for balance_nano in balances:
        carried_nano = max(0, carried_nano + balance_nano)
    return carried_nano


@dataclass(slots=True)
class Lease:
    """A slice of the budget leased to one holder."""

    state: Literal["live", "ended", "closed"] = "live"
    seq: int = 0
    held_nano: int = 0
    open_nano: int = 0
    settled_nano: int = 0
    charged_nano: int = 0
    expires_at_s: float = 0.0
    # The reply to the exchange numbered `seq`.
    grant_nano: int = 0
    overdrawn_nano: int = 0
    stale: bool = False
    crossed: tuple[float, ...] = ()


@dataclass(slots=True)
class BudgetWindow:
    """One budget in one window. All its fields are mutable; its ledger owns it.

    The ledger sets `carried_nano` before it uses a window, and stores `balance_nano` afterwards.
    """

    budget: str
    window_start_s: int
    base_nano: int
    alert_at: tuple[float, ...] = ()
    credit_nano: int = 0
    spent_nano: int = 0
    leased_nano: int = 0
    open_nano: int = 0
    unaccounted_nano: int = 0
    raised: tuple[float, ...] = ()
    short_until_s: float = 0.0
    carried_nano: int = 0
    leases: dict[str, Lease] = field(default_factory=dict)

    @property
    def limit_nano(self) -> int:
        """Limit of this window, including credits."""
        return min(self.base_nano + self.credit_nano, MAX_LIMIT_NANO)

    @property
    def balance_nano(self) -> int:
        """Amount overspent in this window; if negative, the amount it can still absorb."""
        return self.spent_nano + self.leased_nano - self.limit_nano

    @property
    def free_nano(self) -> int:
        """Amount that may be leased."""
        return max(0, -self.balance_nano - self.carried_nano)

    @property
    def overdraft_nano(self) -> int:
        """Amount by which the used and leased money exceeds the limit."""
        return max(0, self.balance_nano + self.carried_nano)

    def position(self, now_s: float) -> BudgetPosition:
        """Return the totals."""
        return BudgetPosition(
            self.limit_nano,
            self.credit_nano,
            self.spent_nano,
            self.leased_nano,
            self.open_nano,
            self.unaccounted_nano,
            self.carried_nano,
            self._spenders(now_s),
        )

    def _spenders(self, now_s: float) -> int:
        """Return the number of holders that have a lease or had one within SPENT_S."""
        since_s = now_s - SPENT_S + KEEP_CLOSED_S
        return len(
            {
                name.rpartition(".")[0]
                for name, lease in self.leases.items()
                if lease.state == "live"
                or (lease.state == "closed" and lease.expires_at_s > since_s)
            }
        )

    def statement(self, now_s: float) -> WindowStatement:
        """Return the window as operators see it."""
        leases = tuple(
            LeaseView(
                name,
                lease.state,
                lease.held_nano,
                lease.open_nano,
                lease.settled_nano,
                lease.charged_nano,
                lease.expires_at_s,
            )
            for name, lease in sorted(self.leases.items())
            if lease.state != "closed" or lease.charged_nano
        )
        return WindowStatement(self.budget, self.window_start_s, self.position(now_s), leases)

    # ------------------------------------------------------------------ exchanges

    def exchange(self, asked: LeaseExchange, now_s: float) -> ExchangeReply:
        """Apply an exchange once; answer it every time it is sent."""
        self.expire(now_s)
        lease = self.leases.get(asked.key.lease)
        if lease is None:
            if asked.close and asked.seq > 1:  # closed long ago and deleted
                return ExchangeReply(0, self.position(now_s), ended=True)
            lease = self.leases[asked.key.lease] = Lease()
        if asked.seq > lease.seq:
            self._apply(lease, asked, now_s)
        elif asked.seq < lease.seq:  # a copy delayed by the network: nobody needs its reply
            return ExchangeReply(0, self.position(now_s), ended=lease.state != "live")
        return ExchangeReply(
            lease.grant_nano,
            self.position(now_s),
            ended=lease.state == "ended",
            short=now_s < self.short_until_s,
            stale=lease.stale,
            crossed=lease.crossed,
            overdrawn_nano=lease.overdrawn_nano,
        )

    def _apply(self, lease: Lease, asked: LeaseExchange, now_s: float) -> None:
        before_nano = self.overdraft_nano
        if asked.seq > lease.seq + 1 and lease.state == "live":
            self._relearn(lease, asked)
        lease.seq = asked.seq
        lease.grant_nano, lease.overdrawn_nano, lease.stale, lease.crossed = 0, 0, False, ()
        if lease.state == "closed":
            return
        self._settle(lease, asked.settled_nano)
        self._take_back(lease, asked.give_nano)
        if lease.state == "live":
            self._reopen(lease, asked.open_nano)
            lease.expires_at_s = now_s + LEASE_S
            if asked.need_nano > 0:
                self._grant(lease, asked, now_s)
            if asked.close:
                self._take_back(lease, lease.held_nano)
                self._reopen(lease, 0)
                lease.state = "closed"
                lease.expires_at_s = now_s + KEEP_CLOSED_S
        lease.crossed = self._cross()
        lease.overdrawn_nano = max(0, self.overdraft_nano - before_nano)

    def _relearn(self, lease: Lease, asked: LeaseExchange) -> None:
        """Restore from the holder's figures the replies that this ledger lost in a failover.

        What was granted counts as leased even above the limit, because it may already be spent.
        """
        self.spent_nano += max(0, asked.flushed_nano - lease.settled_nano)
        lease.settled_nano = max(lease.settled_nano, asked.flushed_nano)
        self.leased_nano += asked.held_nano - lease.held_nano
        lease.held_nano = asked.held_nano

    def _settle(self, lease: Lease, settled_nano: int) -> None:
        """Apply the holder's total of everything settled on this lease."""
        fresh = max(0, settled_nano - lease.settled_nano)
        lease.settled_nano += fresh
        covered = min(fresh, lease.held_nano)
        lease.held_nano -= covered
        self.leased_nano -= covered
        proven = min(fresh - covered, lease.charged_nano)
        lease.charged_nano -= proven
        self.unaccounted_nano -= proven
        self.spent_nano += fresh - proven

    def _take_back(self, lease: Lease, give_nano: int) -> None:
        back = min(give_nano, lease.held_nano)
        lease.held_nano -= back
        self.leased_nano -= back
        proven = min(give_nano - back, lease.charged_nano)
        self._uncharge(lease, proven)

    def _uncharge(self, lease: Lease, amount_nano: int) -> None:
        lease.charged_nano -= amount_nano
        self.unaccounted_nano -= amount_nano
        self.spent_nano -= amount_nano

    def _reopen(self, lease: Lease, open_nano: int) -> None:
        self.open_nano += open_nano - lease.open_nano
        lease.open_nano = open_nano

    def _grant(self, lease: Lease, asked: LeaseExchange, now_s: float) -> None:
        """Grant what is requested; ahead of need, at most a share that is fair to other holders."""
        start_s, end_s = asked.key.window_start_s, asked.key.window_end_s
        if not (start_s <= now_s and (end_s is None or now_s < end_s)):
            lease.stale = True
            return
        if not asked.due_nano <= self.free_nano:
            self.short_until_s = now_s + 1.0  # long enough for every holder to learn of it
        if not asked.need_nano <= self.free_nano:
            return
        others = sum(other.held_nano > 0 for other in self.leases.values() if other is not lease)
        share = max(self.free_nano // (others + 2), self.limit_nano // SMALLEST_PART)
        ahead = min(asked.want_nano, share)
        ahead -= ahead % asked.need_nano  # whole calls: small remainders at many holders are wasted
        lease.grant_nano = min(max(asked.due_nano, ahead, asked.need_nano), self.free_nano)
        lease.held_nano += lease.grant_nano
        self.leased_nano += lease.grant_nano

    def _cross(self) -> tuple[float, ...]:
        """Return the shares of the limit that usage has now crossed for the first time."""
        used_nano = self.carried_nano + self.spent_nano
        crossed = tuple(
            share
            for share in self.alert_at
            if share not in self.raised and used_nano >= share * self.limit_nano
        )
        self.raised += crossed
        return crossed

    # ------------------------------------------------------------------ ended leases

    def expire(self, now_s: float) -> None:
        """Charge leases whose holders did not report in time; delete those closed long ago."""
        for name, lease in list(self.leases.items()):
            if now_s < lease.expires_at_s:
                continue
            if lease.state == "live":
                self._end(lease, now_s)
            elif lease.charged_nano == 0:
                del self.leases[name]

    def _end(self, lease: Lease, now_s: float) -> None:
        """End a live lease: all of it counts as spent until there is proof otherwise."""
        self.leased_nano -= lease.held_nano
        self.spent_nano += lease.held_nano
        self.unaccounted_nano += lease.held_nano
        lease.held_nano, lease.charged_nano, lease.state = 0, lease.held_nano, "ended"
        lease.expires_at_s = now_s + KEEP_ENDED_S
        self._reopen(lease, 0)

    def reconcile(self, claim: RecoveryClaim, now_s: float) -> int:
        """End a dead holder's lease by its recovery file; return the amount freed.

        Settlements are spent, open reservations are charged, and the rest was never used.
        """
        self.expire(now_s)
        lease = self.leases.get(claim.key.lease)
        if lease is None and not claim.acknowledged:  # spent without a grant, and died unreported
            lease = self.leases[claim.key.lease] = Lease()
        if lease is None or lease.state == "closed":
            return 0
        before = self.free_nano
        if lease.state == "live":
            self._end(lease, now_s)
        self._settle(lease, claim.settled_nano)
        self._uncharge(lease, lease.charged_nano - claim.open_nano)
        lease.state = "closed"
        return self.free_nano - before

    def release(self, name: str, now_s: float, billed_nano: int = 0) -> int:
        """Accept that a lease's charge was not spent, except for what was billed.

        Return the amount freed. What was billed counts as spent and is no longer unaccounted. A
        live lease is ended first: if its holder is still alive, it may spend no more from it.
        """
        lease = self.leases.get(name)
        if lease is None:
            raise KeyError(f"budget {self.budget!r} has no lease {name!r}")
        before = self.free_nano
        if lease.state == "live":
            self._end(lease, now_s)
        self._settle(lease, lease.settled_nano + billed_nano)
        self._uncharge(lease, lease.charged_nano)
        return self.free_nano - before

    def check(self) -> None:
        """Assert the invariant; the simulator and the tests call this after every step."""
        live = [lease for lease in self.leases.values() if lease.state == "live"]
        assert self.leased_nano == sum(lease.held_nano for lease in live)
        assert self.open_nano == sum(lease.open_nano for lease in live)
        charged = sum(lease.charged_nano for lease in self.leases.values())
        assert self.unaccounted_nano == charged >= 0 <= self.spent_nano
        position = self.position(0.0)
        assert self.carried_nano >= 0
        assert self.limit_nano + position.overdraft_nano == (
            self.carried_nano + self.spent_nano + self.leased_nano + position.free_nano
        )
