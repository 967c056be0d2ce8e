"""A device: what an hour of it costs, how busy it is, and so what a second of a call costs.

Theory of operation. A device is paid for by the hour, whether it works or not. Backends that run on
it share its cost by what they use. So the price of a busy second is not declared but learned:

    price of a second that a call of backend i is charged
        = price of a busy second (`idle.py`, from the loads of all backends)
        x busy seconds in a charged second of i (`load.py`; 1 unless the server's counters tell)

What all calls are charged then adds up to the bill, but for what the rule leaves to nobody and for
the time until a change of the load has been learned. Both sums are kept, in nano-dollars, and their
difference is shown.

A rush that the load does not know yet makes calls wait for each other, and each is charged its
wait. At a price from a load of 0.1, a hundred waiting calls would be charged a thousand times what
the device costs. So once the calls in progress ask for more than the device can serve (`rush`),
what they ask for is the load of the price.

Charged seconds come from the gateway (`tick`), device seconds from a server's counters (`measured`)
where there are any. Pure: times are arguments.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tollway.backends.devices.idle import IdleRule, busy_second_nano, without_idle
from tollway.backends.devices.load import BusyShare, Load
from tollway.backends.price import Price

RUSH_HALF_LIFE_S = 2.0
"""Of the calls in progress: long enough that a few that meet by chance are no rush."""

HOUR_NS = 3600 * 10**9
NOTHING: Mapping[str, float] = {}
UNREAD = Price(per_device_s_nano=1.0, is_stale=True)
"""The price of a device that was never read. Nothing is served at it: a gateway does not open."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a device's cost is shared; see `DeviceConfig` for the fields."""

    idle: IdleRule = "by-use"
    slots: float = 1.0
    utilization: float = 0.5
    least: float = 0.05
    half_life_s: float = 600.0
    stale_after_s: float = 3600.0


class User:
    """One backend's use of a device."""

    # The mutable state is what was learned, and the counts at the latest observation.

    def __init__(self, assumed: float, half_life_s: float, now_s: float) -> None:
        self.load = Load(assumed, half_life_s)
        self.share = BusyShare(half_life_s)
        self.rush = 0.0
        self.busy_s = 0.0
        self._seen_s = self._rush_s = now_s
        self._charged_s: float | None = None
        self._counter_s: float | None = None

    def revise(self, half_life_s: float) -> None:
        """Apply new settings; the next value of the counter is the first of a new row."""
        self.load.half_life_s = self.share.half_life_s = half_life_s
        self._counter_s = None

    def waiting(self, asked: float, now_s: float) -> None:
        """Record what calls in progress are expected to be charged in a second."""
        keeps = 0.5 ** (max(0.0, now_s - self._rush_s) / RUSH_HALF_LIFE_S)
        self.rush += (1.0 - keeps) * (asked * self.share.value - self.rush)
        self._rush_s = now_s

    def charged(self, charged_s: float, now_s: float) -> None:
        """Record the charged seconds so far, at a backend whose device time nothing measures."""
        if self._charged_s is None:  # what was charged before is not of this time
            self._seen_s, self._charged_s = now_s, charged_s
            return
        self._observe((charged_s - self._charged_s) * self.share.value, charged_s, now_s)

    def measured(self, counter_s: float, charged_s: float, now_s: float) -> None:
        """Record a server's counter, and the charged seconds at that time."""
        before, self._counter_s = self._counter_s, counter_s
        if before is None:  # what came before is not known
            self._seen_s, self._charged_s = now_s, charged_s
            return
        busy_s = counter_s - before if counter_s >= before else counter_s  # the server restarted
        spent_s = max(0.0, charged_s - (self._charged_s or 0.0))
        self.share.observe(spent_s, busy_s, now_s - self._seen_s)
        self._observe(busy_s, charged_s, now_s)

    def _observe(self, busy_s: float, charged_s: float, now_s: float) -> None:
        self.busy_s += max(0.0, busy_s)
        self.load.observe(busy_s, now_s - self._seen_s)
        self._seen_s, self._charged_s = now_s, charged_s


