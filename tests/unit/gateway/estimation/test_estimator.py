"""Quotes: exact for fixed prices, otherwise from learned usage and today's price."""

import asyncio
import math
from random import Random

import pytest

from tollway.backends.pricing import MAX_NANO, Price, parse_price
from tollway.backends.types import Details, Usage
from tollway.gateway.estimation.cost_estimator import CostEstimator, Quote
from tollway.gateway.estimation.usage_model import (
    _TABLES,
    LOG_MAX,
    PAYS,
    SURE_CALLS,
    TRIED_CALLS,
    UsageModel,
)
from tollway.gateway.estimation.worst_seen import USUAL, Worst
from tollway.policies.types import Context

FIXED = Price(per_request_nano=10_000)
DEVICE = Price(per_device_s_nano=700_000.0)
TOKENS = Price(input_token_nano=150.0, output_token_nano=600.0, cached_input_token_nano=75.0)
BOUND = Usage(device_s=30.0, exact=False)
HERE = Context((0.0,))


def test_a_price_per_request_is_quoted_to_the_nano_dollar_without_learning() -> None:
    estimator = CostEstimator()

    quote = estimator.quote(HERE, "a", FIXED, BOUND)

    assert quote == Quote(10_000, 10_000, 10_000)
    estimator.observe(HERE, "a", quote, FIXED, Usage())
    assert estimator.quote(HERE, "a", FIXED, BOUND) == Quote(10_000, 10_000, 10_000)


def test_a_new_price_is_quoted_at_once() -> None:
    estimator = CostEstimator()
    estimator.quote(HERE, "a", FIXED, BOUND)

    assert estimator.quote(HERE, "a", Price(per_request_nano=7), BOUND).expected_nano == 7


def world(rng: Random) -> tuple[Context, float]:
    """A context, and the device-seconds that a call with it takes: by a factor of e either way."""
    x = rng.uniform(-1, 1)
    return Context((x,)), 0.05 * math.exp(x + rng.gauss(0, 0.2))


def taught(count: int, seed: int = 0) -> tuple[CostEstimator, Random]:
    estimator, rng = CostEstimator(), Random(seed)
    for _ in range(count):
        context, device_s = world(rng)
        quote = estimator.quote(context, "gpu", DEVICE, BOUND)
        estimator.observe(context, "gpu", quote, DEVICE, Usage(device_s=device_s))
    return estimator, rng


def test_usage_is_learned_from_the_context() -> None:
    estimator, _ = taught(500)

    small, large = (
        estimator.quote(Context((x,)), "gpu", DEVICE, BOUND).expected_nano for x in (-0.8, 0.8)
    )
    # The mean of a log-normal is e^(0.2^2 / 2) above its median.
    assert small == pytest.approx(35_000 * math.exp(-0.8 + 0.02), rel=0.2)
    assert large == pytest.approx(35_000 * math.exp(0.8 + 0.02), rel=0.2)


def test_expectations_are_right_in_the_mean_and_the_ceiling_covers_its_share() -> None:
    estimator, rng = taught(600)
    expected = actual = covered = 0

    for _ in range(1500):
        context, device_s = world(rng)
        quote = estimator.quote(context, "gpu", DEVICE, BOUND)
        cost = DEVICE.cost_nano(Usage(device_s=device_s))
        expected, actual = expected + quote.expected_nano, actual + cost
        covered += cost <= quote.ceiling_nano
        assert quote.expected_nano <= quote.ceiling_nano <= quote.maximum_nano
        estimator.observe(context, "gpu", quote, DEVICE, Usage(device_s=device_s))

    assert expected == pytest.approx(actual, rel=0.03)
    assert 0.93 <= covered / 1500 <= 0.97
    accuracy = estimator.accuracy()["gpu"]
    assert accuracy.calls == 2100
    assert accuracy.coverage == pytest.approx(0.95, abs=0.05)
    assert 0.05 < accuracy.relative_error < 0.3


