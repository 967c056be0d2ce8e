"""Devices: what a second of a call costs, learned from a load that changes."""

import pytest

from tollway.backends.devices.device import UNREAD, Device, Terms
from tollway.backends.devices.exposition import parse_selector
from tollway.backends.devices.idle import IdleRule, busy_second_nano
from tollway.backends.devices.load import Load
from tollway.backends.devices.price_reading import hourly_nano, price_reader

HOUR_NANO = 3_600_000_000  # $3.60, so that a second costs a million nano-dollars


def device(*names: str, idle: IdleRule = "by-use", **terms: float) -> Device:
    made = Device("gpu", Terms(idle=idle, **terms), names, 0.0)  # type: ignore[arg-type]
    made.priced(HOUR_NANO, 0.0)
    return made


@pytest.mark.parametrize(
    ("rule", "each_nano"),
    [
        ("by-use", {"a": 2_500_000, "b": 2_500_000}),
        ("even", {"a": 2_000_000, "b": 4_000_000}),
        ("none", {"a": 1_000_000, "b": 1_000_000}),
    ],
)
def test_the_rules_of_the_worked_example(rule: IdleRule, each_nano: dict[str, int]) -> None:
    # docs/prices.md: a works .3 of the time, b .1; the device costs a million a second.
    loads = {"a": 0.3, "b": 0.1}
    priced = busy_second_nano(rule, 1e6, loads, slots=1.0, least=0.05)
    assert priced == pytest.approx(each_nano)


@pytest.mark.parametrize("loads", [{"a": 0.3, "b": 0.1}, {"a": 0.9, "b": 0.05}, {"a": 2, "b": 3}])
@pytest.mark.parametrize("rule", ["by-use", "even"])
@pytest.mark.parametrize("slots", [1.0, 4.0])
def test_charges_add_up_to_the_price_of_the_device(
    rule: IdleRule, loads: dict[str, float], slots: float
) -> None:
    priced = busy_second_nano(rule, 1e6, loads, slots=slots, least=0.01)
    assert sum(loads[name] * priced[name] for name in loads) == pytest.approx(1e6)


def test_nobody_pays_for_idle_time_under_none_but_a_full_device_is_paid() -> None:
    full = busy_second_nano("none", 1e6, {"a": 2.0, "b": 2.0}, slots=2.0, least=0.05)
    assert 4.0 * full["a"] == pytest.approx(1e6)


@pytest.mark.parametrize("rule", ["by-use", "even"])
def test_a_load_below_the_least_does_not_raise_the_price_without_end(rule: IdleRule) -> None:
    priced = busy_second_nano(rule, 1e6, {"a": 0.0, "b": 0.0}, slots=1.0, least=0.05)
    assert all(1e6 < nano <= 21e6 for nano in priced.values())


def test_a_load_follows_a_change_by_half_in_a_half_life() -> None:
    load = Load(0.5, half_life_s=100.0)
    for _ in range(2000):
        load.observe(0.2, 1.0)
    assert load.value == pytest.approx(0.2, rel=0.01)
    for _ in range(100):
        load.observe(0.8, 1.0)
    assert load.value == pytest.approx(0.5, rel=0.02)


def serve(one: Device, rates: dict[str, float], seconds: int, state: dict[str, float]) -> float:
    """Run a device for some seconds; return what its calls were charged, in nano-dollars."""
    nano, begun_s = 0.0, state.get("now", 0.0)
    for second in range(1, seconds + 1):
        for name, price in one.prices(begun_s + second).items():
            nano += rates[name] * price.per_device_s_nano
            state[name] = state.get(name, 0.0) + rates[name]
        one.tick(begun_s + second, state)
    state["now"] = begun_s + seconds
    return nano


@pytest.mark.parametrize("rule", ["by-use", "even"])
def test_the_charges_of_a_steady_load_are_the_bill(rule: IdleRule) -> None:
    one, state = device("a", "b", idle=rule, half_life_s=60.0), dict[str, float]()
    serve(one, {"a": 0.3, "b": 0.1}, 600, state)  # learned
    before = one.bill_nano
    nano = serve(one, {"a": 0.3, "b": 0.1}, 600, state)
    assert one.bill_nano - before == 600 * HOUR_NANO // 3600
    assert nano == pytest.approx(one.bill_nano - before, rel=0.01)
    assert one.utilization == pytest.approx(0.4, rel=0.01)
    assert one.idle_share("a") == pytest.approx(0.6 if rule == "by-use" else 0.5, rel=0.02)


def test_a_rush_that_is_not_learned_yet_is_not_charged_many_times_the_bill() -> None:
    # One call at a time is served in .1 s. A hundred come at once: the last waits for 10 s.
    one, charged_s, nano = device("a", half_life_s=600.0), 0.0, 0.0
    for second in range(3600):
        charged_s += 0.1
        one.tick(float(second), {"a": charged_s})
    assert one.loads["a"] == pytest.approx(0.1, rel=0.05)
    calm = one.prices(3600.0)["a"].per_device_s_nano
    # They keep coming as fast as they are served, so each is quoted while a hundred are waiting.
    for second in range(3600, 3720):
        one.tick(float(second), {"a": charged_s}, {"a": 100.0})
        if second >= 3610:  # ten calls a second end, of 10 s each, quoted when they began
            charged_s += 10 * 10.0
            nano += 10 * 10.0 * one.prices(float(second))["a"].per_device_s_nano
    assert nano == pytest.approx(110 * 1e6, rel=0.1)
    assert calm == pytest.approx(1e7, rel=0.05)


