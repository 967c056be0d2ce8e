"""Runs policies over tables cell by cell, and keeps each cell in a file, so that a run can go on.

A cell is one stream: a table, a share or number of its budgets, a policy and a seed. All policies
see the same streams, so two of them are compared seed by seed. A `league` reports what is to be
mended: where the policy is below the hull, where a rival is ahead, and where spend is off.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from choosing.curves import Course, exact_features, shuffled
from choosing.figures import Effort, Row, interval
from choosing.stream import Record
from choosing.supervised import best_pair, fitted, spending, threshold
from choosing.tables import Pair

AHEAD = 0.003  # quality by which a rival must be ahead, beyond its interval, to matter
FIRST = 200  # requests of a cold start that are told apart
TWO_ARMS = (0.10, 0.25, 0.50, 0.75)
"""Budgets of two-arm tables, as shares of calls of the more expensive arm."""

TRAINED = {
    "threshold": "a threshold, trained",
    "every label": "supervised, every arm's label",
    "one label": "supervised, one label each",
}


class Cells:
    """A file of cells, one JSON object a line; cells that it has are not run again."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, dict[str, float]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                cell = json.loads(line)
                self._known[cell.pop("cell")] = cell

    def known(self, key: str) -> dict[str, float] | None:
        """Return a cell's figures, None if it was not run yet."""
        return self._known.get(key)

    def get(self, key: str, run: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return a cell's figures, from the file or else by running it."""
        if key not in self._known:
            self._known[key] = run()
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"cell": key, **self._known[key]}) + "\n")
        return self._known[key]