def test_a_price_change_needs_no_learning() -> None:
    estimator, _ = taught(300)
    before = estimator.quote(HERE, "gpu", DEVICE, BOUND).expected_nano

    half = Price(per_device_s_nano=DEVICE.per_device_s_nano / 2)
    after = estimator.quote(HERE, "gpu", half, BOUND).expected_nano

    assert after == pytest.approx(before / 2, abs=1)


def test_a_bound_caps_what_is_expected_and_makes_the_maximum_certain() -> None:
    estimator, _ = taught(300)
    known = Usage(device_s=0.001, exact=False)

    quote = estimator.quote(HERE, "gpu", DEVICE, known)

    assert quote.maximum_nano == DEVICE.cost_nano(known)
    assert quote.expected_nano == quote.ceiling_nano == quote.maximum_nano


def test_bounds_on_tokens_make_the_maximum_certain_and_the_expectation_a_share_of_it() -> None:
    estimator = CostEstimator()
    known = Usage(input_tokens=1000, output_tokens=100, exact=False)

    quote = estimator.quote(HERE, "llm", TOKENS, known)

    assert quote.maximum_nano == TOKENS.cost_nano(Usage(input_tokens=1000, output_tokens=100))
    # A token is three or four bytes, where nothing has been learned yet.
    assert TOKENS.cost_nano(Usage(input_tokens=300)) < quote.expected_nano < quote.maximum_nano
    assert quote.usage.input_tokens == pytest.approx(300)


def test_output_tokens_and_the_cached_share_are_learned() -> None:
    estimator = CostEstimator()
    known = Usage(input_tokens=1000, exact=False)
    used = Usage(input_tokens=1000, cached_input_tokens=800, output_tokens=50)
    for _ in range(600):
        quote = estimator.quote(HERE, "llm", TOKENS, known)
        estimator.observe(HERE, "llm", quote, TOKENS, used)

    assert quote.expected_nano == pytest.approx(TOKENS.cost_nano(used), rel=0.05)
    # Nothing bounds the output, so the maximum is no certainty, and is well above.
    assert quote.maximum_nano > 2 * quote.expected_nano


def test_a_call_never_seen_is_never_quoted_as_free() -> None:
    estimator = CostEstimator()

    for price in (DEVICE, TOKENS):
        quote = estimator.quote(HERE, "new", price, Usage(exact=False))
        assert 0 < quote.expected_nano <= quote.ceiling_nano <= quote.maximum_nano


def test_one_backends_usage_does_not_distort_anothers() -> None:
    estimator, _ = taught(300)
    for _ in range(300):
        quote = estimator.quote(HERE, "slow", DEVICE, BOUND)
        estimator.observe(HERE, "slow", quote, DEVICE, Usage(device_s=5.0))

    slow = estimator.quote(HERE, "slow", DEVICE, BOUND)
    assert slow.expected_nano == pytest.approx(DEVICE.cost_nano(Usage(device_s=5.0)), rel=0.1)
    fast = estimator.quote(HERE, "gpu", DEVICE, BOUND).expected_nano
    assert fast == pytest.approx(35_000, rel=0.3)


def test_usage_without_a_price_is_refused_and_not_learned() -> None:
    estimator, _ = taught(50)
    quote = estimator.quote(HERE, "gpu", DEVICE, BOUND)

    with pytest.raises(ValueError, match="usage"):
        estimator.observe(HERE, "gpu", quote, DEVICE, Usage(device_s=math.nan))

    assert estimator.quote(HERE, "gpu", DEVICE, BOUND).expected_nano == quote.expected_nano


def test_the_reply_in_hand_does_not_change_what_a_call_is_expected_to_use() -> None:
    estimator, _ = taught(100)
    later = Context(HERE.dense, HERE.sparse, (0.9, 0.8), "cheap")

    one = estimator.quote(HERE, "gpu", DEVICE, BOUND)
    assert estimator.quote(later, "gpu", DEVICE, BOUND) == one


