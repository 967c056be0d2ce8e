"""Evidence that a candidate is worse than the stable version."""

import math
from random import Random

import pytest

from tollway.policies.evidence import comparison
from tollway.policies.evidence.comparison import CLUSTERS, EXCESS, Comparison

ALARM = math.log(1.0 / 0.05)


def fill(
    made: Comparison,
    stable: float,
    candidate: float,
    *,
    count: int = 4000,
    share: float = 0.2,
    seed: int = 0,
) -> int | None:
    """Observe rates; return after how many values the evidence is enough, if ever."""
    rng = Random(seed)
    for n in range(count):
        new = rng.random() < share
        value = float(rng.random() < (candidate if new else stable))
        made.observe(value, rng.randrange(CLUSTERS), candidate=new)
        if n % 50 == 0 and made.log_evidence >= ALARM:
            return n
    return None


@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("rate", [0.001, 0.04, 0.3, 0.8])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 9), (7, 1)])
def test_no_bet_gains_under_the_claim(rate: float, m: int, n: int, tolerance: float) -> None:
    for bet in comparison._bets(rate, m, n, tolerance, None):
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
        found = comparison._null(p, p_stable, m, n, tolerance)

        def slope(
            q_stable: float, m: int = m, n: int = n, p: float = p, r: float = p_stable
        ) -> float:
            q = q_stable + tolerance
            return m * (p - q) / (q * (1 - q)) + n * (r - q_stable) / (q_stable * (1 - q_stable))

        assert slope(found) <= 0.0 < slope(found - 1e-9)


def test_values_between_pay_as_a_product_of_each() -> None:
    rng = Random(4)
    xs, ys = [rng.random() for _ in range(100)], [1.0, 0.0, *(rng.random() for _ in range(900))]
    made = Comparison(0.0125)
    made._bet(xs, ys)
    bets = comparison._bets(comparison.FIRST_RATE, 100, 902, 0.0125, None)
    for log, bet in zip(made.logs, bets, strict=True):
        paid = sum(math.log(bet.zero + x * (bet.one - bet.zero)) for x in xs)
        paid += sum(math.log(bet.stable_zero + y * (bet.stable_one - bet.stable_zero)) for y in ys)
        assert log == pytest.approx(paid)


def test_a_worse_candidate_is_shown_to_be_worse() -> None:
    assert fill(Comparison(), 0.001, 0.03) is not None
    assert fill(Comparison(), 0.05, 0.12) is not None


def test_an_equal_candidate_seldom_is() -> None:
    stopped = [fill(Comparison(), 0.05, 0.05, count=2000, seed=s) for s in range(20)]
    assert sum(at is not None for at in stopped) <= 2


def test_less_than_the_tolerance_is_no_evidence() -> None:
    assert fill(Comparison(tolerance=0.05), 0.05, 0.09) is None


def test_a_fixed_claim_needs_no_stable_version() -> None:
    made = Comparison(claim=0.05)
    for n in range(200):
        made.observe(float(n % 5 == 0), n % CLUSTERS, candidate=True)
    assert made.log_evidence >= ALARM


def test_dependent_values_are_weaker_evidence() -> None:
    free, bound = Comparison(), Comparison()
    rng = Random(2)
    habits = [float(rng.random() < 0.1) for _ in range(40)]  # each user always has the same result
    for n in range(4000):
        user = n % 40
        free.observe(float(rng.random() < 0.1), rng.randrange(CLUSTERS), candidate=n % 2 == 0)
        bound.observe(habits[user], user, candidate=user < 20)
    assert bound.candidate.design_effect > 20.0
    assert free.candidate.design_effect < 2.0
    assert bound.log_evidence < ALARM


def test_a_few_keys_count_as_a_few_observations() -> None:
    made = Comparison()
    for n in range(1000):
        made.observe(float(n % 4 == 0), 3, candidate=True)
        made.observe(0.0, n % CLUSTERS, candidate=False)
    assert made.candidate.keys == 1
    assert made.log_evidence < ALARM


def test_evidence_of_several_processes_adds_up() -> None:
    whole, parts = Comparison(), [Comparison(), Comparison()]
    for seed, part in enumerate(parts):
        fill(part, 0.02, 0.03, count=500, seed=seed)
        whole.add(Comparison.load(part.save()))
    assert whole.candidate.count == sum(part.candidate.count for part in parts)
    assert whole.logs == pytest.approx(
        [sum(part.logs[at] for part in parts) for at in range(len(EXCESS))]
    )


def test_an_interval_narrows_around_the_difference() -> None:
    made = Comparison()
    fill(made, 0.2, 0.2, count=200)
    early = made.radius(0.05)
    fill(made, 0.2, 0.2, count=8000, share=0.5)
    assert made.radius(0.05) < early / 2
    assert abs(made.difference) <= made.radius(0.05)


def test_no_harm_in_few_values_is_no_proof() -> None:
    made = Comparison()
    for n in range(100):
        made.observe(0.0, n % CLUSTERS, candidate=n % 2 == 0)
    assert made.radius(0.05) > 0.05


def test_values_that_wait_for_the_other_version_are_limited() -> None:
    made = Comparison()
    for _ in range(3 * comparison.BLOCK_MAX):
        made.observe(0.5, 0, candidate=True)
    assert len(made._block[0]) <= comparison.BLOCK_MAX


def test_values_out_of_range_and_states_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        Comparison().observe(math.nan, 0, candidate=True)
    saved = Comparison().save()
    with pytest.raises(ValueError, match="do not fit"):
        Comparison.load({**saved, "logs": [0.0]})
