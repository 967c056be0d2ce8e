"""No tenant can take all requests that a worker may have in flight."""

import pytest

from tollway.backends.concurrency.shares import SHARE
from tollway.gateway.data_plane.in_flight import InFlight
from tollway.gateway.routing.refusals import RequestRefused


def fill(limit: InFlight, tenant: str) -> int:
    """Begin requests of a tenant until one is refused; return how many were not."""
    taken = 0
    while True:
        if limit.count >= limit.most:
            return taken
        limit.count += 1
        try:
            limit.enter(tenant)
        except RequestRefused:
            limit.count -= 1
            return taken
        taken += 1


def test_a_greedy_tenant_leaves_room_for_the_next_one_and_that_for_a_third() -> None:
    shed = []
    limit = InFlight(900, lambda: shed.append(1))
    first = fill(limit, "first")
    assert first == pytest.approx(900 * SHARE / (SHARE + 1), abs=2)
    second = fill(limit, "second")
    assert second >= (900 - first) * SHARE // (SHARE + 1)
    assert fill(limit, "third") > 0
    assert len(shed) == 3


def test_a_small_limit_is_not_shared() -> None:
    limit = InFlight(3, lambda: None)
    assert fill(limit, "only") == 3


def test_what_leaves_gives_its_place_back() -> None:
    limit = InFlight(90, lambda: None)
    taken = fill(limit, "a")
    for _ in range(taken):
        limit.leave("a")
        limit.count -= 1
    assert limit.count == 0
    assert fill(limit, "a") == taken
