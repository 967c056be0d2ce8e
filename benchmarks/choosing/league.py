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

from choosing import bounds
from choosing.curves import Course, exact_features
from choosing.figures import Effort, Row, interval
from choosing.stream import Record
from choosing.supervised import fitted, spending, threshold
from choosing.tables import Pair

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
        key = f"{self.pair.table.name}|{label}|{name}|{seed}"
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
        if not hasattr(self, "_features"):
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
        high, low, share = spending(predicted, whole.cost[new], budget)
        rows = np.arange(len(new))
        taken = [(predicted - price * whole.cost[new]).argmax(axis=1) for price in (high, low)]
        means = [
            (
                float(whole.quality[new][rows, arms].mean()),
                float(whole.cost[new][rows, arms].mean()),
            )
            for arms in taken
        ]
        quality, cost = (a + share * (b - a) for a, b in zip(*means, strict=True))
        return {"quality": quality, "spend": cost / budget}

    def rows(self, seeds: int) -> Iterator[Row]:
        """Yield a row for each policy and budget, as far as its cells are known."""
        table = self.pair.table
        q, c = table.quality.mean(axis=0), table.cost.mean(axis=0)
        for label, budget in self.budgets.items():
            hull = bounds.hull(q, c, budget)
            found = {
                name: [
                    self.cells.known(f"{table.name}|{label}|{name}|{seed}") for seed in range(seeds)
                ]
                for name in self.names
            }
            ours = found[self.names[0]]
            for name, cells in found.items():
                both = [(a, b) for a, b in zip(cells, ours, strict=True) if a and b]
                if not both:
                    continue
                quality = [a["quality"] for a, _ in both]
                ahead = [a["quality"] - b["quality"] for a, b in both]
                spend = [a["spend"] for a, _ in both]
                yield {
                    "table": table.name,
                    "budget": label,
                    "policy": TRAINED.get(name, name),
                    "seeds": len(both),
                    "quality": float(np.mean(quality)),
                    "hull": hull,
                    "over_hull": float(np.mean(quality)) - hull,
                    "plus_minus": interval(quality),
                    "ahead": float(np.mean(ahead)),
                    "ahead_plus_minus": interval(ahead),
                    "spend": float(np.mean(spend)),
                    "spend_worst": max(spend),
                }


def told(record: Record) -> dict[str, float]:
    """Return the quality and the spend of a record."""
    return {"quality": float(record.quality.mean()), "spend": record.spend}
