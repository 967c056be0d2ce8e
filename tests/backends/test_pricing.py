import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.pricing import MAX_NANO, Price, parse_price
from backends.types import Usage

TOKENS = {
    "input_usd_per_mtok": 0.15,
    "cached_input_usd_per_mtok": 0.075,
    "output_usd_per_mtok": 0.6,
}


@pytest.mark.parametrize(
    ("usd", "nano"),
    [
        (0.00001, 10_000),
        (0.0001, 100_000),
        (0.001, 1_000_000),
        (0.3, 300_000_000),
        (1, 10**9),
        ("0.00001", 10_000),
        (Decimal("0.000000001"), 1),
    ],
)
def test_a_price_is_the_decimal_that_was_written(usd: object, nano: int) -> None:
    price = parse_price({"per_request_usd": usd})

    assert price.cost_nano(Usage()) == nano
    assert isinstance(price.per_request_nano, int)


def test_a_fraction_of_a_nano_dollar_is_charged_as_one() -> None:
    assert parse_price({"per_request_usd": "0.0000000001"}).cost_nano(Usage()) == 1


def test_busy_seconds_of_a_device_pay_for_its_idle_ones() -> None:
    price = parse_price({"device_usd_per_hour": 3.6, "concurrency": 4, "utilization": 0.5})

    # 3.6 dollars an hour are 10^6 nano-dollars a second; a quarter of it, sold half of the time.
    assert price.cost_nano(Usage(device_s=1.0)) == 500_000
    assert price.cost_nano(Usage(device_s=0.0)) == 0


def test_cached_input_is_charged_once_at_its_own_price() -> None:
    price = parse_price(TOKENS)

    usage = Usage(input_tokens=1000, cached_input_tokens=400, output_tokens=10)

    assert price.cost_nano(usage) == 600 * 150 + 400 * 75 + 10 * 600


def test_cached_input_without_its_own_price_costs_as_much_as_input() -> None:
    price = parse_price({"input_usd_per_mtok": 2, "output_usd_per_mtok": 0})

    assert price.cost_nano(Usage(input_tokens=10, cached_input_tokens=10)) == 20_000


def test_the_parts_of_a_price_add_up() -> None:
    price = parse_price({"per_request_usd": 0.001, "device_usd_per_hour": 3.6, **TOKENS})

    assert price.cost_nano(Usage(device_s=0.002, output_tokens=1)) == 1_000_000 + 2_000 + 600


def test_binary_fractions_do_not_add_a_nano_dollar() -> None:
    price = parse_price({"input_usd_per_mtok": "0.0001", "output_usd_per_mtok": 0})

    # 0.1 nano-dollars a token: 3 tokens are 0.30000000000000004, 30 are 3 and not 4.
    assert [price.cost_nano(Usage(input_tokens=n)) for n in (3, 30, 300, 301)] == [1, 3, 30, 31]


# A double tells tenths of a nano-dollar apart below $100,000 a call.
@given(st.decimals("0.0001", "100", places=4), st.integers(0, 10**8))
def test_the_cost_of_tokens_is_their_exact_cost_rounded_up(usd: Decimal, tokens: int) -> None:
    price = parse_price({"input_usd_per_mtok": usd, "output_usd_per_mtok": 1})

    assert price.cost_nano(Usage(input_tokens=tokens)) == math.ceil(usd * 1000 * tokens)


LONG = {
    "above_input_tokens": 1000,
    "input_usd_per_mtok": 0.3,
    "cached_input_usd_per_mtok": 0.15,
    "output_usd_per_mtok": 0.9,
}


def test_a_call_with_a_longer_input_is_charged_at_its_tier_as_a_whole() -> None:
    huge = {**LONG, "above_input_tokens": 5000, "input_usd_per_mtok": 0.6}
    price = parse_price({"per_request_usd": 0.001, **TOKENS, "tiers": [LONG, huge]})

    def cost(given: int, cached: int = 0) -> int:
        usage = Usage(input_tokens=given, cached_input_tokens=cached, output_tokens=10)
        return price.cost_nano(usage) - 1_000_000

    assert cost(1000) == 1000 * 150 + 10 * 600
    assert cost(1001, 1) == 1000 * 300 + 150 + 10 * 900
    assert cost(5000) == 5000 * 300 + 10 * 900
    assert cost(5001) == 5001 * 600 + 10 * 900
    with pytest.raises(ValueError, match="not a usage"):
        price.cost_nano(Usage(input_tokens=2000, cached_input_tokens=3000))


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_a_longer_input_never_costs_less(one: int, other: int) -> None:
    price = parse_price({**TOKENS, "tiers": [LONG]})
    shorter, longer = sorted((one, other))

    def cost(given: int) -> int:
        return price.cost_nano(Usage(input_tokens=given))

    assert cost(shorter) <= cost(longer)


def test_a_price_is_fixed_only_where_it_depends_on_nothing_but_the_call() -> None:
    assert parse_price({"per_request_usd": 1}).is_fixed
    assert parse_price({"free": True}).is_fixed
    assert not parse_price({"per_request_usd": 1, "device_usd_per_hour": 1}).is_fixed
    assert not parse_price(TOKENS).is_fixed


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0, 1e300])
@pytest.mark.parametrize(
    "part", ["calls", "device_s", "input_tokens", "cached_input_tokens", "output_tokens"]
)
def test_a_usage_beyond_belief_is_refused(part: str, bad: float) -> None:
    price = Price(1, 1.0, 1.0, 1.0, 1.0)

    with pytest.raises(ValueError, match=r"usage|cost"):
        price.cost_nano(replace(Usage(), **{part: bad}))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_unpriced_part_of_a_usage_must_be_a_number_too(bad: float) -> None:
    with pytest.raises(ValueError, match=r"usage|cost"):
        Price(per_request_nano=100).cost_nano(Usage(device_s=bad))


