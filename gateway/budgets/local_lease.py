"""A purse: what one process may spend of one budget in one window, in memory.

It is the holder's side of one lease. Its figures and the ledger's agree at every instant:

    held at the ledger = room + open + settled but not told + being given back

so a reservation moves room to open, a settlement moves open to settled (and what it did not cost
back to room), and neither asks anybody. `room` may go below zero, when a call costs more than was
reserved for it: the excess is told to the ledger, which shows it as overdraft if it breaks the
limit, and nothing more is reserved until the lease is extended.

No ledger counts beyond MAX_LIMIT_NANO: what is told of as settled stays there, and nothing more
than that is asked for. An exchange that no ledger could take would be asked again for ever.
"""

import math

from tollway.gateway.budgets.model import MAX_LIMIT_NANO, LeaseKey
from tollway.gateway.budgets.protocol import ExchangeReply, LeaseExchange
from tollway.gateway.budgets.recovery_file import HEARD, OPEN, SETTLED, Cells

UNBOUND = 2**62  # the room of a purse that never refuses


class LocalLease:
    """One lease in its holder's hands; its account owns it, and its mutable state is its slots."""

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
        "told_s",
        "until_s",
        "used_nano",
    )

    def __init__(self, key: LeaseKey, cells: Cells, now_s: float, limited: bool = True) -> None:
        """`cells` are its slot of the till; `limited`: it holds no more than was granted."""
        self.key = key
        self.limited = limited
        self.room_nano = 0 if limited else UNBOUND
        self.holds = 0  # reservations not ended; one of a call quoted at nothing adds 0 to open
        self.open_nano = 0
        self.settled_nano = 0
        self.used_nano = 0  # all that was ever reserved
        self.low_nano = 0  # below this room, more is asked for ahead of need
        self.until_s = -math.inf  # by this process's clock: not a moment later than the ledger's
        self.told_s = now_s
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
        """Reserve; the till knows it before the call is made."""
        self._cells[OPEN] = self.open_nano = self.open_nano + amount_nano
        self.holds += 1
        self.room_nano -= amount_nano
        self.used_nano += amount_nano

    def settle(self, amount_nano: int, cost_nano: int) -> None:
        """Turn a reservation into a cost, 0 where it was not used; the till first adds the cost."""
        settled_nano = min(self.settled_nano + cost_nano, MAX_LIMIT_NANO)
        self._cells[SETTLED] = self.settled_nano = settled_nano
        self._cells[OPEN] = self.open_nano = self.open_nano - amount_nano
        self.holds -= 1
        self.room_nano += amount_nano - cost_nano

    # ------------------------------------------------------------------ with the ledger

    @property
    def cells(self) -> Cells:
        """Its slot of the till."""
        return self._cells

    @property
    def held_nano(self) -> int:
        """What the ledger had leased to it when it last answered."""
        return self._held_nano

    @property
    def sent_s(self) -> float:
        """When the exchange under way, or the last one, was first sent."""
        return self._sent_s

    @property
    def fresh(self) -> bool:
        """Whether the ledger has never heard of it."""
        return self._seq == 0

    @property
    def pending(self) -> bool:
        """Whether an exchange is under way, or its answer was lost."""
        return self._pending is not None

    @property
    def untold_nano(self) -> int:
        """What is settled and not yet known to the ledger."""
        return self.settled_nano - self._flushed_nano

    @property
    def idle_nano(self) -> int:
        """What is leased here and not reserved."""
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
        """Return what to tell the ledger now; the same as before where its answer was lost."""
        if self._pending is None:
            self._seq += 1
            self._given_nano = give_nano
            self.room_nano -= give_nano  # gone from here before anybody else can have it
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
            # Counted from the first time it was asked: an answer that was lost and asked for again
            # may tell of a lease that has been running since.
            self._sent_s = now_s
        return self._pending

    def take(self, reply: ExchangeReply, now_s: float, lease_s: float) -> None:
        """Take the ledger's answer to what was asked."""
        asked, self._pending = self._pending, None
        assert asked is not None
        fresh = asked.settled_nano - self._flushed_nano
        self._flushed_nano = asked.settled_nano
        self._cells[HEARD] = 1
        covered = min(fresh, self._held_nano)
        back = min(self._given_nano, self._held_nano - covered)
        self._held_nano += reply.grant_nano - covered - back
        # What no lease covered was charged as it is, so it is no longer owed from the room.
        self.room_nano += reply.grant_nano + fresh - covered
        self.told_s = now_s
        self.ended = reply.ended
        self.until_s = -math.inf if self.ended or self.closed else self._sent_s + lease_s
