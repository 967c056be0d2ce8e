"""Tables of every arm's answer and cost for every request.

Two forms: JSON lines `{"id", "group", "prompt", "q": {arm: score}, "c": {arm: dollars}}` (a list of
numbers `x` may replace the prompt or be given with it), and CSV with columns
`<arm>.pred,<arm>.conf,<arm>.correct` and `true`, with prices in a `prices.csv` in the same folder
(task, model, usd_per_call). A policy under test sees only the result of the arm it chose.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TOKENS_USD = (0.24e-6, 24.7e-6)
"""Dollars per token (a quarter of the characters) of the weak and the strong arm if a table has no
costs: those of Mixtral-8x7B and GPT-4-1106 (RouteLLM, arXiv 2406.18665)."""

CLIPPED_MAX = 0.01
"""The largest share of scores outside [0, 1] that are clipped; above it a file is not a table."""


class NotATable(ValueError):  # noqa: N818 - reads as what happened
    """A file that has neither form; the message says why."""


@dataclass
class Table:
    """`quality` and `cost` are requests x arms, cost in dollars; arms are sorted by mean cost.

    `said` and `sure` are each arm's answer and stated confidence, if a table has them. `clipped` is
    the number of scores that were outside [0, 1] in the file.
    """

    name: str
    arms: list[str]
    quality: np.ndarray
    cost: np.ndarray
    groups: np.ndarray
    texts: list[str] | None = None
    numbers: np.ndarray | None = None
    said: np.ndarray | None = None
    sure: np.ndarray | None = None
    clipped: int = 0

    def __len__(self) -> int:
        return len(self.quality)

    @property
    def has_context(self) -> bool:
        """Whether requests have features before they are answered."""
        return self.texts is not None or self.numbers is not None

    def followed_by(self, other: "Table") -> "Table":
        """Return this table followed by another of the same arms, under the other's name."""
        assert self.arms == other.arms
        texts = None if self.texts is None or other.texts is None else self.texts + other.texts
        numbers = None
        if self.numbers is not None and other.numbers is not None:
            numbers = np.concatenate([self.numbers, other.numbers])
        return Table(
            other.name,
            self.arms,
            np.concatenate([self.quality, other.quality]),
            np.concatenate([self.cost, other.cost]),
            np.concatenate([self.groups, other.groups]),
            texts,
            numbers,
        )


def load(path: Path) -> Table:
    """Load a table of either form; NotATable says why a file is not a table."""
    try:
        return load_csv(path) if path.suffix == ".csv" else load_jsonl(path)
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        if isinstance(exc, NotATable):
            raise
        raise NotATable(f"{type(exc).__name__}: {exc}") from exc


def load_jsonl(path: Path) -> Table:
    with path.open() as file:
        rows = [json.loads(line) for line in file if line.strip()]
    rows = [row for row in rows if not row.get("contaminated")]
    if not rows or "q" not in rows[0]:
        raise NotATable('no rows with "q": {arm: score}')
    arms = sorted(rows[0]["q"])
    quality = np.array([[row["q"][arm] for arm in arms] for row in rows], float)
    texts = [str(row["prompt"]) for row in rows] if "prompt" in rows[0] else None
    if "c" in rows[0]:
        cost = np.array([[row["c"][arm] for arm in arms] for row in rows], float)
    else:
        cost = _by_length(quality, texts)
    order = np.argsort(cost.mean(axis=0), kind="stable")
    return _checked(
        Table(
            path.stem,
            [arms[i] for i in order],
            quality[:, order],
            cost[:, order],
            np.array([str(row.get("group", "")) for row in rows]),
            texts,
            np.array([row["x"] for row in rows], float) if "x" in rows[0] else None,
        )
    )


def _by_length(quality: np.ndarray, texts: list[str] | None) -> np.ndarray:
    """Return the costs of two arms without prices, by the token."""
    if quality.shape[1] != 2 or texts is None:
        raise NotATable('no "c": {arm: dollars}; only a table of two arms and prompts may omit it')
    tokens = np.array([len(text) / 4 for text in texts])
    weak, strong = TOKENS_USD
    ascending = quality[:, 0].mean() <= quality[:, 1].mean()
    return tokens[:, None] * np.array([weak, strong] if ascending else [strong, weak])


