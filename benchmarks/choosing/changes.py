"""Studies of changes: of a price, of an arm's quality, of the arms, of model versions."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from choosing import rivals, stream
from choosing.curves import Course, is_published, shuffled
from choosing.figures import Effort, Row, budgets_of, interval, seeded, summary
from choosing.stream import Record, World
from choosing.tables import Pair, Table

TAIL = 1.5

PUBLISHED_DRIFT = {
    ("price cut", 3.0e-4): (0.862, 0.933, 0.854),
    ("price cut", 6.6e-4): (0.882, 0.926, 0.891),
    ("price cut", 1.9e-3): (0.909, 0.928, 0.912),
    ("degraded", 3.0e-4): (0.863, 0.800, 0.819),
    ("degraded", 6.6e-4): (0.885, 0.795, 0.863),
    ("degraded", 1.9e-3): (0.910, 0.794, 0.898),
}
"""ParetoBandit's mean quality by phase, in the scenario and at the budget (arXiv 2604.00136)."""


def drift(table: Table, effort: Effort) -> Iterator[Row]:
    """Yield ParetoBandit's scenarios: three phases of equal length, the second one changed."""
    contexts, list_usd = stream.encode(table), table.cost.mean(axis=0)
    size = len(table) // 3
    budgets = [3.0e-4, 6.6e-4, 1.9e-3] if is_published(table) else budgets_of(table)[2:5].tolist()
    for name, world in _worlds(table, size).items():
        for budget in budgets:

            def one(seed: int, world: World = world, budget: float = budget) -> Record:
                policy, order = rivals.make("lagrangian", seed), shuffled(seed, 0, len(table))
                return stream.run(policy, contexts, table, order, list_usd, budget, seed, world)

            records = seeded(effort, f"{table.name}: {name} at ${budget:.3g}", one)
            phases = [[r.between(k * size, (k + 1) * size) for r in records] for k in range(3)]
            yield {
                "table": table.name,
                "scenario": name,
                "budget_usd": budget,
                "quality": [float(np.mean([r.quality.mean() for r in p])) for p in phases],
                "plus_minus": [interval([float(r.quality.mean()) for r in p]) for p in phases],
                "spend": [float(np.mean([r.spend for r in p])) for p in phases],
                "paretobandit_published": PUBLISHED_DRIFT.get((name, budget)),
            }


def _worlds(table: Table, size: int) -> dict[str, World]:
    middle, dear = len(table.arms) // 2, len(table.arms) - 1
    factor = 0.75 / table.quality[:, middle].mean()

    def cut(t: int, arm: int) -> float:
        return 0.01 if arm == dear and size <= t < 2 * size else 1.0

    def degraded(t: int, quality: np.ndarray) -> np.ndarray:
        if not size <= t < 2 * size:
            return quality
        worse = quality.copy()
        worse[middle] = min(1.0, worse[middle] * factor)
        return worse

    return {
        "price cut": World(price=cut),
        "price cut, silent": World(price=cut, announced=False),
        "degraded": World(quality=degraded),
    }


def tails(pair: Pair, effort: Effort) -> Iterator[Row]:
    """Yield the spend where each request's cost is multiplied by a Pareto variable of mean 1.

    Its exponent is 1.5, so its variance is infinite: of 1,000 requests one makes a tenth of the
    cost. The hull is that of the table without it.
    """
    course = Course(pair)
    for budget in course.budgets[1:6].tolist():

        def one(seed: int, budget: float = budget) -> Record:
            draws = np.random.default_rng(seed + 1000).pareto(TAIL, len(course.whole)) + 1.0
            factors = (draws * (TAIL - 1.0) / TAIL).tolist()
            return course.run("lagrangian", seed, budget, World(tail=factors.__getitem__))

        records = seeded(effort, f"{pair.table.name}: heavy tails at ${budget:.3g}", one)
        yield {"exponent": TAIL, "spend_seeds": [r.spend for r in records],
               **summary(records, pair.table, budget)}  # fmt: skip


