"""The size of batches, and the shares of their device time."""

import random
from statistics import median, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.batching.rests import REST_MAX_S, REST_S, SUBJECTS_MAX, Rests
from tollway.backends.batching.shares import divided
from tollway.backends.batching.size import LATE, BatchSize
from tollway.backends.price import Price
from tollway.backends.types import Usage


@given(
    st.floats(1e-7, 1e3),
    st.lists(st.integers(1, 64), min_size=1, max_size=64),
    st.floats(1e-3, 1e9),
)
def test_the_charges_for_the_shares_sum_to_the_cost_of_the_whole(
    device_s: float, rows: list[int], rate_nano: float
) -> None:
    price = Price(per_device_s_nano=rate_nano)
    shares = divided(device_s, rows, rate_nano)
    charged = [price.cost_nano(Usage(calls=0.0, device_s=share)) for share in shares]
    whole = price.cost_nano(Usage(calls=0.0, device_s=device_s))
    assert sum(charged) == max(whole, len(rows))
    assert min(charged) >= 1
    for nano, each in zip(charged, rows, strict=True):  # in proportion, but for rounding
        assert abs(nano - 1 - max(0, whole - len(rows)) * each / sum(rows)) <= 1


def test_without_a_price_of_time_the_shares_are_plain_proportions() -> None:
    assert divided(4.0, [1, 3], 0.0) == [1.0, 3.0]
    assert divided(0.0, [1, 1], 5.0) == [0.0, 0.0]


def test_without_a_target_batches_have_the_largest_size() -> None:
    size = BatchSize(16, None)
    size.observe(16, 1e9)
    assert size.rows == 16


def test_the_size_rests_where_one_batch_in_two_hundred_is_late() -> None:
    rng = random.Random(3)
    size = BatchSize(256, 0.1)
    late = []
    for number in range(60_000):
        latency_s = 0.002 * size.rows * rng.uniform(0.8, 1.2)  # 0.1 s at about 45 rows
        if number > 5_000:
            late.append(latency_s > 0.1)
        size.observe(size.rows, latency_s)
    assert 0.3 * LATE < sum(late) / len(late) < 2 * LATE
    assert 35 < size.rows < 50


@pytest.mark.parametrize(("noise", "stalls"), [(0.1, 0.0), (0.2, 0.0), (0.3, 0.003)])
def test_the_99th_percentile_stays_in_the_target(noise: float, stalls: float) -> None:
    # A target that batches of 8 just keep; a server that stalls now and then, whatever the size.
    def latency_s(rows: int) -> float:
        stall_s = rng.expovariate(50.0) if rng.random() < stalls else 0.0
        return (0.002 + 0.0008 * rows) * rng.lognormvariate(0.0, noise) + stall_s

    ratios = []
    for seed in range(20):
        rng = random.Random(seed)
        target_s = quantiles([latency_s(8) for _ in range(2000)], n=100)[-1]
        size = BatchSize(32, target_s)
        took = []
        for number in range(1000):
            took.append(latency_s(size.rows))
            size.observe(size.rows, took[-1])
            if number == 300:
                took.clear()  # it has found its size
        ratios.append(quantiles(took, n=100)[-1] / target_s)
    assert median(ratios) <= 0.98
    assert sorted(ratios)[-3] <= 1.0


def test_a_batch_that_is_not_full_does_not_let_the_size_grow_or_shrink() -> None:
    size = BatchSize(16, 0.1)
    for _ in range(7):
        size.observe(size.rows, 0.0)
    assert size.rows == 8
    size.observe(3, 1.0)
    size.observe(7, 0.0)
    assert size.rows == 8
    size.observe(7, 1.0)
    assert size.rows == 7


def test_a_slow_server_gets_single_calls() -> None:
    size = BatchSize(16, 0.1)
    for _ in range(100):
        size.observe(size.rows, 1.0)
    assert size.rows == 1


def test_a_rest_doubles_until_its_subject_succeeds() -> None:
    rests = Rests()
    now_s, lengths = 0.0, []
    for _ in range(8):
        rests.begin("a", now_s)
        length = REST_S
        while rests.has("a", now_s + length):
            length *= 2
        lengths.append(length)
        now_s += REST_MAX_S
    assert lengths == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0]
    rests.end("a")
    assert not rests.has("a", now_s)


def test_rests_are_bounded() -> None:
    rests = Rests()
    for number in range(2 * SUBJECTS_MAX):
        rests.begin(number, 0.0)
    assert not rests.has(0, 0.5)
    assert rests.has(2 * SUBJECTS_MAX - 1, 0.5)