@dataclass
class League:
    """A table's cells: budgets 2 to 7, or four shares of two arms."""

    pair: Pair
    names: Sequence[str]
    cells: Cells
    effort: Effort
    _course: Course | None = field(default=None, init=False)
    _features: np.ndarray | None = field(default=None, init=False)

    @property
    def course(self) -> Course:
        """The table as it is streamed; encoded when a cell must be run."""
        if self._course is None:
            self._course = Course(self.pair)
        return self._course

    @property
    def budgets(self) -> dict[str, float]:
        """The budgets by label. The lowest is left out: it only affords the cheapest arm."""
        known = self.pair.warm or self.pair.table
        means = known.cost.mean(axis=0)
        if len(means) == 2:
            low, high = means.tolist()
            return {f"{share:.0%}": low + share * (high - low) for share in TWO_ARMS}
        steps = np.geomspace(max(means.min(), means.max() / 1000), means.max(), 7).tolist()
        return {str(at + 1): usd for at, usd in enumerate(steps) if at}

    def run(self, seeds: Sequence[int]) -> None:
        """Run the missing cells of some seeds."""
        for seed in seeds:
            for label, budget in self.budgets.items():
                for name in self.names:
                    self._cell(name, label, budget, seed)

    def _cell(self, name: str, label: str, budget: float, seed: int) -> dict[str, float]:
        key = self._key(name, label, seed)
        self.effort.tell(key)
        return self.cells.get(key, lambda: self._run(name, budget, seed))

    def _run(self, name: str, budget: float, seed: int) -> dict[str, float]:
        if name in TRAINED:
            return self._train(name, budget, seed)
        record = self.course.run(name, seed, budget, whole=True)
        # How regret goes down with time: quality and spend by fifths of the whole stream.
        fifths = np.array_split(np.arange(len(record.quality)), 5)
        return {
            **told(record.after(self.course.start)),
            "first": float(record.quality[:FIRST].mean()),
            "first_spend": float(record.cost[:FIRST].mean() / budget),
            **{f"q{at}": float(record.quality[part].mean()) for at, part in enumerate(fifths)},
            **{f"c{at}": float(record.cost[part].mean()) for at, part in enumerate(fifths)},
        }

    def _train(self, name: str, budget: float, seed: int) -> dict[str, float]:
        course, whole = self.course, self.course.whole
        if self._features is None:
            self._features = exact_features(course.contexts)
        features, order = self._features, course.order(seed)
        if name == "threshold":
            return told(threshold(whole, features, [order], course.start, budget)[0])
        known, new = order[: course.start], order[course.start :]
        seen = np.zeros(whole.quality.shape, bool)
        if name == "every label":
            seen[known] = True
        else:
            drawn = np.random.default_rng(seed).integers(len(whole.arms), size=course.start)
            seen[known, drawn] = True
        predicted = fitted(features, whole.quality, seen)[new]
        quality, cost = whole.quality[new], whole.cost[new]
        high, low, share = spending(predicted, cost, budget)
        rows = np.arange(len(new))
        taken = [(predicted - price * cost).argmax(axis=1) for price in (high, low)]
        q_high, q_low = (float(quality[rows, arms].mean()) for arms in taken)
        c_high, c_low = (float(cost[rows, arms].mean()) for arms in taken)
        spent = c_high + share * (c_low - c_high)
        return {"quality": q_high + share * (q_low - q_high), "spend": spent / budget}

    def _hull(self, budget: float, seed: int) -> float:
        """Return the quality of the hull's mix of arms on the measured requests of a seed.

        The mix is that of the whole table; on the same requests, chance is common to both.
        """
        table, warm = self.pair.table, self.pair.warm
        quality, cost = table.quality, table.cost.mean(axis=0)
        low, high, share = best_pair(quality.mean(axis=0), cost, budget * (1 + 1e-9))
        mixed = quality[:, low] + share * (quality[:, high] - quality[:, low])
        if warm is not None:
            return float(mixed.mean())
        order = shuffled(seed, 0, len(table))
        return float(mixed[order[len(table) // 2 :]].mean())

    def rows(self, seeds: int) -> Iterator[Row]:
        """Yield a row for each policy and budget, as far as its cells are known."""
        table = self.pair.table
        for label, budget in self.budgets.items():
            hulls = [self._hull(budget, seed) for seed in range(seeds)]
            found = {
                name: [self.cells.known(self._key(name, label, seed)) for seed in range(seeds)]
                for name in self.names
            }
            for name, cells in found.items():
                both = [
                    (own, ours, hull)
                    for own, ours, hull in zip(cells, found[self.names[0]], hulls, strict=True)
                    if own and ours
                ]
                if not both:
                    continue
                over = [own["quality"] - hull for own, _, hull in both]
                ahead = [own["quality"] - ours["quality"] for own, ours, _ in both]
                spend = [own["spend"] for own, _, _ in both]
                yield {
                    "table": table.name,
                    "budget": label,
                    "policy": TRAINED.get(name, name),
                    "seeds": len(both),
                    "quality": float(np.mean([own["quality"] for own, _, _ in both])),
                    "over_hull": float(np.mean(over)),
                    "plus_minus": interval(over),
                    "ahead": float(np.mean(ahead)),
                    "ahead_plus_minus": interval(ahead),
                    "spend": float(np.mean(spend)),
                    "spend_worst": max(spend),
                }

    def _key(self, name: str, label: str, seed: int) -> str:
        return f"{self.pair.table.name}|{label}|{name}|{seed}"


def to_mend(rows: Sequence[Row], ours: str) -> Iterator[Row]:
    """Yield where the policy is below the hull, a rival ahead, or spend off where it binds.

    Beyond the intervals; a rival by more than .003. Yardsticks are no rivals: they know more.
    """
    for row in rows:
        over, off = float(row["over_hull"]), float(row["plus_minus"])  # type: ignore[arg-type]
        ahead = float(row["ahead"]) - float(row["ahead_plus_minus"])  # type: ignore[arg-type]
        spend = float(row["spend"])  # type: ignore[arg-type]
        cell = {"table": row["table"], "budget": row["budget"]}
        if row["policy"] == ours and over + off < 0.0:
            yield {"to_mend": "below the hull", **cell, "by": -over, "plus_minus": off}
        if row["policy"] == ours and not 0.97 <= spend <= 1.01:
            yield {"to_mend": "spend", **cell, "by": spend - 1.0, "plus_minus": 0.0}
        if not str(row["policy"]).startswith("supervised") and ahead > AHEAD:
            by = float(row["ahead"])  # type: ignore[arg-type]
            found = f"{row['policy']} is ahead"
            yield {"to_mend": found, **cell, "by": by, "plus_minus": by - ahead}


def told(record: Record) -> dict[str, float]:
    """Return the quality and the spend of a record."""
    return {"quality": float(record.quality.mean()), "spend": record.spend}
