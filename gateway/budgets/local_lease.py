"""A local lease: what one process may spend of one budget in one window, in memory.

It is the holder's side of one lease. Its figures and the ledger's satisfy at every instant:

    held at the ledger = room + open + settled but not reported + being returned

A reservation moves money from room to open. A settlement moves it from open to settled, and moves
what the call did not cost back to room. Neither contacts the ledger. `room` goes below zero when a
call costs more than was reserved for it. The excess is reported to the ledger, which shows it as
overdraft if it exceeds the limit. Nothing more is reserved until the lease is extended.

No ledger counts beyond MAX_LIMIT_NANO. Reported settlements are capped there, and so are requested
amounts. An exchange that no ledger could accept would be retried forever.
"""

import math

from tollway.gateway.budgets.model import MAX_LIMIT_NANO, LeaseKey
from tollway.gateway.budgets.protocol import ExchangeReply, LeaseExchange
from tollway.gateway.budgets.recovery_file import ACKNOWLEDGED, OPEN, SETTLED, Cells

UNBOUND = 2**62  # the room of a lease that never refuses


class LocalLease:
    """The holder's side of one lease. A `LeasedBudget` owns it; its slots are its mutable state."""

    __slots__ = (
        "_cells",
        "_flushed_nano",
        "_given_nano",
        "_held_nano",
        "_pending",
        "_sent_s",
        "_seq",
        "closed",
        "ended",
        "holds",
        "key",
        "limited",
        "low_nano",
        "open_nano",
        "room_nano",
        "settled_nano",
        "synced_s",
        "until_s",
        "used_nano",
    )

    def __init__(self, key: LeaseKey, cells: Cells, now_s: float, limited: bool = True) -> None:
        """`cells` is the lease's slot in the recovery file. `limited`: hold at most the grant."""
        self.key = key
        self.limited = limited
        self.room_nano = 0 if limited else UNBOUND
        self.holds = 0  # reservations not ended; that of a call quoted at $0 adds 0 to open
        self.open_nano = 0
        self.settled_nano = 0
        self.used_nano = 0  # total ever reserved
        self.low_nano = 0  # below this room, more is requested ahead of need
        self.until_s = -math.inf  # by this process's clock: never later than the ledger's expiry
        self.synced_s = now_s
        self.ended = self.closed = False
        self._cells = cells
        self._held_nano = 0
        self._flushed_nano = 0
        self._given_nano = 0
        self._seq = 0
        self._sent_s = now_s
        self._pending: LeaseExchange | None = None

    # ------------------------------------------------------------------ on the path

    def hold(self, amount_nano: int) -> None:
        """Reserve an amount. The recovery file records it before the call is made."""
        self._cells[OPEN] = self.open_nano = self.open_nano + amount_nano
        self.holds += 1
        self.room_nano -= amount_nano
        self.used_nano += amount_nano

    def settle(self, amount_nano: int, cost_nano: int) -> None:
        """Convert a reservation into a cost, 0 if unused. The recovery file adds the cost first."""
        total_nano = self.settled_nano + cost_nano
        settled_nano = total_nano if total_nano < MAX_LIMIT_NANO else MAX_LIMIT_NANO
        self._cells[SETTLED] = self.settled_nano = settled_nano
        self._cells[OPEN] = self.open_nano = self.open_nano - amount_nano
        self.holds -= 1
        self.room_nano += amount_nano - cost_nano

    # ------------------------------------------------------------------ with the ledger

    @property
    def cells(self) -> Cells:
        """The lease's slot in the recovery file."""
        return self._cells

    @property
    def held_nano(self) -> int:
        """Amount that the ledger had leased to this holder at its last reply."""
        return self._held_nano

    @property
    def sent_s(self) -> float:
        """Time at which the current or last exchange was first sent."""
        return self._sent_s

    @property
    def fresh(self) -> bool:
        """Whether this lease has sent no exchange yet."""
        return self._seq == 0

    @property
    def pending(self) -> bool:
        """Whether an exchange is under way or its reply was lost."""
        return self._pending is not None

    @property
    def unsynced_nano(self) -> int:
        """Amount settled and not yet acknowledged by the ledger."""
        return self.settled_nano - self._flushed_nano

    @property
    def idle_nano(self) -> int:
        """Amount leased and not reserved."""
        return max(0, self.room_nano) if self.limited else 0

    def ask(
        self,
        now_s: float,
        *,
        give_nano: int = 0,
        need_nano: int = 0,
        due_nano: int = 0,
        want_nano: int = 0,
        close: bool = False,
    ) -> LeaseExchange:
        """Return the exchange to send now; the previous one again if its reply was lost."""
        if self._pending is None:
            self._seq += 1
            self._given_nano = give_nano
            self.room_nano -= give_nano  # removed here before any other holder can get it
            if close:
                self.closed, self.until_s = True, -math.inf
            self._pending = LeaseExchange(
                self.key,
                self._seq,
                settled_nano=self.settled_nano,
                held_nano=self._held_nano,
                flushed_nano=self._flushed_nano,
                open_nano=min(self.open_nano, MAX_LIMIT_NANO),
                give_nano=give_nano,
                need_nano=min(need_nano, MAX_LIMIT_NANO),
                due_nano=min(due_nano, MAX_LIMIT_NANO),
                want_nano=min(want_nano, MAX_LIMIT_NANO),
                close=close,
            )
            # Measured from the first attempt: if the reply was lost and the exchange is repeated,
            # the lease may have been running since then.
            self._sent_s = now_s
        return self._pending

    def take(self, reply: ExchangeReply, now_s: float, lease_s: float) -> None:
        """Apply the ledger's reply to the pending exchange."""
        asked, self._pending = self._pending, None
        assert asked is not None
        fresh = asked.settled_nano - self._flushed_nano
        self._flushed_nano = asked.settled_nano
        self._cells[ACKNOWLEDGED] = 1
        covered = min(fresh, self._held_nano)
        back = min(self._given_nano, self._held_nano - covered)
        self._held_nano += reply.grant_nano - covered - back
        # The ledger charged what the lease did not cover, so room no longer owes it.
        self.room_nano += reply.grant_nano + fresh - covered
        self.synced_s = now_s
        self.ended = reply.ended
        self.until_s = -math.inf if self.ended or self.closed else self._sent_s + lease_s
