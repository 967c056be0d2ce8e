"""The limiter finds a server's capacity, in a simulated queue."""

import heapq
from collections import deque
from dataclasses import dataclass, field
from random import Random

import pytest

from tollway.backends.concurrency.limiter import AdaptiveLimit


@dataclass
class Server:
    """A server of `places`, in virtual time, and a queue of at most 20 before its limiter."""

    limiter: AdaptiveLimit
    places: int
    service_s: float
    now_s: float = 0.0
    rng: Random = field(default_factory=lambda: Random(7))
    under_way: list[tuple[float, int, float]] = field(default_factory=list)
    answered: int = 0
    latencies: list[float] = field(default_factory=list)

    def run(self, arrivals_per_s: float, seconds: float) -> float:
        """Have requests arrive at random; return the share of the capacity that was used."""
        end_s, arrives_s, waiting = self.now_s + seconds, self.now_s, deque[float]()
        free = [self.now_s] * self.places
        self.answered, self.latencies = 0, []
        while self.now_s < end_s:
            if self.under_way and self.under_way[0][0] <= arrives_s:
                self._answer()
            else:
                self.now_s, arrives_s = arrives_s, arrives_s + self.rng.expovariate(arrivals_per_s)
                if len(waiting) < 20:
                    waiting.append(self.now_s)
            while waiting and len(self.under_way) < self.limiter.limit:
                waiting.popleft()
                began_s = max(self.now_s, heapq.heappop(free))
                took_s = self.service_s * self.rng.uniform(0.9, 1.1)
                heapq.heappush(free, began_s + took_s)
                call = (began_s + took_s, self.rng.getrandbits(30), self.now_s)
                heapq.heappush(self.under_way, call)
        return self.answered / seconds / (self.places / self.service_s)

    def _answer(self) -> None:
        busy = len(self.under_way)
        self.now_s, _, sent_s = heapq.heappop(self.under_way)
        self.limiter.observe(self.now_s, self.now_s - sent_s, busy)
        self.answered += 1
        self.latencies.append(self.now_s - sent_s)

    @property
    def worst(self) -> float:
        """The 99th percentile of the latencies, in services."""
        return sorted(self.latencies)[len(self.latencies) * 99 // 100] / self.service_s


@pytest.mark.parametrize("places,service_s", [(1, 0.05), (2, 0.2), (8, 0.02), (16, 0.01)])
def test_under_twice_its_load_a_server_does_all_it_can_and_no_call_waits_long_in_it(
    places: int, service_s: float
) -> None:
    server = Server(AdaptiveLimit(64, tolerance=2.0), places, service_s)
    server.run(2.0 * places / service_s, 20.0)
    assert server.run(2.0 * places / service_s, 60.0) > 0.9
    assert 2 * places <= server.limiter.limit <= 3 * places + 4
    assert server.worst < 6.0  # unlimited it would be 64 / places


def test_below_its_load_nothing_is_limited() -> None:
    server = Server(AdaptiveLimit(64), 8, 0.02)
    assert server.run(0.5 * 8 / 0.02, 30.0) == pytest.approx(0.5, rel=0.05)
    assert server.limiter.limit == 64


def test_turns_of_our_own_loop_are_not_taken_for_a_queue() -> None:
    limiter = AdaptiveLimit(64)
    for number in range(8000):  # a backend of 0.2 ms, behind a loop that is busy
        limiter.observe(number * 0.0003, 0.0002 if number < 4000 else 0.02, 64)
    assert limiter.usual == 64


def test_bursts_do_not_narrow_a_server_below_its_places() -> None:
    limiter = AdaptiveLimit(64)
    server = Server(limiter, 8, 0.02)
    for second in range(40):
        server.now_s = float(second)
        server.run(3000.0, 0.03)  # a quarter of what it can do in a second, at once
        server.run(1.0, 0.6)
        assert limiter.usual >= 16


def test_a_server_that_loses_half_its_places_gets_half_the_calls_and_gets_them_back() -> None:
    limiter = AdaptiveLimit(64, tolerance=2.0)
    whole = Server(limiter, 16, 0.02)
    whole.run(1600.0, 30.0)
    before = limiter.limit
    half = Server(limiter, 8, 0.02, now_s=whole.now_s)
    half.run(1600.0, 30.0)
    assert limiter.limit < 0.75 * before
    again = Server(limiter, 16, 0.02, now_s=half.now_s)
    again.run(1600.0, 30.0)
    assert again.run(1600.0, 30.0) > 0.9


def test_a_server_that_has_become_slower_for_good_is_found_out() -> None:
    limiter = AdaptiveLimit(64, tolerance=2.0)
    quick = Server(limiter, 8, 0.01)
    quick.run(1600.0, 30.0)
    slow = Server(limiter, 8, 0.05, now_s=quick.now_s)
    slow.run(320.0, 60.0)
    assert limiter.base_s == pytest.approx(0.05, rel=0.2)
    assert slow.run(320.0, 30.0) > 0.9


def test_an_abandoned_probe_does_not_limit_later_calls() -> None:
    limiter, now_s = AdaptiveLimit(100), 0.0
    while limiter.limit == limiter.usual:  # in full use, until a probe begins
        now_s += 0.02
        limiter.observe(now_s, 0.05, busy=100)
    usual = limiter.usual
    limiter.press(now_s + 0.5)
    assert limiter.limit < usual
    limiter.press(now_s + 10.0)
    assert limiter.limit == limiter.usual == usual


def test_a_failure_under_light_load_does_not_make_it_probe() -> None:
    limiter = AdaptiveLimit(100)
    for number in range(1_000):
        if number % 50 == 0:
            limiter.refused(number * 0.02)
        limiter.observe(number * 0.02, 0.02, busy=4)
        assert limiter.limit >= 6


def test_refusals_lower_the_limit_and_it_never_leaves_its_bounds() -> None:
    limiter = AdaptiveLimit(64, least=2)
    for _ in range(100):
        limiter.refused(0.0)
    assert limiter.limit == 2
    for number in range(5000):
        limiter.observe(number * 0.01, 0.01, limiter.limit)
    assert limiter.limit == 64


def test_a_tolerance_that_no_call_can_meet_is_an_error() -> None:
    with pytest.raises(ValueError, match="below 1"):
        AdaptiveLimit(64, tolerance=0.9)
