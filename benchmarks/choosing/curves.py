"""Studies of quality by budget and cost by floor, also with few labels, against their bounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from choosing import bounds, figures, rivals, stream, supervised
from choosing.figures import Effort, Row, budgets_of, interval, seeded, summary
from choosing.stream import Record, World
from choosing.tables import Pair, Table
from tollway.policies.registry import build
from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.types import Context, Objective

PUBLISHED = (0.793, 0.813, 0.859, 0.898, 0.917, 0.924, 0.929)
"""ParetoBandit's published mean quality on its test table, by budget (arXiv 2604.00136)."""

PUBLISHED_ARMS = {
    "meta-llama/llama-3.1-8b-instruct",
    "mistralai/mistral-large-2512",
    "google/gemini-2.5-pro",
}
FLOORS = (0.85, 0.88, 0.90)


def is_published(table: Table) -> bool:
    """Whether a table is the one of ParetoBandit's published figures, under any name."""
    return set(table.arms) == PUBLISHED_ARMS and len(table) == 1824


@dataclass
class Course:
    """A table as it is streamed: contexts, list prices, and an order per seed."""

    pair: Pair
    whole: Table = field(init=False)
    contexts: list[Context] = field(init=False)
    list_usd: np.ndarray = field(init=False)
    start: int = field(init=False)  # the first request that is measured

    def __post_init__(self) -> None:
        table, warm = self.pair.table, self.pair.warm
        self.whole = warm.followed_by(table) if warm is not None else table
        self.contexts = stream.encode(self.whole)
        self.list_usd = (warm or table).cost.mean(axis=0)
        self.start = len(warm) if warm is not None else len(table) // 2

    @property
    def budgets(self) -> np.ndarray:
        """The seven budgets, from list prices."""
        return budgets_of(self.pair.warm or self.pair.table)

    def order(self, seed: int) -> np.ndarray:
        """Return a random order, with the warm-up requests first."""
        warm = len(self.pair.warm) if self.pair.warm is not None else 0
        return shuffled(seed, warm, len(self.whole))

    def run(
        self,
        name: str,
        seed: int,
        allowance: float | None,
        world: World | None = None,
        objective: Objective | None = None,
        *,
        whole: bool = False,
    ) -> Record:
        """Stream it through a policy; return the measured part, or all if `whole`."""
        policy = (
            rivals.make(name, seed)
            if objective is None
            else build(name, objective, options={}, seed=seed)
        )
        record = stream.run(
            policy,
            self.contexts,
            self.whole,
            self.order(seed),
            self.list_usd,
            allowance,
            seed,
            world,
        )
        return record if whole else record.after(self.start)


