"""Device costs: what is charged, over several workers, and when prices move."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tollway.backends.devices.device import Device, Terms
from tollway.backends.pricing import Price
from tollway.backends.types import Usage
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.learning.device_costs import (
    DeviceCosts,
    PolledCounter,
    PricedDevice,
    PriceFeed,
    column,
    moved,
)
from tollway.gateway.workers.identity import SharedCounters, WorkerIdentity

HOUR_NANO = 3_600_000_000


class Events:
    def __init__(self) -> None:
        self.kinds: list[str] = []

    def add(self, kind: str, about: str, text: str, **details: Any) -> None:
        self.kinds.append(kind)


class Rows(list[dict[str, Any]]):
    """A journal that keeps its rows."""

    def new_id(self) -> str:
        return "0"


class Route:
    """A route with one backend `a`, that records what its policy is told."""

    def __init__(self) -> None:
        self.backends = {"a": SimpleNamespace(price=Price(per_device_s_nano=1.0), slots=None)}
        self.estimator, self.policy, self.ratios = CostEstimator(), self, list[float]()
        self.prices: list[float] = []

    def reprice(self, arm: str, value: Any) -> None:
        """Take a price, as a route does, or a ratio, as a policy does."""
        if isinstance(value, float):
            self.ratios.append(value)
        else:
            self.prices.append(value.per_device_s_nano)
            self.backends = {arm: SimpleNamespace(price=value, slots=None)}


def attempt(seconds: float, cost_nano: int, backend: str = "a") -> Any:
    outcome = SimpleNamespace(usage=Usage(device_s=seconds), cost_nano=cost_nano)
    return SimpleNamespace(backend=backend, outcome=outcome, latency_s=9.0)


def costs(
    identity: WorkerIdentity, route: Any = None, clock: Any = lambda: 0.0
) -> tuple[DeviceCosts, Device, Events]:
    events = Events()
    made = DeviceCosts(
        {} if route is None else {"r": route},
        clock=clock,
        totals=identity.total,
        bills=identity.learns,
        workers=identity.count,
        events=events,
        journal=Rows(),  # type: ignore[arg-type]
        wall=lambda: 1000.0 + clock(),
    )
    device = Device("gpu", Terms(half_life_s=60.0), ["a"], 0.0)
    device.priced(HOUR_NANO, 0.0)
    made.revise({"gpu": PricedDevice(device)})
    return made, device, events


def test_workers_learn_from_the_calls_of_all_and_one_of_them_counts_the_bill() -> None:
    now, board = [0.0], SharedCounters(2, [column("a")])
    clock = lambda: now[0]
    workers = [costs(WorkerIdentity(i, 2, None, board), clock=clock) for i in (0, 1)]
    for second in range(1, 601):
        now[0] = float(second)
        for share, (one, _, _) in zip((0.3, 0.1), workers, strict=True):
            one.attempt("r", "t", attempt(share, 500_000))
        for one, _, _ in workers:
            asyncio.run(one.run())
    (first, device, _), (second_, other, _) = workers
    assert device.utilization == pytest.approx(0.4, rel=0.02)
    assert other.utilization == pytest.approx(0.4, rel=0.02)
    assert (device.bill_nano, other.bill_nano) == (599 * 1_000_000, 0)
    left = [made.unallocated_nano(made.devices["gpu"]) for made in (first, second_)]
    assert sum(left) == 599 * 1_000_000 - 2 * 600 * 500_000


def test_only_what_was_charged_counts_and_a_call_without_usage_by_its_duration() -> None:
    one, _, _ = costs(WorkerIdentity())
    one.attempt("r", "t", attempt(0.5, 0))
    one.attempt("r", "t", attempt(0.5, 10, backend="elsewhere"))
    cut = attempt(0.0, 70)
    cut.outcome.usage = None
    one.attempt("r", "t", cut)
    assert (one.charged["a"].us, one.charged["a"].nano) == (9_000_000, 70)


def test_the_journal_has_what_a_device_cost_by_the_minute_and_the_rest_at_the_end() -> None:
    now = [0.0]
    one, _, _ = costs(WorkerIdentity(), clock=lambda: now[0])
    for second in range(150):
        now[0] = float(second)
        one.attempt("r", "t", attempt(0.5, 1))
        asyncio.run(one.run())
    asyncio.run(one.aclose())
    rows = list(one._journal)  # type: ignore[call-overload]
    assert [row["bill_nano"] for row in rows] == [60_000_000, 60_000_000, 29_000_000]
    assert [row["since"] for row in rows] == [1000.0, 1060.0, 1120.0]
    assert [row["busy_s"] for row in rows] == pytest.approx([30.0, 30.0, 14.5])
    assert {row["device"] for row in rows} == {"gpu"}


def test_a_device_that_a_reload_removes_has_its_last_row() -> None:
    now = [0.0]
    one, _, _ = costs(WorkerIdentity(), clock=lambda: now[0])
    for second in range(30):
        now[0] = float(second)
        asyncio.run(one.run())
    assert [gone.device.name for gone in one.revise({})] == ["gpu"]
    asyncio.run(one.aclose())
    rows = list(one._journal)  # type: ignore[call-overload]
    assert [row["bill_nano"] for row in rows] == [29_000_000]


def test_a_price_moves_by_a_percent_or_not_at_all_and_policies_are_told_the_ratio() -> None:
    route, now = Route(), [0.0]
    one, device, _ = costs(WorkerIdentity(), route, lambda: now[0])
    one.put({"r": route})  # type: ignore[dict-item]
    assert route.prices == [2_000_000.0]
    assert route.ratios == []
    device.priced(round(1.009 * HOUR_NANO), 0.0)
    asyncio.run(one.run())
    assert len(route.prices) == 1
    device.priced(2 * HOUR_NANO, 0.0)
    asyncio.run(one.run())
    assert route.prices[1:] == [4_000_000.0]
    assert route.ratios == [pytest.approx(2.0)]


def test_a_price_that_becomes_unknown_is_set_although_it_is_the_same() -> None:
    known = Price(per_device_s_nano=5.0)
    assert moved(known, Price(per_device_s_nano=5.0, is_stale=True))
    assert not moved(known, Price(per_device_s_nano=5.0))


class Page:
    """A page that can be had, or not."""

    def __init__(self, *bodies: bytes | None) -> None:
        self.bodies = list(bodies)
        self.is_closed = False

    async def fetch(self, bytes_max: int) -> bytes:
        body = self.bodies.pop(0)
        if body is None:
            raise OSError("was answered with status 500")
        return body

    async def aclose(self) -> None:
        self.is_closed = True


def test_a_price_is_read_when_it_is_due_and_a_failure_is_reported_once() -> None:
    now = [0.0]
    one, device, events = costs(WorkerIdentity(), clock=lambda: now[0])
    page = Page(b"7", None, None, b"8")
    feed = PriceFeed(page, lambda body: int(body) * HOUR_NANO, 60.0)
    one.revise({"gpu": PricedDevice(device, feed)})
    seen = []
    for second in range(0, 300, 30):
        now[0] = float(second)
        asyncio.run(one.run())
        seen.append(device.hour_nano // HOUR_NANO)
    assert seen == [1, 1, 7, 7, 7, 7, 7, 7, 8, 8]
    assert events.kinds == ["device_price_unread"]
    assert device.failure == ""
    asyncio.run(one.aclose())
    assert page.is_closed


def test_a_counter_that_fails_is_replaced_by_the_duration_of_calls() -> None:
    class Clock:
        def __init__(self) -> None:
            self.values: list[float | None] = [100.0, 100.2, None, None]

        async def seconds(self) -> float:
            value = self.values.pop(0)
            if value is None:
                raise ValueError("has no sample a")
            return value

    now = [0.0]
    one, device, events = costs(WorkerIdentity(), clock=lambda: now[0])
    counter = PolledCounter(Clock(), lambda: None, 1.0)
    one.revise({"gpu": PricedDevice(device, clocks={"a": counter})})
    for second in range(1, 5):
        now[0] = float(second)
        one.attempt("r", "t", attempt(0.8, 1))
        asyncio.run(one.run())
    user = device.users["a"]
    assert user.share.value == pytest.approx(0.25)
    assert user.busy_s == pytest.approx(0.2 + 2 * 0.8 * 0.25)  # at the last ratio
    assert events.kinds == ["device_time_unread"]
