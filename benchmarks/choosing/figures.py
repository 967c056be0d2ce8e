"""Turns the records of streams into figures: means, intervals, spend, and their bounds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from choosing import bounds
from choosing.stream import Record
from choosing.tables import Table

Row = dict[str, object]
Tell = Callable[[str], None]
"""Receives a line on the progress of a study."""


@dataclass(frozen=True)
class Effort:
    """How much to measure: streams per cell; and where to report progress."""

    seeds: int
    tell: Tell


def interval(values: Sequence[float]) -> float:
    """Return half the width of a 95 % interval of the mean over seeds."""
    return float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def seeded(effort: Effort, label: str, one: Callable[[int], Record]) -> list[Record]:
    """Return the records of all seeds, and report progress."""
    effort.tell(label)
    return [one(seed) for seed in range(effort.seeds)]


def windows_below(record: Record, level: float, size: int = 500) -> float:
    """Return the share of windows of `size` requests whose mean quality is below a level."""
    size = min(size, len(record.quality))
    return float((np.convolve(record.quality, np.ones(size) / size, "valid") < level).mean())


def summary(records: list[Record], table: Table, budget: float) -> Row:
    """Return the figures of one policy at one budget; `table` is what was measured on."""
    quality = [float(record.quality.mean()) for record in records]
    spend = [record.spend for record in records]
    q, c = table.quality.mean(axis=0), table.cost.mean(axis=0)
    hull = bounds.hull(q, c, budget)
    top = bounds.optimum(table.quality, table.cost, budget)
    mean = float(np.mean(quality))
    return {
        "table": table.name,
        "budget_usd": budget,
        "quality": mean,
        "plus_minus": interval(quality),
        "over_hull": mean - hull,
        "hull": hull,
        "best_fixed": bounds.best_fixed(q, c, budget),
        "group": bounds.group(table.quality, table.cost, table.groups, budget),
        "clairvoyant": top,
        "share_of_gain": (mean - hull) / (top - hull) if top - hull > 1e-6 else None,
        "spend": float(np.mean(spend)),
        "spend_worst_seed": max(spend),
        "spend_worst_window": max(record.worst_window() for record in records),
        "learning_usd": float(np.mean([record.explored_usd for record in records])),
        "decide_us": float(np.median([record.decide_us for record in records])),
        "update_us": float(np.median([record.update_us for record in records])),
    }


def fixed(table: Table) -> Iterator[Row]:
    """Yield every fixed arm as a row, with its quality and cost."""
    for arm, q, c in zip(table.arms, table.quality.T, table.cost.T, strict=True):
        yield {
            "table": table.name,
            "policy": f"always {arm}",
            "quality": float(q.mean()),
            "cost_usd": float(c.mean()),
            "hull": bounds.hull(
                table.quality.mean(axis=0), table.cost.mean(axis=0), float(c.mean())
            ),
        }


def saving(rows: Sequence[Row], table: Table) -> float | None:
    """Return the share of the best fixed arm's cost that a curve saves at that arm's quality.

    Between two budgets the curve is interpolated linearly. None if that quality is never reached.
    """
    q, c = table.quality.mean(axis=0), table.cost.mean(axis=0)
    best = int(np.lexsort((c, -q))[0])
    points = sorted(
        (float(row["budget_usd"]) * float(row["spend"]), float(row["quality"]))  # type: ignore[arg-type]
        for row in rows
    )
    before = points[0]
    for at, (cost, quality) in enumerate(points):
        if quality >= q[best]:
            share = (q[best] - before[1]) / (quality - before[1]) if at else 1.0
            needed = before[0] + share * (cost - before[0])
            return float(1.0 - needed / c[best])
        # Skip a more expensive point of lower quality.
        if quality >= before[1]:
            before = (cost, quality)
    return None


def budgets_of(table: Table, count: int = 7) -> np.ndarray:
    """Return budgets, geometric from the cheapest to the most expensive arm's mean.

    One budget if all arms cost the same. A free arm counts as a thousandth of the most expensive.
    """
    means = table.cost.mean(axis=0)
    max_price = float(means.max())
    if max_price == 0.0:
        return np.array([0.0])
    least = max(float(means.min()), max_price / 1000)
    return np.geomspace(least, max_price, count) if least < max_price else np.array([max_price])
