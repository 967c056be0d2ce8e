"""Simulated servers, compared with closed forms of queueing theory."""

import math
import random

import pytest

from tollway.backends.pricing import Price
from tollway.simulations.world.servers import Server
from tollway.simulations.world.truth import Condition

UP = Condition(None, Price(per_request_nano=1))


def erlang_c(places: int, offered: float) -> float:
    """Return the chance that a call has to wait in an M/M/c queue (Erlang 1917)."""
    terms = [offered**k / math.factorial(k) for k in range(places)]
    last = offered**places / math.factorial(places) * places / (places - offered)
    return last / (sum(terms) + last)


def waits(places: int, load: float, mean_s: float, count: int, draw: str) -> list[float]:
    rng = random.Random(places)
    server = Server(random.Random(1), places=places, queue=10**9, condition=UP)
    now_s, found = 0.0, []
    for _ in range(count):
        now_s += rng.expovariate(load * places / mean_s)
        service_s = rng.expovariate(1 / mean_s) if draw == "M" else mean_s
        done_s = server.admit(now_s, service_s)
        assert done_s is not None
        found.append(done_s - service_s - now_s)
    return found


@pytest.mark.parametrize(("places", "load"), [(1, 0.5), (1, 0.8), (4, 0.7), (16, 0.8)])
def test_waits_are_those_of_an_m_m_c_queue(places: int, load: float) -> None:
    found = waits(places, load, 2.0, 200_000, "M")
    waiting = erlang_c(places, load * places)
    mean_s = waiting * 2.0 / (places * (1 - load))
    assert sum(found) / len(found) == pytest.approx(mean_s, rel=0.06)
    assert sum(wait > 1e-9 for wait in found) / len(found) == pytest.approx(waiting, rel=0.04)


def test_waits_are_those_of_an_m_d_1_queue() -> None:
    found = waits(1, 0.7, 2.0, 200_000, "D")
    # Pollaczek and Khinchine: half of what exponential service makes of it.
    assert sum(found) / len(found) == pytest.approx(0.7 * 2.0 / (2 * (1 - 0.7)), rel=0.05)


def test_calls_are_served_in_the_order_they_came() -> None:
    server = Server(random.Random(1), places=2, queue=10, condition=UP)
    assert [server.admit(0.0, service_s) for service_s in (4.0, 1.0, 1.0, 1.0)] == [4, 1, 2, 3]
    assert server.admit(3.5, 1.0) == 4.5


def test_a_full_queue_turns_calls_away() -> None:
    server = Server(random.Random(1), places=1, queue=2, condition=UP)
    assert [server.admit(0.0, 1.0) for _ in range(4)] == [1.0, 2.0, 3.0, None]
    assert server.admit(1.5, 1.0) == 4.0
    assert server.load.turned_away == 1
