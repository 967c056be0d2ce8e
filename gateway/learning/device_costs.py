"""Device costs: what calls are charged of their devices, and the prices that follow.

Theory of operation. An observer adds up what each settled attempt was charged, in seconds and in
nano-dollars. Once a second the devices hear of the sum over all workers, the prices and counters
that are due are read, and a price that has moved by PRICE_MOVES or more is set: for new requests,
as `RoutePlan.reprice` says. A price or a counter that cannot be read is kept for a while and
reported once.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from tollway.backends.devices.clocks import DeviceClock
from tollway.backends.devices.device import Device
from tollway.backends.devices.pages import parsed
from tollway.backends.devices.price_reading import BYTES_MAX, Read
from tollway.backends.money import to_usd
from tollway.backends.price import Price
from tollway.gateway.learning.price_hours import prices, rescale
from tollway.gateway.routing.observer import EventSink
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.request_state import Attempt
from tollway.gateway.storage.journal import Journal

log = logging.getLogger(__name__)

TICK_S = 1.0
PRICE_MOVES = 0.01  # below it, policies and cached quotes are left alone: estimates err by more
RECORD_S = 60.0  # between two rows of a device in the journal
EXCLUDED_S = 3.0 * TICK_S  # a rest that each tick begins again while a price is unknown
MICRO = 1_000_000


class Page(Protocol):
    """A document that can be fetched again."""

    async def fetch(self, bytes_max: int) -> bytes:
        """Return the document; OSError if it cannot be had."""

    async def aclose(self) -> None:
        """Release what it holds."""


@dataclass(frozen=True, slots=True)
class PriceFeed:
    """Where the price of an hour is read, and how."""

    page: Page
    read: Read
    poll_s: float


@dataclass(slots=True)
class PolledCounter:
    """The clock of one backend. `due_s`: when it is read next."""

    clock: DeviceClock
    close: Callable[[], Any]
    poll_s: float
    due_s: float = 0.0
    failure: str = ""


@dataclass(slots=True)
class PricedDevice:
    """A device, its feed if its price is polled, and the clocks of its backends."""

    device: Device
    feed: PriceFeed | None = None
    clocks: dict[str, PolledCounter] = field(default_factory=dict)
    excludes: bool = False
    due_s: float = 0.0
    recorded: "Recorded | None" = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A device's sums when its latest row was written."""

    at_s: float
    wall_s: float
    bill_nano: int
    busy_s: float


@dataclass(slots=True)
class Ratio:
    """The charged seconds in a second that a call is in progress, over the latest hundred calls."""

    charged_s: float = 0.0
    lasted_s: float = 0.0

    def observe(self, charged_s: float, lasted_s: float) -> None:
        """Record a call."""
        self.charged_s += 0.01 * (charged_s - self.charged_s)
        self.lasted_s += 0.01 * (lasted_s - self.lasted_s)

    @property
    def value(self) -> float:
        """The ratio, at most 1; 1 until a call has ended."""
        return min(1.0, self.charged_s / self.lasted_s) if self.lasted_s > 0.0 else 1.0


@dataclass(slots=True)
class Charged:
    """What calls to one backend were charged here: microseconds and nano-dollars.

    `told`: less than 1 if replies tell a shorter time than calls last, because they waited.
    """

    us: int = 0
    nano: int = 0
    told: Ratio = field(default_factory=Ratio)


class Unreadable(ValueError):  # noqa: N818 - reads as what happened
    """The price of a device cannot be read."""


async def read_price(one: PricedDevice, now_s: float) -> None:
    """Read the price of an hour, if it is polled; Unreadable if that fails."""
    if one.feed is None:
        return
    try:
        body = await one.feed.page.fetch(BYTES_MAX)
        hour_nano = await parsed(one.feed.read, body)
    except (OSError, ValueError) as exc:
        raise Unreadable(str(exc)) from exc
    one.device.priced(hour_nano, now_s)