def newcomer(table: Table, effort: Effort) -> Iterator[Row]:
    """Yield how soon an arm added after a third of the stream gets 5 % of 100 requests."""
    contexts, list_usd = stream.encode(table), table.cost.mean(axis=0)
    size, new = len(table) // 3, len(table.arms) // 2
    world = World(up=lambda t, arm: arm != new or t >= size)
    for factor in (1.1, 3.3, 6.7):
        budget = float(list_usd[new] * factor)

        def one(seed: int, budget: float = budget) -> Record:
            policy, order = rivals.make("lagrangian", seed), shuffled(seed, 0, len(table))
            return stream.run(policy, contexts, table, order, list_usd, budget, seed, world)

        records = seeded(effort, f"{table.name}: newcomer at ${budget:.3g}", one)
        steps = [_adopted(record.arm[size:] == new) for record in records]
        yield {
            "table": table.name,
            "newcomer": table.arms[new],
            "budget_usd": budget,
            "requests_until_5_percent": float(np.median(steps)),
            "slowest_quarter": float(np.quantile(steps, 0.75, method="higher")),
            "never": steps.count(float("inf")),
            "share_at_the_end": float(np.mean([(r.arm[-size:] == new).mean() for r in records])),
            "quality_after": float(np.mean([r.quality[size:].mean() for r in records])),
            "spend_after": float(np.mean([r.after(size).spend for r in records])),
        }


def _adopted(taken: np.ndarray) -> float:
    """Return the number of requests until 5 of 100 went to an arm; inf if that never happened."""
    share = np.convolve(taken, np.ones(100) / 100, "valid")
    reached = np.flatnonzero(share >= 0.05 - 1e-9)
    return float(reached[0] + 100) if len(reached) else float("inf")


def llmdrift(path: Path, effort: Effort) -> Iterator[Row]:
    """Yield, by task, how the change from March's to June's models is detected.

    The file has a row per task, model version and prompt; prompts that all versions answered are
    streamed.
    """
    with path.open() as file:
        raw = [json.loads(line) for line in file]
    for task in sorted({row["task"] for row in raw}):
        by: dict[str, dict[str, dict[str, float]]] = {}
        for row in raw:
            if row["task"] == task:
                by.setdefault(row["model"], {})[row["prompt"]] = row
        prompts = sorted(set.intersection(*(set(table) for table in by.values())))
        march = sorted(v for v in by if v.endswith(("0301", "0314")))
        june = sorted(v for v in by if v.endswith("0613"))
        if len(prompts) >= 100 and len(march) == len(june) == 2:
            times = [[[by[v][p] for v in versions] for p in prompts] for versions in (march, june)]
            yield _two_times(task, times[0] + times[1], prompts, effort)


def _two_times(
    task: str, rows: list[list[dict[str, float]]], prompts: list[str], effort: Effort
) -> Row:
    half = len(prompts)
    table = Table(
        task,
        ["gpt-3.5", "gpt-4"],
        np.array([[float(row["correct"]) for row in pair] for pair in rows]),
        np.array([[float(row["cost"]) for row in pair] for pair in rows]),
        np.array(["all"] * len(rows)),
        prompts + prompts,
    )
    contexts, list_usd = stream.encode(table), table.cost[:half].mean(axis=0)
    march, june = table.quality[:half].mean(axis=0), table.quality[half:].mean(axis=0)
    fallen = int(np.argmin(june - march))
    noticed: list[float] = []

    def one(seed: int) -> Record:
        rng = np.random.default_rng(seed)
        # Each version is streamed twice, in another order, so that there are 300 labels.
        order = np.concatenate([start + rng.permutation(half) for start in (0, 0, half, half)])
        policy = rivals.make("lagrangian", seed)
        record = stream.run(policy, contexts, table, order, list_usd, None, seed)
        noticed.append(_noticed(record, table.arms[fallen], fallen, 2 * half))
        return record

    changed = [r.after(2 * half) for r in seeded(effort, f"{task}: March, then June", one)]
    best = float(june.max())
    return {
        "task": task,
        "requests": half,
        "march": march.tolist(),
        "june": june.tolist(),
        "noticed_after_of_the_arm": float(np.median(noticed)),
        "requests_until_recovered": float(np.median([_recovered(r, best) for r in changed])),
        "quality_after_300": float(np.mean([r.quality[300:].mean() for r in changed])),
        "best_arm_in_june": best,
    }


def _noticed(record: Record, name: str, arm: int, start: int) -> float:
    """Return the arm's requests between its fall and the notice; inf without a notice."""
    for t, change in record.changes:
        if t >= start and change.arm == name and change.amount < 0:
            return float((record.arm[start : t + 1] == arm).sum())
    return float("inf")


def _recovered(record: Record, best: float) -> float:
    """Return after how many requests the mean of 100 was within .02 of the best arm's."""
    mean = np.convolve(record.quality, np.ones(100) / 100, "valid")
    reached = np.flatnonzero(mean >= best - 0.02)
    return float(reached[0] + 100) if len(reached) else float("inf")