def test_what_was_learned_survives_a_restart_and_damage_is_refused() -> None:
    estimator, _ = taught(200)
    copy, state = CostEstimator(), estimator.save()

    copy.load(state)

    assert copy.quote(HERE, "gpu", DEVICE, BOUND) == estimator.quote(HERE, "gpu", DEVICE, BOUND)
    with pytest.raises(ValueError, match="state"):
        copy.load(state[:-1])


def told(context: Context, device_s: float, estimator: CostEstimator) -> None:
    quote = estimator.quote(context, "gpu", DEVICE, BOUND)
    estimator.observe(context, "gpu", quote, DEVICE, Usage(device_s=device_s))


def test_an_uninformative_context_is_not_used_until_it_informs() -> None:
    estimator, rng = CostEstimator(), Random(1)
    for _ in range(400):
        told(Context((rng.uniform(-1, 1),)), 0.05 * math.exp(rng.gauss(0, 0.2)), estimator)
    one, other = (estimator.quote(Context((x,)), "gpu", DEVICE, BOUND) for x in (-1.0, 1.0))
    assert one == other
    assert one.expected_nano == pytest.approx(35_000 * math.exp(0.02), rel=0.1)

    for _ in range(3000):
        told(*world(rng), estimator)

    one, other = (estimator.quote(Context((x,)), "gpu", DEVICE, BOUND) for x in (-0.8, 0.8))
    assert other.expected_nano > 3 * one.expected_nano


def test_an_unused_backend_is_assumed_to_generate_as_much_as_the_others() -> None:
    estimator = CostEstimator()
    known = Usage(input_tokens=400.0, exact=False)
    before = estimator.quote(HERE, "new", TOKENS, known)
    assert before.usage.output_tokens == 500.0
    for _ in range(20):
        quote = estimator.quote(HERE, "llm", TOKENS, known)
        used = Usage(input_tokens=100.0, output_tokens=40.0)
        estimator.observe(HERE, "llm", quote, TOKENS, used)
    after = estimator.quote(HERE, "new", TOKENS, known)
    assert after.usage.output_tokens == pytest.approx(40.0)
    assert after.usage.device_s == before.usage.device_s
    assert after.maximum_nano == before.maximum_nano  # what it may come to is as unknown as ever
    copy = CostEstimator()
    copy.load(estimator.save())
    assert copy.quote(HERE, "newer", TOKENS, known).usage == after.usage


def test_a_cached_quote_equals_a_new_one() -> None:
    estimator, rng = CostEstimator(), Random(5)
    kept = 0
    for number in range(600):
        context, backend = Context((rng.random(),)), ("gpu", "other")[number % 2]
        quote = estimator.quote(context, backend, DEVICE, BOUND)
        again = estimator.quote(Context((rng.random(),)), backend, DEVICE, BOUND)
        kept += again is quote
        if number % 50 == 0:
            fresh = CostEstimator()
            fresh.load(estimator.save())
            assert fresh.quote(context, backend, DEVICE, BOUND) == quote
        if rng.random() < 0.8:  # of the context it tells nothing, which shows after 200 calls
            usage = Usage(device_s=0.05 * math.exp(rng.gauss(0, 0.3)))
            estimator.observe(context, backend, quote, DEVICE, usage)
            assert estimator.quote(context, backend, DEVICE, BOUND) is not quote

    assert kept > 100
    repriced = Price(per_device_s_nano=1_400_000.0)
    quote = estimator.quote(HERE, "gpu", DEVICE, BOUND)
    assert estimator.quote(HERE, "gpu", repriced, BOUND).expected_nano > 1.9 * quote.expected_nano
    shorter = Usage(device_s=0.01, exact=False)
    assert estimator.quote(HERE, "gpu", DEVICE, shorter).maximum_nano == 7_000


