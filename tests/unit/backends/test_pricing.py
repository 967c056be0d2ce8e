import math
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.pricing import MAX_NANO, Price, parse_price
from tollway.backends.types import Details, Usage
from tollway.backends.units import MORE

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
def test_an_incomplete_usage_has_no_price(
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
        ({"free": False}, r"price\.free = False.*remove it"),
        ({"free": True, "per_request_usd": 1}, "keep one of the two"),
        ({"per_reqest_usd": 1}, r"price\.per_reqest_usd = 1: .*write per_request_usd"),
        ({"cents": 1}, "write .*cached_input_usd_per_mtok or .*concurrency"),
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


# -- units, service tiers, hours, commitments


def test_a_token_is_charged_once_at_the_price_of_its_kind() -> None:
    price = parse_price({**TOKENS, "cache_write_5m_usd_per_mtok": 0.2})
    more = Details((("cache_write_5m_tokens", 300.0), ("reasoning_tokens", 5.0)))

    usage = Usage(input_tokens=1000, cached_input_tokens=400, output_tokens=10, more=more)

    assert price.cost_nano(usage) == 300 * 150 + 400 * 75 + 300 * 200 + 10 * 600
    assert not price.guesses(usage)


@pytest.mark.parametrize(
    ("unit", "nano"),
    [
        ("cache_write_5m_tokens", 1.25 * 1000),
        ("cache_write_1h_tokens", 2 * 1000),
        ("reasoning_tokens", 10_000),
        ("audio_input_tokens", 16 * 1000),
        ("audio_output_tokens", 8 * 10_000),
    ],
)
def test_the_defaults_are_those_that_docs_promise(unit: str, nano: float) -> None:
    price = parse_price({"input_usd_per_mtok": 1, "output_usd_per_mtok": 10})

    assert price.rate(unit) == nano


def test_what_is_free_has_no_kind_that_costs() -> None:
    price = parse_price({"input_usd_per_mtok": 0, "output_usd_per_mtok": 10})
    usage = Usage(input_tokens=9, output_tokens=1, more=Details((("audio_input_tokens", 9.0),)))

    assert price.cost_nano(usage) == 10_000
    assert not price.guesses(usage)


TIERED = {**TOKENS, "service_tiers": {"flex": 0.5, "Priority": 2.0, "scale": dict(LONG)}}
del TIERED["service_tiers"]["scale"]["above_input_tokens"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("tier", "nano", "guessed"),
    [
        ("", 1000 * 150 + 10 * 600, False),
        ("flex", 1000 * 75 + 10 * 300, False),
        ("priority", 1000 * 300 + 10 * 1200, False),
        ("scale", 1000 * 300 + 10 * 900, False),
        ("batch", 1000 * 150 + 10 * 600, True),
        ("fast", 6 * (1000 * 150 + 10 * 600), True),
        ("platinum", 2 * (1000 * 150 + 10 * 600), True),
    ],
)
def test_a_service_tier_has_its_price_or_one_that_is_not_below_it(
    tier: str, nano: int, guessed: bool
) -> None:
    price = parse_price(TIERED)
    usage = Usage(input_tokens=1000, output_tokens=10, more=Details(service_tier=tier))

    assert price.cost_nano(usage) == nano
    assert bool(price.guesses(usage)) == guessed


HOURS = [
    {"from": "16:30", "to": "00:30", "factor": 0.5},
    {"from": "08:00", "to": "09:00", "factor": 3},
]


@pytest.mark.parametrize(
    ("at", "times"),
    [("00:29", 0.5), ("00:30", 1), ("16:29", 1), ("16:30", 0.5), ("08:59", 3), ("09:00", 1)],
)
def test_hours_are_of_utc_and_begin_and_end_to_the_minute(at: str, times: float) -> None:
    price = parse_price({**TOKENS, "hours": HOURS})
    hour, minute = map(int, at.split(":"))
    now_s = 20_000 * 86_400 + hour * 3600 + minute * 60 + 59

    assert price.at_time(now_s).cost_nano(Usage(input_tokens=1000)) == 150_000 * times


def test_an_hour_may_have_a_table_of_its_own() -> None:
    night = {"from": "16:30", "to": "00:30", "input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.4}
    price = parse_price({**TOKENS, "hours": [night]})

    assert price.at_time(17 * 3600.0).cost_nano(Usage(input_tokens=1000)) == 100_000
    assert price.most.cost_nano(Usage(input_tokens=1000)) == 150_000


def test_an_hours_price_has_its_tiers_and_service_tiers_too() -> None:
    table = {**TOKENS, "tiers": [LONG], "service_tiers": {"flex": 0.5}, "hours": HOURS}
    price = parse_price(table).at_time(20_000 * 86_400)
    more = Details(service_tier="flex")

    assert price.cost_nano(Usage(input_tokens=2000)) == 2000 * 150
    assert price.cost_nano(Usage(input_tokens=2000, more=more)) == 2000 * 75


def test_the_most_that_a_call_may_cost_counts_on_any_kind_tier_and_hour() -> None:
    table = {
        **TOKENS,
        "tiers": [LONG],
        "cache_write_1h_usd_per_mtok": 0.3,
        "service_tiers": {"flex": 0.5, "priority": 2},
        "hours": HOURS,
    }
    price = parse_price(table)
    for one in (price, price.at_time(8.5 * 3600), price.at_time(0.0)):
        most = one.most
        assert most.cost_nano(Usage(input_tokens=1000)) == 1000 * 300 * 2 * 3
        assert most.cost_nano(Usage(output_tokens=10)) == 10 * 600 * 2 * 3
        assert most.cost_nano(Usage(input_tokens=1001)) == 1001 * 600 * 2 * 3
        priority = Usage(output_tokens=10, more=Details(service_tier="priority"))
        assert most.cost_nano(priority) == 10 * 600 * 2 * 3


def test_a_price_without_conditions_is_its_own_most() -> None:
    price = parse_price({**TOKENS, "tiers": [LONG]})

    assert price.most is price


def test_a_commitment_is_spread_over_what_is_expected_to_be_used() -> None:
    requests = parse_price({"committed_usd_per_hour": 36, "committed_requests_per_hour": 1000})
    tokens = parse_price({"committed_usd_per_hour": 36, "committed_mtok_per_hour": 20})

    assert requests.cost_nano(Usage()) == 36_000_000
    assert requests.is_fixed
    assert tokens.cost_nano(Usage(input_tokens=100, cached_input_tokens=50, output_tokens=10)) == (
        110 * 1800
    )


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"reasoning_usd_per_mtok": 1}, r"needs output_usd_per_mtok beside it; add"),
        ({"audio_input_usd_per_mtok": 1}, r"needs input_usd_per_mtok beside it; add"),
        ({**TOKENS, "cache_write_usd_per_mtok": 1}, "write cache_write_5m_usd_per_mtok"),
        ({**TOKENS, "per_image_usd": -1}, r"price\.per_image_usd = -1: .*not negative"),
        ({**TOKENS, "service_tiers": [0.5]}, r"service_tiers = \[0\.5\]: is not a table"),
        ({"per_request_usd": 1, "service_tiers": {"flex": 0.5}}, "needs a price of what replies"),
        ({**TOKENS, "service_tiers": {"flex": 0}}, r"service_tiers\.flex = 0: must be above 0"),
        (
            {**TOKENS, "service_tiers": {"flex": "half"}},
            r"service_tiers\.flex = 'half': is not a n",
        ),
        ({**TOKENS, "service_tiers": {"flex": {}}}, r"service_tiers\.flex: .*no price"),
        ({**TOKENS, "service_tiers": {"f": {"free": True}}}, r"service_tiers\.f\.free = True"),
        ({**TOKENS, "service_tiers": {"f": {"imput_usd_per_mtok": 1}}}, "write input_usd_per_mtok"),
        ({**TOKENS, "hours": {"from": "1:00"}}, "is not a list of tables"),
        ({**TOKENS, "hours": [{"from": "1:00", "to": "2:00"}]}, "needs from, to, and a factor"),
        (
            {**TOKENS, "hours": [{**HOURS[0], **TOKENS}]},
            r"hours\[0\]\.factor = .*not allowed in hours",
        ),
        (
            {**TOKENS, "hours": [{**HOURS[0], "from": "24:00"}]},
            r"hours\[0\]\.from = '24:00': is no",
        ),
        ({**TOKENS, "hours": [{**HOURS[0], "to": "9h"}]}, r"hours\[0\]\.to = '9h': is not a time"),
        ({**TOKENS, "hours": [{**HOURS[0], "to": "16:30"}]}, r"hours\[0\] .* is empty"),
        ({**TOKENS, "hours": [HOURS[0], HOURS[0]]}, r"hours\[1\] .* overlaps"),
        (
            {**TOKENS, "hours": [{**HOURS[0], "factor": -1}]},
            r"hours\[0\]\.factor = -1: must be fin",
        ),
        ({**TOKENS, "hours": HOURS * 20}, "has more than 32"),
        ({"committed_usd_per_hour": 36}, "add one of `committed_requests_per_hour"),
        ({"committed_mtok_per_hour": 36}, "needs committed_usd_per_hour"),
        (
            {"committed_usd_per_hour": 1, "committed_mtok_per_hour": 0},
            "must be above 0",
        ),
        ({**TOKENS, "input_usd_per_mtok": 8e12, "service_tiers": {"f": 999}}, "above 9 million"),
        (
            {
                "per_request_usd": 8e6,
                "committed_usd_per_hour": 5e6,
                "committed_requests_per_hour": 2,
            },
            "gives a price above 9 million",
        ),
    ],
)
def test_a_bad_condition_is_refused_with_its_place_its_value_and_the_fix(
    table: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        parse_price(table)


@given(
    st.dictionaries(st.sampled_from([unit.name for unit in MORE]), st.floats(0, 1e6), max_size=4),
    st.floats(0, 1e7),
    st.floats(0, 1e7),
)
def test_a_usage_with_details_costs_no_less_than_nothing_and_no_more_than_money_counts(
    units: dict[str, float], given: float, made: float
) -> None:
    price = parse_price({**TOKENS, "per_image_usd": 0.04, "service_tiers": {"flex": 0.5}})
    usage = Usage(
        input_tokens=given, output_tokens=made, more=Details(tuple(units.items()), None, "flex")
    )
    try:
        cost = price.cost_nano(usage)
    except ValueError:
        return  # parts beyond their whole
    assert isinstance(cost, int)
    assert 0 <= cost < MAX_NANO


@given(
    calls=st.integers(0, 3),
    given=st.integers(0, 10**9),
    cached=st.floats(0, 1),
    written=st.floats(0, 1e9),
    nano=st.tuples(*[st.decimals(0, 10_000, places=4)] * 4),
    above=st.integers(0, 10**9),
)
def test_a_cost_is_its_exact_sum_rounded_up_and_an_output_may_be_put_in_its_place(
    *,
    calls: int,
    given: int,
    cached: float,
    written: float,
    nano: tuple[Decimal, ...],
    above: int,
) -> None:
    parts = [float(one) for one in nano]
    plain = Price(
        per_request_nano=parts[0],
        input_token_nano=parts[1],
        cached_input_token_nano=parts[2],
        output_token_nano=parts[3],
    )
    usage = Usage(float(calls), 0.0, float(given), float(int(cached * given)), written)
    exact = (
        calls * Fraction(parts[0])
        + (given - int(cached * given)) * Fraction(parts[1])
        + int(cached * given) * Fraction(parts[2])
        + Fraction(written) * Fraction(parts[3])
    )
    below = math.ceil(exact * (1 - Fraction(2, 10**15)))
    assert below <= plain.cost_nano(usage) <= math.ceil(exact * (1 + Fraction(1, 10**15)))
    for price in plain, replace(plain, tiers=((float(above), plain.times(Decimal(2))),)):
        for more in (None, Details(service_tier="fast"), Details((("images", 2.0),))):
            asked = replace(usage, output_tokens=5.0, more=more)
            there = replace(usage, more=more)
            assert price.foreseen_nano(asked, written) == price.foreseen_nano(there)


@given(st.floats(0, 4e14))
def test_a_fraction_is_rounded_up_unless_binary_arithmetic_made_it(nano: float) -> None:
    nearest = round(nano)
    is_made = abs(nano - nearest) <= 1e-15 * nano
    assert Price(per_request_nano=nano).call_nano == (nearest if is_made else math.ceil(nano))


def test_a_uniform_price_charges_sounds_and_images_as_text_and_guesses_nothing() -> None:
    table = {"input_usd_per_mtok": 1, "cached_input_usd_per_mtok": "0.1", "output_usd_per_mtok": 10}
    units = (("audio_input_tokens", 20.0), ("cached_image_input_tokens", 30.0))
    usage = Usage(input_tokens=50, output_tokens=1, more=Details(units))
    uniform = parse_price({**table, "uniform": True})

    assert uniform.cost_nano(usage) == 20 * 1000 + 30 * 100 + 10_000
    assert not uniform.guesses(usage)
    assert parse_price(table).cost_nano(usage) > uniform.cost_nano(usage)
    assert parse_price(table).guesses(usage)


def test_tiers_and_hours_of_a_uniform_price_are_uniform() -> None:
    heard = Usage(input_tokens=50, more=Details((("audio_input_tokens", 50.0),)))
    flex = Usage(
        input_tokens=50, more=Details((("audio_input_tokens", 50.0),), service_tier="flex")
    )
    price = parse_price(
        {
            "input_usd_per_mtok": 1,
            "output_usd_per_mtok": 10,
            "uniform": True,
            "service_tiers": {"flex": {"input_usd_per_mtok": "0.5", "output_usd_per_mtok": 5}},
            "hours": [
                {"from": "00:00", "to": "01:00", "input_usd_per_mtok": 2, "output_usd_per_mtok": 20}
            ],
        }
    )

    assert price.cost_nano(flex) == 50 * 500
    assert price.at_time(0.0).cost_nano(heard) == 50 * 2000
    assert price.at_time(0.0).most.cost_nano(heard) == 50 * 2000


def test_uniform_is_true_or_absent() -> None:
    with pytest.raises(ValueError, match="remove it or write true"):
        parse_price({"input_usd_per_mtok": 1, "output_usd_per_mtok": 1, "uniform": False})
