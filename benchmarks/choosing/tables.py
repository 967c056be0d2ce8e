"""Tables of what every arm would have answered and cost, for every request.

Two forms: JSON lines `{"id", "group", "prompt", "q": {arm: score}, "c": {arm: dollars}}`, and CSV
with columns `<arm>.pred,<arm>.conf,<arm>.correct` and `true`, its prices in a `prices.csv` beside
it (task, model, usd_per_call). A policy under test is shown only what the arm it chose did.
"""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

TOKENS_USD = {"weak": 0.24e-6, "strong": 24.7e-6}
"""Dollars per token, a quarter of the characters, of the two arms of a table without costs."""


@dataclass
class Table:
    """`quality` and `cost` are requests x arms, cost in dollars; arms are sorted by mean cost.

    `said` and `sure` are what each arm answered and how sure it said it was, where a table tells.
    """

    name: str
    arms: list[str]
    quality: np.ndarray
    cost: np.ndarray
    groups: np.ndarray
    texts: list[str] | None = None
    said: np.ndarray | None = None
    sure: np.ndarray | None = None
    meta: dict[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.quality)

    def rows(self, at: np.ndarray) -> "Table":
        """Return some of the requests."""
        return Table(
            self.name,
            self.arms,
            self.quality[at],
            self.cost[at],
            self.groups[at],
            [self.texts[i] for i in at] if self.texts is not None else None,
            self.said[at] if self.said is not None else None,
            self.sure[at] if self.sure is not None else None,
            self.meta,
        )


def load(path: Path) -> Table:
    """Load a table of either form."""
    return load_csv(path) if path.suffix == ".csv" else load_jsonl(path)


def load_jsonl(path: Path) -> Table:
    with path.open() as file:
        rows = [json.loads(line) for line in file]
    rows = [row for row in rows if not row.get("contaminated")]
    arms = sorted(rows[0]["q"])
    quality = np.array([[row["q"][arm] for arm in arms] for row in rows], float)
    if "c" in rows[0]:
        cost = np.array([[row["c"][arm] for arm in arms] for row in rows], float)
    else:
        order = np.argsort(quality.mean(axis=0))
        per_token = np.empty(len(arms))
        per_token[order[0]], per_token[order[-1]] = TOKENS_USD["weak"], TOKENS_USD["strong"]
        tokens = np.array([len(row["prompt"]) / 4 for row in rows])
        cost = tokens[:, None] * per_token
    order = np.argsort(cost.mean(axis=0))
    return Table(
        path.stem,
        [arms[i] for i in order],
        quality[:, order],
        cost[:, order],
        np.array([row["group"] for row in rows]),
        [row["prompt"] for row in rows],
    )


def load_csv(path: Path) -> Table:
    with (path.parent / "prices.csv").open() as file:
        prices = {
            row["model"]: float(row["usd_per_call"])
            for row in csv.DictReader(file)
            if row["task"] == path.stem.upper()
        }
    with path.open() as file:
        rows = list(csv.DictReader(file))
    arms = sorted(prices, key=prices.__getitem__)
    said = np.array([[row[f"{arm}.pred"] for arm in arms] for row in rows])
    sure = np.array([[float(row[f"{arm}.conf"]) for arm in arms] for row in rows])
    groups = np.array(
        [f"{a}|{min(9, int(s * 10))}" for a, s in zip(said[:, 0], sure[:, 0], strict=True)]
    )
    return Table(
        path.stem,
        arms,
        np.array([[float(row[f"{arm}.correct"]) for arm in arms] for row in rows]),
        np.tile([prices[arm] for arm in arms], (len(rows), 1)),
        groups,
        None,
        said,
        sure,
    )