@pytest.mark.parametrize("price", [TOKENS, DEVICE])
@pytest.mark.parametrize("before", [0, 1, 5, 60, 500])
def test_one_call_at_ten_times_the_usual_cost_keeps_a_backend_out_for_a_hundred_requests_at_most(
    price: Price, before: int
) -> None:
    """Two backends are equally good; `worse` costs 15 % more than `better` usually does."""
    estimator, rng = CostEstimator(), Random(before)
    usual = {"better": 1.0, "worse": 1.15}

    def call(backend: str, factor: float = 1.0) -> None:
        size = factor * usual[backend] * math.exp(rng.gauss(0.0, 0.1))
        usage = Usage(device_s=0.5 * size, output_tokens=500.0 * size)
        quote = estimator.quote(HERE, backend, price, BOUND)
        estimator.observe(HERE, backend, quote, price, usage)

    for _ in range(before):
        call("better")
        call("worse")
    call("better", factor=10.0)

    calls = []
    for _ in range(400):
        quoted = {name: estimator.quote(HERE, name, price, BOUND).expected_nano for name in usual}
        calls.append(min(quoted, key=quoted.__getitem__))
        call(calls[-1])

    assert "better" in calls[:100]
    assert calls[200:].count("better") > 150


def test_an_unused_backend_is_quoted_lower_within_its_uncertainty_only() -> None:
    estimator, _ = taught(300)
    first = estimator.quote(HERE, "gpu", DEVICE, BOUND)

    for _ in range(1000):
        quote = estimator.quote(HERE, "other", DEVICE, BOUND)
        estimator.observe(HERE, "other", quote, DEVICE, Usage(device_s=0.05))
    after = estimator.quote(HERE, "gpu", DEVICE, BOUND)

    assert 0.75 * first.expected_nano < after.expected_nano < first.expected_nano
    assert after.ceiling_nano == pytest.approx(first.ceiling_nano, rel=0.1)


def test_a_lasting_rise_of_usage_is_learned_in_spite_of_the_limit_on_single_calls() -> None:
    estimator, _ = taught(300)
    for _ in range(150):
        quote = estimator.quote(HERE, "gpu", DEVICE, BOUND)
        estimator.observe(HERE, "gpu", quote, DEVICE, Usage(device_s=1.0))

    assert estimator.quote(HERE, "gpu", DEVICE, BOUND).expected_nano == pytest.approx(7e5, rel=0.25)


def test_a_limit_beyond_all_money_is_quoted_as_all_that_a_ledger_counts() -> None:
    asked = Usage(input_tokens=100.0, output_tokens=1e20, exact=False)  # a request may name any

    quote = CostEstimator().quote(HERE, "a", TOKENS, asked)

    assert quote.maximum_nano == MAX_NANO - 1
    assert quote.expected_nano < 1_000_000


def test_after_any_reported_usage_quotes_can_be_made() -> None:
    estimator = CostEstimator()
    for device_s in (1e-300, 1e12, 1e-300, 1e12):
        quote = estimator.quote(HERE, "a", TOKENS, Usage(exact=False))
        assert 0 < quote.expected_nano <= quote.ceiling_nano <= quote.maximum_nano < MAX_NANO
        usage = Usage(device_s=device_s, input_tokens=9.0, output_tokens=9.0)
        estimator.observe(HERE, "a", quote, TOKENS, usage)


def test_a_tenants_costly_call_raises_its_own_holds_only_and_only_for_a_while() -> None:
    estimator = CostEstimator()
    unbounded = Usage(exact=False)

    def quoted(tenant: str, now_s: float) -> int:
        quote = estimator.quote(HERE, "llm", TOKENS, unbounded, tenant=tenant, now_s=now_s)
        return quote.maximum_nano

    def call(tenant: str, now_s: float, output_tokens: float) -> None:
        quote = estimator.quote(HERE, "llm", TOKENS, unbounded, tenant=tenant, now_s=now_s)
        used = Usage(input_tokens=100.0, output_tokens=output_tokens)
        estimator.observe(HERE, "llm", quote, TOKENS, used, tenant=tenant, now_s=now_s)

    for n in range(300):
        call("ab"[n % 2], float(n), 100.0)
    usual = quoted("b", 300.0)
    for _ in range(3):
        call("a", 300.0, 50_000.0)
    assert quoted("a", 300.0) > 5 * quoted("b", 300.0)
    peak = quoted("a", 300.0)
    for n in range(200):
        call("b", 300.0 + n, 100.0)
    assert quoted("b", 500.0) < 1.2 * usual
    assert quoted("a", 300.0 + 7200.0) < 0.2 * peak
    call("a", 8000.0, 1e9)
    assert quoted("a", 8000.0) <= 13 * quoted("a", 15200.0)  # 50 over the usual 4