class DeviceCosts:
    """Keeps the prices of devices' backends up to date.

    It observes attempts.
    """

    # The mutable state is what was charged, the devices, and their poll times.

    def __init__(
        self,
        routes: Mapping[str, RoutePlan],
        *,
        clock: Callable[[], float],
        totals: Callable[[str], Callable[[int], int]],
        bills: bool,
        workers: int,
        events: EventSink,
        journal: Journal,
        wall: Callable[[], float],
    ) -> None:
        """`totals` returns the function that adds a count here to those of all workers.

        `bills`: this worker counts the devices' bills, and writes them to the journal. `wall` is
        the time of day. `workers`: how many there are; they are assumed to have equal shares of
        the calls in progress.
        """
        self._routes = routes
        self._clock = clock
        self._totals = totals
        self._bills = bills
        self._workers = workers
        self._events = events
        self._journal = journal
        self._wall = wall
        self.devices: dict[str, PricedDevice] = {}
        self.charged: dict[str, Charged] = {}
        self._all: dict[str, Callable[[int], int]] = {}

    def revise(self, devices: Mapping[str, PricedDevice]) -> list[PricedDevice]:
        """Take the devices of a configuration; return those that are to be closed.

        What was charged to their backends goes on.
        """
        old, self.devices = [*self.devices.values()], dict(devices)
        names = {name for one in devices.values() for name in one.device.users}
        for gone in self.charged.keys() - names:
            del self.charged[gone]
        for name in names - self.charged.keys():
            self.charged[name] = Charged()
            self._all[name] = self._totals(column(name))
        now_s = self._clock()
        for one in old:
            if one.device.name in self.devices:
                self.devices[one.device.name].recorded = one.recorded
            elif self._bills:
                self._record(one, now_s, always=True)
        for one in self.devices.values():
            if one.feed is not None:
                one.due_s = now_s + one.feed.poll_s
        return old

    # ------------------------------------------------------------------ what is charged

    def attempt(
        self, route: str, tenant: str, attempt: Attempt, exemplar: dict[str, str] | None = None
    ) -> None:
        """Count the charge of an attempt, if its backend runs on a device."""
        charged = self.charged.get(attempt.backend)
        if charged is None:
            return
        usage, cost_nano = attempt.outcome.usage, attempt.outcome.cost_nano
        if cost_nano:
            seconds = attempt.latency_s if usage is None else usage.device_s
            charged.us += round(seconds * MICRO)
            charged.nano += cost_nano
            charged.told.observe(seconds, attempt.latency_s)

    def tagged(self, tenant: str, tags: Mapping[str, str], cost_nano: int) -> None:
        """Do nothing: a device's cost has no tags."""

    # ------------------------------------------------------------------ what they cost

    async def run(self) -> None:
        """Read what is due, tell the devices what was charged, and set the prices."""
        if not self.devices:  # a reload may add some
            return
        now_s = self._clock()
        due = list(self._due(now_s))
        if due:
            await asyncio.gather(*due)
        now_s, charged_s, asked = self._clock(), self._charged_s(), self._asked()
        for one in self.devices.values():
            one.device.tick(now_s, charged_s, asked, bills=self._bills)
            if self._bills:
                self._record(one, now_s)
        before = prices(self._routes)
        self.put(self._routes)
        rescale(self._routes, before)

    def _due(self, now_s: float) -> "Iterator[asyncio._CoroutineLike[None]]":
        for one in self.devices.values():
            if one.feed is not None and now_s >= one.due_s:
                one.due_s = now_s + one.feed.poll_s
                yield self._read_again(one, now_s)
            for backend, counter in one.clocks.items():
                if now_s >= counter.due_s:
                    counter.due_s = now_s + counter.poll_s
                    yield self._measure(one.device, backend, counter)

    async def _read_again(self, one: PricedDevice, now_s: float) -> None:
        device = one.device
        try:
            await read_price(one, now_s)
        except Unreadable as exc:
            if not device.failure:
                kept_s = device.terms.stale_after_s
                text = f"its price cannot be read, because it {exc}; it is kept for {kept_s:g} s"
                self._events.add("device_price_unread", device.name, text)
            device.failure = str(exc)

    async def _measure(self, device: Device, backend: str, counter: PolledCounter) -> None:
        try:
            seconds = await counter.clock.seconds()
        except (OSError, ValueError) as exc:
            if not counter.failure:
                text = (
                    f"the device time of {backend} cannot be read, because its page {exc}; the "
                    "duration of calls stands for it, at the last ratio"
                )
                self._events.add("device_time_unread", device.name, text, backend=backend)
            counter.failure = str(exc)
            device.unmeasured(backend)
            return
        counter.failure = ""
        if backend in device.users:  # else a reload has taken it away meanwhile
            charged_s = self._charged_s().get(backend, 0.0)
            device.measured(backend, seconds, charged_s, self._clock())

    def _asked(self) -> dict[str, float]:
        """Return what calls in progress will be charged in a second, by backend, in all workers."""
        asked: dict[str, float] = {}
        for route in self._routes.values():
            for name, backend in route.backends.items():
                if name in self.charged and backend.slots is not None:
                    calls = backend.slots.busy + backend.slots.waiting
                    asked[name] = calls * self._workers * self.charged[name].told.value
        return asked

    def _charged_s(self) -> dict[str, float]:
        """Return the seconds charged so far by all workers, by backend."""
        return {name: self._all[name](one.us) / MICRO for name, one in self.charged.items()}

    def _record(self, one: PricedDevice, now_s: float, *, always: bool = False) -> None:
        """Write what a device has cost since its latest row, if that is RECORD_S old."""
        device, last = one.device, one.recorded
        busy_s = sum(user.busy_s for user in device.users.values())
        if last is not None and not always and now_s - last.at_s < RECORD_S:
            return
        wall_s = self._wall()
        one.recorded = Recorded(now_s, wall_s, device.bill_nano, busy_s)
        if last is None or device.bill_nano == last.bill_nano:
            return
        row = {
            "kind": "device",
            "id": self._journal.new_id(),
            "time": round(wall_s, 6),
            "device": device.name,
            "since": round(last.wall_s, 6),
            "backends": sorted(device.users),
            "usd_per_hour": to_usd(device.hour_nano),
            "bill_nano": device.bill_nano - last.bill_nano,
            "busy_s": max(0.0, busy_s - last.busy_s),
            "concurrency": device.terms.slots,
            "idle": device.terms.idle,
        }
        self._journal.append(row)

    def put(self, routes: Mapping[str, RoutePlan]) -> None:
        """Set the prices that have moved on the backends of routes; the policies are not told."""
        now_s = self._clock()
        for one in self.devices.values():
            is_excluded = one.excludes and one.device.is_stale(now_s)
            for name, price in one.device.prices(now_s).items():
                for route in routes.values():
                    backend = route.backends.get(name) or route.hidden.get(name)
                    if backend is None:
                        continue
                    if is_excluded:
                        backend.rest.hold(now_s, EXCLUDED_S)
                    if moved(backend.price, price):
                        route.reprice(name, price)

    def price(self, backend: str) -> Price | None:
        """Return the price now of a backend that runs on a device; None for any other."""
        for one in self.devices.values():
            if backend in one.device.users:
                return one.device.prices(self._clock())[backend]
        return None

    def unallocated_nano(self, one: PricedDevice) -> int:
        """Return the bill that this worker counts, less what it has charged for the device."""
        return one.device.bill_nano - sum(self.charged[name].nano for name in one.device.users)

    def described(self, backends: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return, for each backend that runs on a device, how it is priced at present."""
        now_s = self._clock()
        return {
            backend: {
                "device": device.name,
                "usd_per_hour": to_usd(device.hour_nano),
                "price_known": not device.is_stale(now_s),
                "utilization": device.utilization,
                "idle": device.terms.idle,
                "idle_share": device.idle_share(backend),
                "busy_share": device.users[backend].share.value,
                "second_usd": to_usd(device.prices(now_s)[backend].per_device_s_nano),
            }
            for device in [one.device for one in self.devices.values()]
            for backend in sorted(device.users.keys() & set(backends))
        }

    def save(self) -> bytes:
        """Return what was learned of the devices' loads."""
        return orjson.dumps({name: one.device.save() for name, one in self.devices.items()})

    def load(self, state: bytes) -> None:
        """Load a saved state; ValueError if it is damaged."""
        saved = orjson.loads(state)
        for name, one in self.devices.items():
            one.device.load(saved.get(name, {}))

    async def aclose(self) -> None:
        """Write the last rows, and close what prices and counters are read from."""
        for one in self.devices.values():
            if self._bills:
                self._record(one, self._clock(), always=True)
            await close(one)


async def close(one: PricedDevice) -> None:
    """Close the connections of a device's feed and clocks."""
    if one.feed is not None:
        await one.feed.page.aclose()
    for counter in one.clocks.values():
        await counter.close()


def moved(was: Price, price: Price) -> bool:
    """Return whether a price differs so much that it is to be set."""
    if was.is_stale != price.is_stale:
        return True
    was_nano, is_nano = was.per_device_s_nano, price.per_device_s_nano
    return abs(is_nano - was_nano) > PRICE_MOVES * was_nano


def column(backend: str) -> str:
    """Return the name under which workers share what calls to a backend were charged."""
    return f"device of {backend}"
