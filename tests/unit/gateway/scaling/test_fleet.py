"""The load of several gateways adds up, and their coming and going is no load."""

from tollway.gateway.scaling.fleet import FleetTotals, document
from tollway.gateway.scaling.load_meter import Totals

HERE = {"gpu": Totals(10, 5.0, waiting=1)}


def told(calls: float, at_s: float = 100.0, waiting: float = 0.0) -> object:
    return document({"gpu": Totals(calls, calls / 2, waiting=waiting)}, at_s)


def test_a_gateway_that_appears_brings_no_calls_but_those_it_counts_from_then_on() -> None:
    fleet = FleetTotals()
    fleet.take({"a": told(1000)}, 100.0)
    assert fleet.with_own(HERE)["gpu"].calls == 10
    fleet.take({"a": told(1030, waiting=2), "b": told(7)}, 105.0)
    assert fleet.with_own(HERE) == {"gpu": Totals(40, 20.0, waiting=3)}


def test_what_a_gateway_counted_stays_when_it_is_gone_or_starts_again() -> None:
    fleet = FleetTotals()
    fleet.take({"a": told(1000)}, 100.0)
    fleet.take({"a": told(1030)}, 105.0)
    fleet.take({}, 110.0)
    assert fleet.with_own(HERE)["gpu"].calls == 40
    fleet.take({"a": told(1030)}, 115.0)
    fleet.take({"a": told(3)}, 120.0)
    assert fleet.with_own(HERE)["gpu"].calls == 40


def test_documents_of_another_version_are_read_as_far_as_they_are_known() -> None:
    fleet = FleetTotals()
    longer = {"time": 100.0, "totals": {"gpu": [5, 5, 0, 0, 2, 0, 99, 99]}}
    bad = [7, None, {}, {"time": "x", "totals": {}}, {"time": 1, "totals": {"gpu": "abc"}}]
    fleet.take({"new": longer, **{str(n): one for n, one in enumerate(bad)}}, 100.0)
    assert fleet.with_own({})["gpu"].waiting == 2 and [*fleet.known] == ["new"]


def test_calls_that_wait_at_a_gateway_that_died_do_not_wait_for_ever() -> None:
    fleet = FleetTotals()
    fleet.take({"a": told(0, at_s=0.0, waiting=9)}, 61.0)
    assert fleet.with_own({}).get("gpu", Totals()).waiting == 0