def test_a_tenant_whose_calls_reported_no_output_is_quoted_like_all_others() -> None:
    estimator = CostEstimator()
    unbounded = Usage(exact=False)
    for number in range(2 * SURE_CALLS):
        tenant = "one" if number % 2 else "two"
        quote = estimator.quote(HERE, "llm", TOKENS, unbounded, tenant=tenant)
        used = Usage(input_tokens=9.0, output_tokens=3.0 if number % 2 else 0.0)
        estimator.observe(HERE, "llm", quote, TOKENS, used, tenant=tenant)

    here = Context((0.5,))
    assert estimator.quote(here, "llm", TOKENS, unbounded, tenant="two").expected_nano > 0


def test_a_saved_worst_call_still_fades_after_a_restart() -> None:
    worst, again = Worst(), Worst()
    worst.see("a", 40.0, 1e6)
    again.load(worst.save())
    assert again.of("a", 5.0) == 40.0
    assert again.of("a", 605.0) == pytest.approx(22.0)
    again.see("a", 1.0, 90_000.0)
    assert again.save() == {}
    again.load(7.5)  # as older snapshots have it
    assert again.of("a", 0.0) == USUAL


def test_quotes_learn_what_share_of_the_tokens_is_of_another_kind() -> None:
    price = parse_price(
        {"input_usd_per_mtok": 1, "output_usd_per_mtok": 10, "cache_write_1h_usd_per_mtok": 2}
    )
    unbounded = Usage(device_s=30.0, exact=False)
    estimator = CostEstimator()
    more = Details((("cache_write_1h_tokens", 500.0),))
    used = Usage(input_tokens=1000.0, output_tokens=10.0, more=more)
    for _ in range(200):
        quote = estimator.quote(HERE, "llm", price, unbounded)
        estimator.observe(HERE, "llm", quote, price, used)
    expected = estimator.quote(HERE, "llm", price, unbounded).expected_nano

    assert expected == pytest.approx(500 * 1000 + 500 * 2000 + 10 * 10_000, rel=0.02)
    again = CostEstimator()
    again.load(estimator.save())
    assert again.quote(HERE, "llm", price, unbounded).expected_nano == expected


def test_a_certain_maximum_counts_on_any_kind_of_token_and_tier() -> None:
    price = parse_price(
        {
            "input_usd_per_mtok": 1,
            "output_usd_per_mtok": 10,
            "cache_write_1h_usd_per_mtok": 2,
            "service_tiers": {"priority": 2.0},
        }
    )
    known = Usage(device_s=30.0, input_tokens=1000.0, output_tokens=100.0, exact=False)

    quote = CostEstimator().quote(HERE, "llm", price, known)

    assert quote.maximum_nano == 2 * (1000 * 2000 + 100 * 10_000)
    for tier in ("", "priority"):
        for unit, count in (("cache_write_1h_tokens", 1000.0), ("reasoning_tokens", 100.0)):
            more = Details(((unit, count),), service_tier=tier)
            used = Usage(input_tokens=1000.0, output_tokens=100.0, more=more)
            assert price.cost_nano(used) <= quote.maximum_nano


@pytest.mark.parametrize(("tier", "times"), [("", 1), ("flex", 1), ("priority", 2)])
def test_a_tier_that_is_asked_for_and_has_no_price_is_held_as_it_would_be_charged(
    tier: str, times: int
) -> None:
    more = Details(service_tier=tier) if tier else None
    known = Usage(input_tokens=1000.0, output_tokens=100.0, exact=False, more=more)

    quote = CostEstimator().quote(HERE, "llm", TOKENS, known)

    assert quote.maximum_nano == times * (1000 * 150 + 100 * 600)


