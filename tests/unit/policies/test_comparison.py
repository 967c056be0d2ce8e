"""Evidence that a candidate is worse than the stable version."""

import math
from random import Random

import pytest

from tollway.policies.evidence import comparison
from tollway.policies.evidence.bets import EXCESS
from tollway.policies.evidence.comparison import CLUSTERS, Comparison

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
    assert len(made.groups[0].xs) <= comparison.BLOCK_MAX


def test_values_out_of_range_and_states_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        Comparison().observe(math.nan, 0, candidate=True)
    saved = Comparison().save()
    with pytest.raises(ValueError, match="do not fit"):
        Comparison.load({**saved, "groups": {"0": [1.0, [0.0]]}})


def traffic(
    made: Comparison, rates: dict[int, tuple[float, float, float]], *, count: int = 4000
) -> None:
    """Observe values of groups of tenants: each has a share, and a rate on either version."""
    rng = Random(5)
    shares = [share for share, _, _ in rates.values()]
    for group in rng.choices(list(rates), shares, k=count):
        _, stable, candidate = rates[group]
        new = rng.random() < 0.2
        value = float(rng.random() < (candidate if new else stable))
        made.observe(value, rng.randrange(CLUSTERS), candidate=new, group=group)


def test_one_tenant_that_fails_on_the_candidate_alone_stops_nothing() -> None:
    honest = dict.fromkeys(range(5), (0.15, 0.02, 0.02))
    made = Comparison()
    traffic(made, {**honest, 9: (0.25, 0.0, 1.0)})
    assert sum(made.groups[9].logs) > 100.0
    assert made.log_evidence < 0.0


def test_a_candidate_that_is_worse_for_all_tenants_is_stopped_as_soon() -> None:
    apart, together = Comparison(), Comparison()
    traffic(apart, dict.fromkeys(range(5), (0.2, 0.02, 0.06)))
    traffic(together, {0: (1.0, 0.02, 0.06)})
    assert apart.log_evidence >= ALARM
    assert apart.log_evidence > 0.7 * together.log_evidence


def test_a_tenant_with_most_of_the_traffic_decides() -> None:
    made = Comparison()
    traffic(made, {0: (0.9, 0.02, 0.2), 1: (0.1, 0.02, 0.02)})
    assert made.log_evidence >= ALARM


def test_of_two_tenants_either_gives_at_most_half_of_the_evidence() -> None:
    made = Comparison()
    traffic(made, {0: (0.6, 0.02, 0.5), 1: (0.4, 0.02, 0.02)})
    assert made.log_evidence < ALARM


def test_evidence_by_tenant_adds_up_and_comes_back() -> None:
    parts = [Comparison(), Comparison()]
    traffic(parts[0], {0: (1.0, 0.02, 0.3)}, count=800)
    traffic(parts[1], {0: (0.5, 0.02, 0.3), 3: (0.5, 0.0, 0.0)}, count=800)
    whole = parts[0].copy()
    whole.add(Comparison.load(parts[1].save()))
    assert whole.groups.keys() == {0, 3}
    assert whole.groups[0].seen == sum(part.groups[0].seen for part in parts)
    assert whole.log_evidence == pytest.approx(Comparison.load(whole.save()).log_evidence)
    assert parts[0].groups.keys() == {0}