def load_csv(path: Path) -> Table:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    found = [key.removesuffix(".correct") for key in rows[0] if key.endswith(".correct")]
    if not found:
        raise NotATable("no columns <arm>.correct")
    prices = _prices(path, found)
    arms = sorted(found, key=prices.__getitem__)
    said = np.array([[row[f"{arm}.pred"] for arm in arms] for row in rows])
    sure = np.array([[float(row[f"{arm}.conf"]) for arm in arms] for row in rows])
    groups = np.array(
        [f"{a}|{min(9, int(s * 10))}" for a, s in zip(said[:, 0], sure[:, 0], strict=True)]
    )
    return _checked(
        Table(
            path.stem,
            arms,
            np.array([[float(row[f"{arm}.correct"]) for arm in arms] for row in rows]),
            np.tile([prices[arm] for arm in arms], (len(rows), 1)),
            groups,
            said=said,
            sure=sure,
        )
    )


def _prices(path: Path, arms: list[str]) -> dict[str, float]:
    """Return the arms' prices: those of the table's own task, else those common to all tasks."""
    beside = path.with_name("prices.csv")
    if not beside.exists():
        raise NotATable("no prices.csv in its folder")
    tasks: dict[str, dict[str, float]] = {}
    with beside.open() as file:
        for row in csv.DictReader(file):
            tasks.setdefault(row["task"].upper(), {})[row["model"]] = float(row["usd_per_call"])
    own = tasks.get(path.stem.upper())
    if own is None:
        fitting = [task for task in tasks.values() if task.keys() >= set(arms)]
        if not fitting or any(task[arm] != fitting[0][arm] for task in fitting for arm in arms):
            raise NotATable(f"prices.csv has no task {path.stem.upper()}, nor one price per arm")
        own = fitting[0]
    return {arm: own[arm] for arm in arms}


def _checked(table: Table) -> Table:
    quality, cost = table.quality, table.cost
    if not np.isfinite(quality).all():
        raise NotATable("scores that are not finite")
    outside = int(((quality < 0.0) | (quality > 1.0)).sum())
    if outside > CLIPPED_MAX * quality.size:
        raise NotATable(f"{outside} of {quality.size} scores outside [0, 1]")
    if outside:
        # A few scores beyond the scale are a quirk of the judge; many are another scale.
        table.clipped = outside
        table.quality = quality.clip(0.0, 1.0)
    if not (cost.min() >= 0.0 and np.isfinite(cost).all()):
        raise NotATable("costs that are negative or not finite")
    return table


@dataclass
class Pair:
    """A table to measure on, and the one that is streamed before it, if any."""

    table: Table
    warm: Table | None


def discover(folder: Path) -> tuple[dict[str, Table], dict[Path, str]]:
    """Return the tables of a folder's tree by name, and by path why other files are not tables."""
    found: dict[str, Table] = {}
    others: dict[Path, str] = {}
    for path in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.csv")]):
        if path.name == "prices.csv":
            continue
        try:
            table = load(path)
        except NotATable as exc:
            others[path] = str(exc)
            continue
        # Two folders may each have a test table: the name of the later one includes its folder.
        if table.name in found:
            table.name = f"{path.parent.name}/{path.stem}"
        found[table.name] = table
    return found, others


def paired(tables: Iterable[Table]) -> list[Pair]:
    """Return the tables with a context to measure on; a `test` follows its folder's `val`."""
    by_name = {table.name: table for table in tables if table.has_context}
    pairs, spent = [], set()
    for name, table in by_name.items():
        warm = by_name.get(name[: -len("test")] + "val") if name.endswith("test") else None
        if warm is not None and warm.arms == table.arms:
            pairs.append(Pair(table, warm))
            spent |= {name, warm.name}
    return pairs + [Pair(table, None) for name, table in by_name.items() if name not in spent]