def test_more_cached_input_than_input_is_refused() -> None:
    with pytest.raises(ValueError, match="not a usage"):
        parse_price(TOKENS).cost_nano(Usage(input_tokens=1, cached_input_tokens=2))


@pytest.mark.parametrize(
    ("table", "usage", "told"),
    [
        ({"per_request_usd": 1}, Usage(), True),
        ({"device_usd_per_hour": 1}, Usage(device_s=0.1), True),
        ({"device_usd_per_hour": 1}, Usage(output_tokens=5), False),
        ({"device_usd_per_hour": 1, "per_request_usd": 1}, Usage(), False),
        (TOKENS, Usage(input_tokens=5), True),
        (TOKENS, Usage(output_tokens=5), True),
        (TOKENS, Usage(device_s=5), False),
        ({**TOKENS, "input_usd_per_mtok": 0}, Usage(input_tokens=5), False),
        ({**TOKENS, "output_usd_per_mtok": 0}, Usage(output_tokens=5), False),
        ({**TOKENS, "device_usd_per_hour": 1}, Usage(input_tokens=5), False),
    ],
)
def test_a_usage_that_leaves_out_what_costs_does_not_tell_the_price(
    table: dict[str, object], usage: Usage, told: bool
) -> None:
    assert parse_price(table).is_told_by(usage) == told


def test_a_call_is_free_only_where_the_table_says_so() -> None:
    assert parse_price({"free": True}).cost_nano(Usage(device_s=5, output_tokens=9)) == 0


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, r"no price; write e\.g\."),
        ({"per_request_usd": 0}, "write `free = true`"),
        ({"per_request_usd": "1e-400"}, "write `free = true`"),
        ({"free": False}, r"price\.free = False.*leave it out"),
        ({"free": True, "per_request_usd": 1}, "keep one of the two"),
        ({"per_reqest_usd": 1}, r"price\.per_reqest_usd = 1: .*write per_request_usd"),
        ({"cents": 1}, "write cached_input_usd_per_mtok or concurrency"),
        ({"per_request_usd": -0.1}, r"price\.per_request_usd = -0\.1: .*not negative; write"),
        ({"per_request_usd": math.nan}, r"per_request_usd = nan: must be finite"),
        ({"per_request_usd": math.inf}, "must be finite"),
        ({"per_request_usd": "cheap"}, r"= 'cheap': is not a number"),
        ({"per_request_usd": True}, "is not a number"),
        ({"per_request_usd": None}, "is not a number"),
        ({"per_request_usd": 1e9}, "above 9 million"),
        ({"per_request_usd": "1e999999"}, "above 9 million"),
        ({"cached_input_usd_per_mtok": 1}, "needs input_usd_per_mtok .*add `input_usd_per_mtok"),
        ({"input_usd_per_mtok": 1}, r"add `output_usd_per_mtok = 0\.60` \(0 where"),
        ({"output_usd_per_mtok": 1}, "add `input_usd_per_mtok"),
        ({"concurrency": 2, "per_request_usd": 1}, r"needs device_usd_per_hour.*= 2\.50`$"),
        ({"utilization": 0.5}, "needs device_usd_per_hour"),
        ({"device_usd_per_hour": 1, "utilization": 0}, "above 0 and at most 1"),
        ({"device_usd_per_hour": 1, "utilization": 1.01}, "above 0 and at most 1"),
        ({"device_usd_per_hour": 1, "utilization": 60}, r"utilization = 60: .*utilization = 0\.6"),
        ({"device_usd_per_hour": 1, "concurrency": 0}, "whole number from 1"),
        ({"per_request_usd": 1, "tiers": [LONG]}, "needs input_usd_per_mtok"),
        ({**TOKENS, "tiers": LONG}, "is not a list of tables"),
        ({**TOKENS, "tiers": [TOKENS]}, r"tiers\[0\].* has no above_input_tokens"),
        ({**TOKENS, "tiers": [{**LONG, "above_input_tokens": -1}]}, "must be finite and not neg"),
        ({**TOKENS, "tiers": [{**LONG, "per_request_usd": 1}]}, r"tiers\[0\]\.per_request_usd"),
        ({**TOKENS, "tiers": [LONG, LONG]}, r"tiers\[1\].* not above the tier before it"),
        ({**TOKENS, "tiers": [{**LONG, "output_usd_per_mtok": 0.1}]}, "cheaper in a part"),
        ({"device_usd_per_hour": 1, "concurrency": 1.5}, "whole number from 1"),
    ],
)
def test_a_bad_price_is_refused_with_its_key_its_value_and_the_fix(
    table: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        parse_price(table)


def test_a_cost_stays_within_what_ledgers_count_exactly() -> None:
    price = parse_price({"per_request_usd": 9_000_000})

    assert price.cost_nano(Usage()) < MAX_NANO
    with pytest.raises(ValueError, match="above"):
        price.cost_nano(Usage(calls=2))
