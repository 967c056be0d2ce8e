"""Tenants that wait are served in proportion to what they have used."""

import random

import pytest

from tollway.backends.concurrency.fair_line import FairLine


def test_one_tenants_thousand_items_delay_another_tenants_by_one() -> None:
    line: FairLine[int] = FairLine()
    for n in range(1000):
        line.push("greedy", n)
    first = line.pop()
    line.charge("greedy", 1.0)
    line.push("modest", -1)
    assert line.ahead("modest") == 2
    served = [first, line.pop(), line.pop()]
    assert ("modest", -1) in served


def test_service_is_equal_whatever_each_item_takes() -> None:
    rng = random.Random(1)
    line: FairLine[float] = FairLine()
    used = {"long": 0.0, "short": 0.0, "mixed": 0.0}
    takes = {"long": (5.0, 9.0), "short": (0.1, 0.3), "mixed": (0.1, 9.0)}
    for tenant in used:
        line.push(tenant, rng.uniform(*takes[tenant]))
    for _ in range(5000):
        tenant, service = line.pop()
        line.push(tenant, rng.uniform(*takes[tenant]))
        line.charge(tenant, service)
        used[tenant] += service
    assert max(used.values()) - min(used.values()) <= 2 * 9.0


def test_items_of_one_tenant_keep_their_order_and_first_goes_before() -> None:
    line: FairLine[str] = FairLine()
    for item in "abc":
        line.push("one", item)
    line.push("one", "z", first=True)
    assert [line.pop()[1] for _ in range(4)] == list("zabc")
    with pytest.raises(KeyError):
        line.pop()


def test_what_a_tenant_used_alone_is_not_held_against_it() -> None:
    line: FairLine[str] = FairLine()
    for _ in range(100):
        line.push("early", "x")
        line.pop()
        line.charge("early", 1.0)
    line.push("early", "mine")
    line.push("late", "yours")
    assert line.pop() == ("early", "mine")


def test_a_returning_tenant_has_no_credit_for_its_absence() -> None:
    line: FairLine[int] = FairLine()
    for n in range(50):
        line.push("busy", n)
    for _ in range(20):
        line.pop()
        line.charge("busy", 1.0)
    for n in range(10):
        line.push("back", n)
    order = []
    while line.count:
        tenant, _ = line.pop()
        line.charge(tenant, 1.0)
        order.append(tenant)
    assert order[:12].count("back") <= 7


def test_discarded_items_are_gone_and_the_count_is_right() -> None:
    line: FairLine[str] = FairLine()
    line.push("a", "x")
    line.push("b", "y")
    line.discard("a", "x")
    line.discard("a", "x")
    line.discard("c", "x")
    assert (line.count, line.items(), line.ahead("a")) == (1, ["y"], 0)
