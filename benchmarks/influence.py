"""How far false labels of one tenant move what all tenants share: the figures of decision 0113.

    python benchmarks/influence.py        # a minute

Each figure is given with the limit on labels (`policies/evidence/influence.py`) and without it.
"""

import time
from collections.abc import Callable, Iterator
from random import Random

from tollway.policies.evidence.influence import MEAN_RATE, Influence
from tollway.policies.registry import build
from tollway.policies.types import Arm, Context, Objective, Policy

ARMS = (Arm("cheap", 1e-4), Arm("large", 1e-3))
RIGHT = {"cheap": 0.8, "large": 0.85}
SHARE = 0.25  # of the traffic, the liar's
SEEDS = range(3)
MOVED_SEEDS = range(20)
Label = tuple[str, float, float]  # tenant, share of the traffic, label


def main() -> None:
    print("100 false labels after 300 true ones move an estimate, in the mean (at most), by")
    for head in ("ridge", "vowpal"):
        limited, free = (list(_moved(head, limited)) for limited in (True, False))
        print(
            f"  {head:7} {_average(limited):.3f} ({max(limited):.3f}), "
            f"without the limit {_average(free):.3f} ({max(free):.3f})"
        )
    print("The mean of an arm, true quality 0.9, at a step of 0.01 a label")
    for what, labels in SCENES.items():
        limited, free = (_average(_mean(labels(Random(seed)), on) for seed in SEEDS)
                         for on in (True, False))  # fmt: skip
        print(f"  {what}: {limited:.2f}, without the limit {free:.2f}")
    print("A drop from 0.9 to 0.3 that all see, labels until the mean is halfway")
    for tenants in (2, 5, 40):
        limited, free = (_average(_halfway(tenants, Random(seed), on) for seed in range(10))
                         for on in (True, False))  # fmt: skip
        print(f"  {tenants:2} tenants: {limited:.0f}, without the limit {free:.0f}")
    print(f"A label takes {_label_us():.0f} us")


def _moved(head: str, limited: bool) -> Iterator[float]:
    """Yield how far each arm's estimate moves, over seeds, lies and numbers of honest tenants."""
    for seed in MOVED_SEEDS:
        for lie in (0.0, 1.0):
            for honest in (1, 2, 5):
                rng, influence = Random(seed), Influence() if limited else None
                policy = build("lagrangian", Objective(), options={"head": head}, seed=0)
                for number in range(300):
                    _request(policy, rng, influence, f"honest-{number % honest}", 1.0 / honest)
                before = _estimates(policy)
                for _ in range(100):
                    _request(policy, rng, influence, "liar", SHARE, lie)
                yield from (abs(a - b) for a, b in zip(_estimates(policy), before, strict=True))


def _request(
    policy: Policy,
    rng: Random,
    influence: Influence | None,
    tenant: str,
    share: float,
    lie: float | None = None,
) -> None:
    """Choose an arm, and learn from its label: `lie`, or else a true one."""
    context = Context((rng.uniform(-1, 1), rng.uniform(-1, 1)))
    choice = policy.choose(context, ARMS, rng)
    label = float(rng.random() < RIGHT[choice.arm]) if lie is None else lie
    belief = 1.0
    if influence is not None:
        expected = dict(zip(choice.arms, choice.quality_hat, strict=True))
        belief = influence.believe(tenant, share, {choice.arm: label}, expected)[choice.arm]
    if belief > 0.0:
        policy.learn(context, choice, choice.arm, label, belief=belief)
    policy.charge(choice, ARMS[choice.arm == "large"].cost_usd)
    if policy.resolve_due():
        policy.resolve()


def _estimates(policy: Policy) -> list[float]:
    """Return the expected quality of each arm, averaged over 200 requests."""
    rng = Random(1)
    contexts = [Context((rng.uniform(-1, 1), rng.uniform(-1, 1))) for _ in range(200)]
    rows = [policy.choose(context, ARMS, rng).quality_hat for context in contexts]
    return [_average(column) for column in zip(*rows, strict=True)]


def _one_liar(rng: Random, lie: Callable[[int, float], float]) -> Iterator[Label]:
    for number in range(2000):
        truth = float(rng.random() < 0.9)
        if rng.random() < SHARE:
            yield "liar", SHARE, lie(number, truth)
        else:
            yield f"honest-{number % 5}", 0.75 / 5, truth


def _one_unlike_the_others(rng: Random) -> Iterator[Label]:
    for number in range(2000):
        tenant = number % 3
        yield f"t{tenant}", 1 / 3, float(rng.random() < (0.6 if tenant == 0 else 0.9))


def _two_liars_of_five(rng: Random) -> Iterator[Label]:
    for _ in range(2000):
        tenant = rng.randrange(5)
        yield f"t{tenant}", 0.2, 0.0 if tenant < 2 else float(rng.random() < 0.9)


SCENES: dict[str, Callable[[Random], Iterator[Label]]] = {
    "a quarter of the labels are 0": lambda rng: _one_liar(rng, lambda number, truth: 0.0),
    "a quarter are the opposite of the truth": lambda rng: _one_liar(
        rng, lambda n, truth: 1 - truth
    ),
    "one of three tenants is at 0.6 (the mean of all is 0.8)": _one_unlike_the_others,
    "two of five tenants send 0 (they are two, not one)": _two_liars_of_five,
}


def _mean(labels: Iterator[Label], limited: bool) -> float:
    """Return the arm's mean, averaged over the second half of the labels."""
    influence, mean, means = Influence(), 0.9, []
    for tenant, share, label in labels:
        belief = influence.believe(tenant, share, {"a": label})["a"] if limited else 1.0
        mean += MEAN_RATE * belief * (label - mean)
        means.append(mean)
    return _average(means[len(means) // 2 :])


def _halfway(tenants: int, rng: Random, limited: bool) -> int:
    influence, mean = Influence(), 0.9
    for number in range(3000):
        label = float(rng.random() < (0.9 if number < 1000 else 0.3))
        tenant = f"t{rng.randrange(tenants)}"
        belief = influence.believe(tenant, 1 / tenants, {"a": label})["a"] if limited else 1.0
        mean += MEAN_RATE * belief * (label - mean)
        if number >= 1000 and mean <= 0.6:
            return number - 999
    return 2000


def _label_us() -> float:
    influence, rng = Influence(), Random(0)
    labels = [(f"t{rng.randrange(10)}", {"a": float(rng.random() < 0.9)}) for _ in range(5000)]
    started = time.thread_time()
    for tenant, known in labels:
        influence.believe(tenant, 0.1, known)
    return (time.thread_time() - started) / len(labels) * 1e6


def _average(values: Iterator[float] | list[float] | tuple[float, ...]) -> float:
    values = list(values)
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
