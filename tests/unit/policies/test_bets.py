"""Bets against the claim that a candidate is no worse than tolerated."""

import math
from random import Random

import pytest

from tollway.policies.evidence import bets
from tollway.policies.evidence.bets import EXCESS


@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("rate", [0.001, 0.04, 0.3, 0.8])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 9), (7, 1)])
def test_no_bet_gains_under_the_claim(rate: float, m: int, n: int, tolerance: float) -> None:
    for bet in bets._bets(rate, m, n, tolerance, None):
        high, low, down, up = bet.one, bet.zero, bet.stable_one, bet.stable_zero
        for stable in (0.0, 1e-3, rate, 0.2, 0.5, 0.9):
            for candidate in (0.0, stable / 2, stable + tolerance):
                if candidate <= 1.0:
                    pays = (low + candidate * (high - low)) ** m * (up + stable * (down - up)) ** n
                    assert pays <= 1.0 + 1e-9


@pytest.mark.parametrize("tolerance", [0.001, 0.0125, 0.1])
def test_the_root_of_a_bet_is_found_from_the_safe_side(tolerance: float) -> None:
    rng = Random(3)
    for _ in range(500):
        p_stable = 10.0 ** rng.uniform(-4.0, -0.05)
        p = p_stable + tolerance + rng.choice(EXCESS)
        m, n = rng.choice([(1, rng.randint(1, 500)), (rng.randint(1, 500), 1)])
        if p >= 1.0:
            continue
        found = bets._null(p, p_stable, m, n, tolerance)

        def slope(
            q_stable: float, m: int = m, n: int = n, p: float = p, r: float = p_stable
        ) -> float:
            q = q_stable + tolerance
            return m * (p - q) / (q * (1 - q)) + n * (r - q_stable) / (q_stable * (1 - q_stable))

        assert slope(found) <= 0.0 < slope(found - 1e-9)


def test_values_between_pay_as_a_product_of_each() -> None:
    rng = Random(4)
    xs, ys = [rng.random() for _ in range(100)], [1.0, 0.0, *(rng.random() for _ in range(900))]
    logs = bets.log_payouts(0.02, xs, ys, 0.0125)
    made = bets._bets(0.02, 100, 902, 0.0125, None)
    for log, bet in zip(logs, made, strict=True):
        paid = sum(math.log(bet.zero + x * (bet.one - bet.zero)) for x in xs)
        paid += sum(math.log(bet.stable_zero + y * (bet.stable_one - bet.stable_zero)) for y in ys)
        assert log == pytest.approx(paid)