def test_searches_are_bounded_where_no_tool_is_named_until_they_are_seen_all_the_same() -> None:
    price = parse_price(
        {"input_usd_per_mtok": 1, "output_usd_per_mtok": 10, "per_search_usd": 0.01}
    )
    known = Usage(input_tokens=1000.0, output_tokens=100.0, exact=False)
    estimator = CostEstimator()
    quote = estimator.quote(HERE, "llm", price, known)

    assert quote.maximum_nano == 1000 * 1000 + 100 * 10_000
    used = Usage(input_tokens=500.0, output_tokens=10.0, more=Details((("searches", 2.0),)))
    estimator.observe(HERE, "llm", quote, price, used)
    assert estimator.quote(HERE, "llm", price, known).maximum_nano > quote.maximum_nano


def test_in_a_gateway_usage_is_learned_after_the_iteration_of_the_loop() -> None:
    estimator = CostEstimator()

    async def main() -> None:
        estimator.learn_in_turns()
        before = estimator.quote(HERE, "gpu", DEVICE, Usage(exact=False))
        for _ in range(3):
            estimator.observe(HERE, "gpu", before, DEVICE, Usage(device_s=5.0))
        assert estimator.quote(HERE, "gpu", DEVICE, Usage(exact=False)) == before
        await asyncio.sleep(0)
        assert estimator.quote(HERE, "gpu", DEVICE, Usage(exact=False)) != before

    asyncio.run(main())
    assert estimator.accuracy()["gpu"].calls == 3


def test_what_never_learned_is_restored_as_such() -> None:
    estimator, copy = CostEstimator(), taught(50)[0]

    copy.load(estimator.save())

    assert copy.quote(HERE, "gpu", DEVICE, BOUND) == estimator.quote(HERE, "gpu", DEVICE, BOUND)


@pytest.mark.parametrize(("spread", "signal"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.9), (6.0, 0.9)])
def test_what_is_expected_and_asked_of_the_head_follows_from_the_saved_means(
    spread: float, signal: float
) -> None:
    rng, model = Random(1), UsageModel("llm")
    for _ in range(500):
        used = math.exp(5.0 + rng.gauss(0, spread))
        known = Usage(device_s=9.0, output_tokens=rng.choice([0.0, 40.0]), exact=False)
        usage = Usage(device_s=rng.choice([0.0, 0.5]), input_tokens=9.0, output_tokens=used)
        model.learn({"llm/output": 0.1}, usage, known, lambda _, log: signal * log)
        model.judge(100, 200, 100)
        first, actual, guessed, mean_log, head, mean, count = (
            table.get("output_tokens") for table in model.save()["units"][:7]
        )
        for logs in ({}, {"llm/output": 0.5}, {"llm/output": 99.0}):
            log = min(max(logs.get("llm/output", mean_log), -LOG_MAX), LOG_MAX)
            tokens = first * math.exp(log) * (actual / guessed)
            if known.output_tokens:
                tokens = min(tokens, known.output_tokens)
            assert model.expected(logs, known).output_tokens == tokens
        asked = count < TRIED_CALLS or head is None or head < PAYS * mean
        assert ("llm/output" in model.keys) == asked
        restored = UsageModel("llm")
        restored.load(model.save())
        assert (restored.keys, restored.margin) == (model.keys, model.margin)
        assert restored.expected({}, known) == model.expected({}, known)
    assert ("llm/output" in model.keys) == (signal > 0.0)


def test_a_snapshot_without_the_number_of_calls_counts_as_many() -> None:
    """One call after an upgrade must not become all that is known."""
    model = UsageModel("one")
    for _ in range(100):
        model.learn({}, Usage(device_s=0.1), Usage(), lambda key, log: log)
    saved = model.save()
    saved["units"] = saved["units"][: _TABLES.index("count")]
    later = UsageModel("one")
    later.load(saved)
    later.learn({}, Usage(device_s=0.01), Usage(), lambda key, log: log)
    assert later.expected({}, Usage()).device_s == pytest.approx(0.1, rel=0.1)
