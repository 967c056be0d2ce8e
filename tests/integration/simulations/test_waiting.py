"""Queueing theory against the queues that scenarios run, and against what is known exactly."""

import math
from random import Random

import numpy as np
import pytest

from tollway.backends.pricing import Price
from tollway.gateway.scaling.queueing import waiting_chance
from tollway.simulations.capacity.waiting import Service, carried, late, mean_wait_s
from tollway.simulations.world.servers import Server
from tollway.simulations.world.truth import Condition

pytestmark = pytest.mark.integration

CALLS = 500_000
WARM = 5_000  # calls that find the queue emptier than it will be


def served(scv: float) -> Service:
    """A service of mean 0.1 s: constant, Erlang, exponential or hyperexponential."""
    rng = np.random.default_rng(1)
    if scv == 0.0:
        return Service.of(np.full(400, 0.1))
    if scv <= 1.0:
        return Service.of(rng.gamma(1.0 / scv, 0.1 * scv, 20_000))
    sigma = math.sqrt(math.log(1.0 + scv))
    return Service.of(np.exp(rng.normal(math.log(0.1) - sigma**2 / 2, sigma, 20_000)))


def simulated(rate: float, service: Service, places: int) -> tuple[float, np.ndarray]:
    """Run the simulation's own server; return the mean wait and every call's time in all."""
    rng = np.random.default_rng(2)
    times = rng.choice(service.times_s, CALLS).tolist()
    arrivals = np.cumsum(rng.exponential(1.0 / rate, CALLS)).tolist()
    server = Server(Random(0), places=places, queue=10**9, condition=Condition(None, Price()))
    done = [server.admit(at, took) for at, took in zip(arrivals, times, strict=True)]
    spent = np.array(done, float)[WARM:] - np.array(arrivals)[WARM:]
    return float((spent - np.array(times)[WARM:]).mean()), spent


@pytest.mark.parametrize(
    ("places", "scv", "busy"),
    [(1, 0.0, 0.8), (1, 2.0, 0.7), (4, 0.25, 0.85), (4, 1.0, 0.8), (16, 0.0, 0.9), (16, 2.0, 0.95)],
)
def test_the_mean_wait_and_the_share_of_late_calls_are_those_of_the_simulated_queue(
    places: int, scv: float, busy: float
) -> None:
    service = served(scv)
    rate = busy * places / service.mean_s
    wait_s, spent = simulated(rate, service, places)
    assert mean_wait_s(rate, service, places) == pytest.approx(wait_s, rel=0.07)
    within_s = float(np.quantile(spent, 0.95))
    assert late(rate, service, places, within_s) == pytest.approx(0.05, abs=0.013)


def test_with_many_places_and_uneven_service_it_errs_on_the_safe_side() -> None:
    service = served(4.0)
    rate = 0.8 * 16 / service.mean_s
    wait_s, _ = simulated(rate, service, 16)
    assert wait_s < mean_wait_s(rate, service, 16) < 1.6 * wait_s


def test_a_single_place_waits_as_pollaczek_and_khinchine_say() -> None:
    service = served(2.0)
    rate = 0.7 / service.mean_s
    exact = rate * float((service.times_s**2).mean()) / (2 * (1 - 0.7))
    assert mean_wait_s(rate, service, 1) == pytest.approx(exact)


def test_erlangs_table_is_met() -> None:
    # Offered 8 erlang to 10 places: C = 0.4092 (tables of Erlang's C).
    assert waiting_chance(8.0, 10) == pytest.approx(0.4092, abs=1e-4)
    assert waiting_chance(0.0, 3) == 0.0
    assert waiting_chance(900.0, 1000) < 1e-2  # and does not overflow


def test_the_highest_rate_that_keeps_the_target_is_found() -> None:
    service = served(1.0)
    rate = carried(service, 4, 0.5, 0.95)
    assert late(rate, service, 4, 0.5) == pytest.approx(0.05, abs=1e-6)
    assert carried(service, 8, 0.5, 0.95) > 2 * rate  # places that are shared carry more
    assert carried(service, 4, 0.5, 0.95, arrivals_scv=4.0) < rate


def test_no_number_of_places_makes_a_slow_service_fast() -> None:
    service = served(1.0)
    assert carried(service, 10_000, service.quantile(0.9), 0.95) == 0.0


def test_more_than_can_be_served_waits_for_ever() -> None:
    assert mean_wait_s(100.0, served(0.0), 4) == math.inf
    assert late(100.0, served(0.0), 4, 1.0) == 1.0