class Device:
    """One device and the backends that run on it."""

    # The mutable state is its price, the use by each backend, and what it has cost so far.

    def __init__(self, name: str, terms: Terms, backends: Collection[str], now_s: float) -> None:
        self.name = name
        self.terms = terms
        self.hour_nano = 0
        self.read_s = now_s
        self.failure = ""
        self.bill_nano = 0
        self._rest = 0
        self._billed_s: float | None = None
        self._measured: set[str] = set()
        self.users: dict[str, User] = {}
        self.revise(terms, backends, now_s)

    def revise(self, terms: Terms, backends: Collection[str], now_s: float) -> None:
        """Apply new settings; what is known of backends that stay is kept."""
        self.terms = terms
        assumed = terms.utilization * terms.slots / max(1, len(backends))
        for name in self.users.keys() - set(backends):
            del self.users[name]
        for name in backends:
            if name not in self.users:
                self.users[name] = User(assumed, terms.half_life_s, now_s)
            self.users[name].revise(terms.half_life_s)
        self._measured.clear()  # their counters may be others from now on

    def succeed(self, old: "Device", now_s: float) -> None:
        """Go on from a device of the same name whose price came from another place."""
        backends, self.users = [*self.users], dict(old.users)
        self.bill_nano, self._rest, self._billed_s = old.bill_nano, old._rest, old._billed_s
        self.revise(self.terms, backends, now_s)

    def priced(self, hour_nano: int, now_s: float) -> None:
        """Record the price of an hour, as it was read."""
        self.hour_nano, self.read_s, self.failure = hour_nano, now_s, ""

    def is_stale(self, now_s: float) -> bool:
        """Return whether the price is unknown: it could not be read for too long, or never."""
        return not self.hour_nano or (
            bool(self.failure) and now_s - self.read_s > self.terms.stale_after_s
        )

    def tick(
        self,
        now_s: float,
        charged_s: Mapping[str, float],
        asked: Mapping[str, float] = NOTHING,
        *,
        bills: bool = True,
    ) -> None:
        """Record the seconds that calls were charged so far, by backend.

        `asked`: the charged seconds that calls in progress will add in a second. `bills`: add the
        time that has passed to the bill, which one of several workers does.
        """
        for name, user in self.users.items():
            user.waiting(asked.get(name, 0.0), now_s)
            if name not in self._measured:
                user.charged(charged_s.get(name, 0.0), now_s)
        if bills and self.hour_nano:
            since_s, self._billed_s = self._billed_s, now_s
            passed_ns = 0 if since_s is None else round(max(0.0, now_s - since_s) * 1e9)
            nano, self._rest = divmod(self.hour_nano * passed_ns + self._rest, HOUR_NS)
            self.bill_nano += nano

    def measured(self, backend: str, counter_s: float, charged_s: float, now_s: float) -> None:
        """Record the counter of a backend's server: device seconds since any start."""
        self._measured.add(backend)
        self.users[backend].measured(counter_s, charged_s, now_s)

    def unmeasured(self, backend: str) -> None:
        """Record that a counter cannot be read: charged seconds stand for it, at the last ratio."""
        self._measured.discard(backend)

    @property
    def loads(self) -> dict[str, float]:
        """Busy seconds in a second, by backend."""
        return {name: user.load.value for name, user in self.users.items()}

    @property
    def priced_loads(self) -> dict[str, float]:
        """The loads that prices follow from: in a rush, what calls in progress ask for."""
        rush = {name: user.rush for name, user in self.users.items()}
        loads = self.loads
        if sum(rush.values()) <= max(self.terms.slots, sum(loads.values())):
            return loads
        return {name: max(load, rush[name]) for name, load in loads.items()}

    @property
    def utilization(self) -> float:
        """The part of the device's time in which it works, in [0, 1]."""
        return min(1.0, sum(self.loads.values()) / self.terms.slots)

    def idle_share(self, backend: str) -> float:
        """Return the part of a backend's price that pays for idle time, in [0, 1)."""
        loads, terms = self.priced_loads, self.terms
        priced = busy_second_nano(terms.idle, 1.0, loads, slots=terms.slots, least=terms.least)
        return max(0.0, 1.0 - without_idle(1.0, loads, slots=terms.slots) / priced[backend])

    def prices(self, now_s: float) -> dict[str, Price]:
        """Return the price of the calls to each backend."""
        if not self.hour_nano:
            return dict.fromkeys(self.users, UNREAD)
        terms, is_stale = self.terms, self.is_stale(now_s)
        busy = busy_second_nano(
            terms.idle,
            self.hour_nano / 3600,
            self.priced_loads,
            slots=terms.slots,
            least=terms.least,
        )
        return {
            name: Price(
                per_device_s_nano=busy[name] * user.share.value,
                is_stale=is_stale,
            )
            for name, user in self.users.items()
        }

    def save(self) -> dict[str, Any]:
        """Return what was learned of the load, as JSON types."""
        return {name: [user.load.save(), user.share.save()] for name, user in self.users.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Load a saved state; ValueError if it is damaged. Unknown backends are passed over."""
        for name, (load, share) in state.items():
            if name in self.users:
                self.users[name].load.load(load)
                self.users[name].share.load(share)
