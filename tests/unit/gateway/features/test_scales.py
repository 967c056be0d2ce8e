"""Scales of numbers: they follow what requests have, and no tenant spoils them for another."""

import math
from random import Random

import pytest

from tollway.gateway.features.scales import KNOWN_AT, MOMENTS_MAX, SETTLED, Moments, Scales


def scales(width: int = 1) -> Scales:
    return Scales([Moments() for _ in range(width)])


def settled(rng: Random, tenant: str = "a", count: int = 2000) -> Scales:
    made = scales()
    for _ in range(count):
        made.scaled([rng.gauss(10.0, 2.0)], tenant)
    return made


@pytest.mark.parametrize("outlier", [1e9, -1e9, 1e99, 1e300, float("nan"), float("inf")])
def test_one_outlier_does_not_change_what_others_are_read_as(outlier: float) -> None:
    made = settled(Random(1))
    before = made.scaled([12.0], "a")[0]
    assert abs(made.scaled([outlier], "a")[0]) in (0.0, 4.0)
    assert made.scaled([12.0], "a")[0] == pytest.approx(before, rel=0.15)


def test_numbers_without_outliers_are_scaled_as_by_all_of_their_history() -> None:
    """Clipping changes nothing where no value is far: the same floating-point operations."""
    rng, made = Random(2), scales()
    count = mean = variance = 0.0
    for _ in range(5000):
        value = rng.gauss(10.0, 2.0)
        (scaled,) = made.scaled([value], "a")
        count = min(count + 1.0, SETTLED)
        before = value - mean
        mean += before / count
        variance += (before * (value - mean) - variance) / count
        if variance > 0.0:
            assert scaled == max(-4.0, min(4.0, (value - mean) / math.sqrt(variance)))


def test_when_all_values_have_moved_the_scale_follows() -> None:
    rng, made = Random(3), settled(Random(3))
    for _ in range(20_000):
        made.scaled([rng.gauss(1e6, 1e3)], "a")
    assert made.scaled([1e6 + 1e3], "a")[0] == pytest.approx(1.0, abs=0.3)


def test_tenants_that_are_alike_have_one_scale() -> None:
    rng, one, many = Random(4), scales(), scales()
    for n in range(3000):
        value = rng.gauss(10.0, 2.0)
        assert many.scaled([value], f"t{n % 5}") == one.scaled([value], "a")


def test_a_number_that_was_constant_so_far_keeps_its_common_scale() -> None:
    made, rng = scales(), Random(5)
    for n in range(20 * KNOWN_AT):
        made.scaled([0.0], f"t{n % 2}")
    for n in range(2000):
        made.scaled([float(rng.random() < 0.5)], f"t{n % 2}")
    assert made.scaled([1.0], "t0")[0] == pytest.approx(1.0, abs=0.3)


def test_the_memory_for_tenants_is_limited() -> None:
    width = 512
    made = scales(width)
    for n in range(3 * MOMENTS_MAX // width):
        made.scaled([1.0] * width, f"t{n}")
    assert len(made._tenants) * width <= MOMENTS_MAX
