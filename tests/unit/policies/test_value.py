"""One label's estimate of another policy is unbiased and within its bounds."""

from random import Random

import pytest

from tollway.policies.evidence.off_policy import covered, estimated, held_back, weighted
from tollway.policies.sampling import draw
from tollway.policies.types import Choice

TRUTH = (0.2, 0.6, 0.9)


def choice(pmf: tuple[float, ...], index: int, shadow: tuple[float, ...] = ()) -> Choice:
    hats = (0.9, 0.1, 0.5)  # wrong on purpose
    return Choice(("a", "b", "c"), pmf, index, hats, (1.0, 2.0, 3.0), 0.0, "best", 0, shadow)


@pytest.mark.parametrize("wanted", [(1.0, 0.0, 0.0), (0.2, 0.3, 0.5), (0.2, 0.3, -0.5)])
def test_the_estimate_is_right_in_the_mean_whatever_the_head_says(
    wanted: tuple[float, ...],
) -> None:
    rng, pmf, total, count = Random(0), (0.2, 0.3, 0.5), 0.0, 20_000
    for _ in range(count):
        index = draw(pmf, rng)
        quality = float(rng.random() < TRUTH[index])
        value, least, most = estimated(choice(pmf, index), quality, wanted)
        assert least - 1e-9 <= value <= most + 1e-9
        total += value
    right = sum(p * q for p, q in zip(wanted, TRUTH, strict=True))
    assert total / count == pytest.approx(right, abs=0.02)


def test_withheld_draws_are_estimated_without_a_regressor_too() -> None:
    rng, shadow, total, count = Random(1), (0.5, 0.5, 0.0), 0.0, 40_000
    pmf = tuple(held_back(shadow, 2, 0.25))
    for _ in range(count):
        index = draw(pmf, rng)
        quality = float(rng.random() < TRUTH[index])
        value, least, most = weighted(choice(pmf, index, shadow), quality)
        assert least <= value <= most
        total += value
    assert total / count == pytest.approx(0.4, abs=0.02)


def test_an_arm_with_probability_zero_cannot_be_estimated() -> None:
    assert not covered((0.5, 0.5), (0.0, 1.0))
    assert covered((0.0, 1.0), (0.0, 1.0))
