"""Anomalies are detected, explained and ended; chance, seasons and small amounts are none."""

import copy
import itertools

import pytest

from tollway.gateway.anomalies.attribution import Contribution, decompose
from tollway.gateway.anomalies.detector import CALM, TICK_S, AnomalyDetector, Key, Total
from tollway.gateway.anomalies.monitor import duration, narrowest

MIX = {"cheap": (8, 1.0, 0.001), "dear": (2, 10.0, 0.002)}
"""Requests a tick, usage of one, dollars per unit."""


class World:
    """Steady traffic of two tenants on one route, which tests can change."""

    def __init__(self, anomalies: AnomalyDetector) -> None:
        self.anomalies = anomalies
        self.now_s = 0.0
        self.totals: dict[Key, Total] = {}

    def run(self, ticks: int, *, volume: float = 1, dear: float = 1, **changed: float) -> list[str]:
        """Continue; `dear`: factor of its requests; `usage`, `price`, `globex`: factors."""
        told = []
        for _ in range(ticks):
            self.now_s += TICK_S
            for tenant, (name, (count, usage, usd)) in itertools.product(
                ("acme", "globex"), MIX.items()
            ):
                requests = count * volume * (dear if name == "dear" else 1)
                requests *= changed.get(tenant, 1)
                used = requests * usage * changed.get("usage", 1)
                key = ("chat", name, tenant)
                before = self.totals.get(key, Total(0, 0, 0))
                self.totals[key] = Total(
                    before.requests + requests,
                    before.usage + used,
                    before.usd + used * usd * changed.get("price", 1),
                )
            begun, over = self.anomalies.observe(self.totals, self.now_s)
            told += [f"{anomaly.about}: {anomaly.factors.cause}" for anomaly in begun]
            told += [f"{name} over" for name in over]
        return told


@pytest.fixture(scope="module")
def used_to() -> World:
    """Two days as usual."""
    world = World(AnomalyDetector())
    assert world.run(2 * 8640) == []
    return world


@pytest.fixture
def world(used_to: World) -> World:
    return copy.deepcopy(used_to)


def test_a_spike_is_noticed_within_a_minute_and_ends(world: World) -> None:
    told = world.run(6, volume=10)

    assert "the gateway: volume" in told
    assert "route chat: volume" in told
    assert len(world.anomalies.active) == len(told)
    over = world.run(CALM + 100)
    assert "route chat over" in over
    assert not world.anomalies.active


def test_the_tenant_behind_it_is_named(world: World) -> None:
    world.run(12, globex=20)

    main = narrowest(world.anomalies.active)
    assert main.about == "tenant globex"
    assert main.who[0][0] == "chat"
    route = next(a for a in world.anomalies.active if a.kind == "route")
    assert route.who[0][0] == "globex"
    assert route.who[0][1] == pytest.approx(1.0, abs=0.05)
    assert "globex" in str(route)


@pytest.mark.parametrize(
    ("changed", "cause"),
    [({"dear": 6.0}, "mix"), ({"usage": 5.0}, "usage"), ({"price": 5.0}, "price")],
)
def test_the_cause_is_named(world: World, changed: dict[str, float], cause: str) -> None:
    told = world.run(60, **changed)

    assert f"route chat: {cause}" in told


def test_small_amounts_raise_no_alert() -> None:
    world = World(AnomalyDetector(min_usd_per_h=1000.0))
    world.run(8640)
    assert world.run(60, volume=10) == []


def test_without_a_baseline_there_is_no_alert() -> None:
    world = World(AnomalyDetector())
    world.run(60)
    assert world.run(60, volume=10) == []


def test_a_gap_or_a_clock_change_is_no_spike(world: World) -> None:
    world.now_s += 7200
    assert world.run(3) == []
    world.now_s -= 7200
    assert world.run(3) == []


def test_baselines_survive_a_restart_and_damage_is_refused(world: World) -> None:
    loaded = AnomalyDetector()
    loaded.load(world.anomalies.save())
    world.anomalies = loaded
    world.totals = {}
    world.run(60)

    assert "route chat: volume" in world.run(12, volume=10)
    with pytest.raises(ValueError, match="damaged"):
        loaded.load(b'[{"about": ["tenant", "acme"]}]')


def test_the_factors_multiply_to_the_whole() -> None:
    was = {"a": Contribution(10, 20, 2.0), "b": Contribution(10, 50, 10.0)}
    now = {
        "a": Contribution(5, 20, 4.0),
        "b": Contribution(35, 100, 30.0),
        "c": Contribution(10, 10, 7.0),
    }

    factors = decompose(was, now)

    product = factors.volume * factors.mix * factors.usage * factors.price
    assert product == pytest.approx(41.0 / 12.0)


def test_counts_that_a_dead_worker_lost_are_no_spend(world: World) -> None:
    for key, total in world.totals.items():
        world.totals[key] = Total(total.requests - 5, total.usage - 9, total.usd - 0.01)

    assert world.run(10) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(30, "30 seconds"), (600, "10 minutes"), (7 * 3600, "7 hours"), (4 * 86_400, "4 days")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