def shuffled(seed: int, warm: int, count: int) -> np.ndarray:
    """Return `warm` places in random order, then the others."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(warm), warm + rng.permutation(count - warm)])


def curves(
    pair: Pair, names: Sequence[str], effort: Effort, paretobandit: Path | None
) -> Iterator[Row]:
    """Yield quality by budget, policy by policy, after the fixed arms."""
    course = Course(pair)
    table = pair.table
    yield from figures.fixed(table)
    for name in names:
        rows = [_cell(course, name, budget, effort) for budget in course.budgets.tolist()]
        yield from _told(rows, table)
    if len(names) > 1:
        yield from _trained(course, effort)
    if paretobandit is not None:
        effort.tell(f"{table.name}: ParetoBandit, all budgets")
        yield from _told(list(_rival(course, effort, paretobandit)), table)


def _cell(course: Course, name: str, budget: float, effort: Effort) -> Row:
    label = f"{course.pair.table.name}: {name} at ${budget:.3g}"
    records = seeded(effort, label, lambda seed: course.run(name, seed, budget))
    return {"policy": name, **summary(records, course.pair.table, budget)}


def _trained(course: Course, effort: Effort) -> Iterator[Row]:
    """Yield a threshold router trained on the first part, and the supervised yardsticks."""
    table, whole, budgets = course.pair.table, course.whole, course.budgets.tolist()
    features = exact_features(course.contexts)
    orders = [course.order(seed) for seed in range(effort.seeds)]
    effort.tell(f"{table.name}: a trained threshold, all budgets")
    for budget in budgets:
        records = supervised.threshold(whole, features, orders, course.start, budget)
        yield {"policy": "threshold, trained", **summary(records, table, budget)}
    yield from supervised.yardstick(whole, table, features, orders, course.start, budgets, effort)


def _told(rows: list[Row], table: Table) -> list[Row]:
    """Add the figures of the whole curve, and the published ones."""
    saved = figures.saving(rows, table)
    for at, row in enumerate(rows):
        row["saving_at_best"] = saved
        if is_published(table):
            row["paretobandit_published"] = PUBLISHED[at]
    return rows


def _rival(course: Course, effort: Effort, python: Path) -> Iterator[Row]:
    whole, budgets = course.whole, course.budgets.tolist()
    features, plain = exact_features(course.contexts), course.list_usd
    orders = np.array([course.order(seed) for seed in range(effort.seeds)])
    taken, us = rivals.paretobandit(python, whole, features, orders, budgets, plain)
    for b, budget in enumerate(budgets):
        records = [
            Record(
                whole.quality[order, arms],
                whole.cost[order, arms],
                arms,
                budget,
                explored_usd=float("nan"),  # not reported
                decide_us=us[0],
                update_us=us[1],
            ).after(course.start)
            for order, arms in zip(orders, taken[b], strict=True)
        ]
        yield {"policy": "paretobandit", **summary(records, course.pair.table, budget)}


def exact_features(contexts: list[Context]) -> np.ndarray:
    """Return the exact features that the ridge head sees, without its constant."""
    head = RidgeRegressor()
    rows = [head.features(context)[1:] for context in contexts]
    width = max(len(row) for row in rows)
    return np.array([np.pad(row, (0, width - len(row))) for row in rows])


def two_arms(pair: Pair, names: Sequence[str], effort: Effort) -> Iterator[Row]:
    """Yield quality at 25 and 50 % calls of the more expensive of two arms."""
    course = Course(pair)
    low, high = pair.table.cost.mean(axis=0).tolist()
    for name in names:
        for share in (0.25, 0.5):
            budget = low + share * (high - low)
            yield {"strong_calls": share, **_cell(course, name, budget, effort)}


def floors(pair: Pair, effort: Effort, wanted: Sequence[float]) -> Iterator[Row]:
    """Yield the cost of holding a floor, compared with the hull's."""
    course, table = Course(pair), pair.table
    known = pair.warm or table
    quality, cost = table.quality.mean(axis=0), table.cost.mean(axis=0)
    within = [floor for floor in wanted if quality[0] < floor < quality.max()]
    span = quality.max() - quality[0]
    shares = (0.4, 0.6, 0.75) if span > 0 else ()
    for floor in within or [float(quality[0] + share * span) for share in shares]:
        # The baseline that an operator would declare: the cheapest arm known to hold the floor.
        holding = np.flatnonzero(known.quality.mean(axis=0) >= floor)
        if not len(holding):
            continue
        objective = Objective("min_cost", floor=floor, baseline=table.arms[int(holding[0])])
        records = seeded(
            effort,
            f"{table.name}: floor {floor:.3g}",
            lambda seed, objective=objective: course.run(
                "lagrangian", seed, None, objective=objective
            ),
        )
        spent = [float(record.cost.mean()) for record in records]
        hull_usd = bounds.hull_cost(quality, cost, floor)
        yield {
            "table": table.name,
            "floor": floor,
            "quality": float(np.mean([record.quality.mean() for record in records])),
            "windows_below": float(
                np.mean([figures.windows_below(record, floor - 0.01) for record in records])
            ),
            "cost_usd": float(np.mean(spent)),
            "plus_minus": interval(spent),
            "hull_usd": hull_usd,
            "saving": 1 - float(np.mean(spent)) / hull_usd if hull_usd else None,
        }


def scarce(pair: Pair, effort: Effort, labelled: float = 0.01) -> Iterator[Row]:
    """Yield quality by budget if one answer in a hundred has a label.

    The labelled answers are drawn evenly or, with `audited`, by the auditor.
    """
    course = Course(pair)
    for budget in course.budgets[1:6].tolist():
        for audited in (False, True):
            world = World(labelled=labelled, audited=audited)
            records = seeded(
                effort,
                f"{pair.table.name}: {labelled:.0%} of labels at ${budget:.3g}",
                lambda seed, budget=budget, world=world: course.run(
                    "lagrangian", seed, budget, world
                ),
            )
            figures = summary(records, pair.table, budget)
            yield {"labelled": labelled, "audited": audited, **figures}