def test_calls_that_meet_by_chance_are_no_rush() -> None:
    one = device("a")
    for second in range(600):
        one.tick(float(second), {"a": 0.3 * second}, {"a": 3.0 if second % 10 == 0 else 0.0})
        assert one.priced_loads == one.loads


def test_what_was_charged_before_a_backend_came_is_no_load() -> None:
    """As after a worker was replaced, or when a backend moves from another device."""
    one = device("a")
    for second in range(60):
        one.tick(float(second), {"a": 18_000.0 + 0.5 * second})
    assert one.users["a"].busy_s == pytest.approx(59 * 0.5)
    assert one.loads["a"] == pytest.approx(0.5, rel=0.05)


def test_a_bill_is_exact_whatever_the_steps() -> None:
    one = device("a")
    one.priced(2_500_000_001, 0.0)
    one.tick(0.0, {})
    for step in range(1, 36_001):
        one.tick(step * 0.1, {})
    assert one.bill_nano == 2_500_000_001


def test_a_server_that_counts_its_time_corrects_the_price_of_a_charged_second() -> None:
    # Calls last a second each and are charged it; the device works .25 s for each.
    one, charged_s, counter_s = device("a", "b", idle="none", half_life_s=60.0), 0.0, 1000.0
    for second in range(600):
        charged_s += 0.8
        counter_s += 0.2
        one.tick(float(second), {"a": charged_s})
        if second % 10 == 9:
            one.measured("a", counter_s, charged_s, float(second))
    assert one.users["a"].share.value == pytest.approx(0.25, rel=0.02)
    assert one.loads["a"] == pytest.approx(0.2, rel=0.02)
    assert one.prices(600.0)["a"].per_device_s_nano == pytest.approx(250_000, rel=0.02)
    first_s = 9 * 0.8  # until the counter was read, the charged seconds stood for it
    assert one.users["a"].busy_s == pytest.approx(590 * 0.2 + first_s)


def test_a_counter_that_starts_again_counts_from_nothing() -> None:
    one = device("a")
    for at, counter_s in enumerate((500.0, 501.0, 0.5)):
        one.measured("a", counter_s, float(at), 10.0 * at)
    assert one.users["a"].busy_s == pytest.approx(1.5)


def test_the_work_of_other_clients_is_not_charged_to_our_calls() -> None:
    one = device("a", idle="none", half_life_s=60.0)
    for second in range(1, 600):
        one.measured("a", 0.9 * second, 0.3 * second, float(second))
    assert one.users["a"].share.value == 1.0
    assert one.utilization == pytest.approx(0.9, rel=0.02)


def test_a_price_is_unknown_when_it_could_not_be_read_for_too_long() -> None:
    one = Device("gpu", Terms(stale_after_s=100.0), ["a"], 0.0)
    assert one.is_stale(0.0)
    assert one.prices(0.0)["a"] is UNREAD
    one.priced(HOUR_NANO, 10.0)
    one.failure = "was answered with status 500"
    assert not one.is_stale(110.0)
    assert one.is_stale(111.0)
    last = one.prices(111.0)["a"]
    assert last.is_stale
    assert last.per_device_s_nano == one.prices(110.0)["a"].per_device_s_nano
    one.priced(HOUR_NANO, 112.0)
    assert not one.prices(112.0)["a"].is_stale


def test_what_was_learned_goes_on_at_a_new_price_source_and_after_a_restart() -> None:
    one, state = device("a", "b", half_life_s=60.0), dict[str, float]()
    serve(one, {"a": 0.3, "b": 0.1}, 300, state)
    again = device("a", "b", half_life_s=60.0)
    again.load(one.save())
    assert again.loads == pytest.approx(one.loads)
    new = device("a", "c")
    new.succeed(one, 300.0)
    assert new.users.keys() == {"a", "c"}
    assert new.loads["a"] == one.loads["a"]
    assert new.bill_nano == one.bill_nano


@pytest.mark.parametrize("state", [{"a": [[1.0], [1.0, 1.0]]}, {"a": [[-1.0, 1.0], [0.0, 0.0]]}])
def test_a_damaged_state_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        device("a").load(state)


@pytest.mark.parametrize(
    ("path", "selector", "body", "nano"),
    [
        (None, None, b" 2.5\n", 2_500_000_000),
        ("offers[0].usd", None, b'{"offers": [{"usd": 0.3712}]}', 371_200_000),
        ("usd", None, b'{"usd": "1.10"}', 1_100_000_000),
        (None, 'c{i="1"}', b'c{i="1"} 1.006\nc{i="2"} 9\n', 1_006_000_000),
    ],
)
def test_a_price_is_read_exactly(
    path: str | None, selector: str | None, body: bytes, nano: int
) -> None:
    read = price_reader(path, None if selector is None else parse_selector(selector))
    assert read(body) == nano


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (None, b""),
        (None, b"-1"),
        (None, b"0"),
        (None, b"nan"),
        (None, b"1e30"),
        (None, b"1e-12"),
        (None, b"<html>"),
        ("usd", b'{"eur": 1}'),
        ("usd", b'{"usd": true}'),
        ("usd", b'{"usd": [1]}'),
        ("usd", b"{"),
    ],
)
def test_what_is_no_price_is_an_error(path: str | None, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        price_reader(path, None)(body)


def test_a_price_of_too_many_decimals_is_rounded_to_nano_dollars() -> None:
    assert hourly_nano(0.1 + 0.2) == 300_000_000
