"""Tables of what every arm would have answered and cost, for every request.

Two forms: JSON lines `{"id", "group", "prompt", "q": {arm: score}, "c": {arm: dollars}}` (a list of
numbers `x` may stand beside or in the place of the prompt), and CSV with columns
`<arm>.pred,<arm>.conf,<arm>.correct` and `true`, its prices in a `prices.csv` beside it (task,
model, usd_per_call). A policy under test is shown only what the arm it chose did.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TOKENS_USD = (0.24e-6, 24.7e-6)
"""Dollars per token, a quarter of the characters, of the weak and the strong of two arms whose
table tells no costs: what Mixtral-8x7B and GPT-4-1106 cost (RouteLLM, arXiv 2406.18665)."""


class NotATable(ValueError):  # noqa: N818 - reads as what happened
    """A file that has neither form; the message says why."""


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
    numbers: np.ndarray | None = None
    said: np.ndarray | None = None
    sure: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.quality)

    @property
    def has_context(self) -> bool:
        """Whether a request says anything before it is answered."""
        return self.texts is not None or self.numbers is not None

    def followed_by(self, other: "Table") -> "Table":
        """Return this table and then another of the same arms, under the other's name."""
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
    """Load a table of either form; NotATable says why a file is none."""
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
    """Return what two arms without a price would cost by the token."""
    if quality.shape[1] != 2 or texts is None:
        raise NotATable('no "c": {arm: dollars}, which only a table of two arms and texts may lack')
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
    """Return the arms' prices: of the table's own task, else of any that all tasks agree on."""
    beside = path.with_name("prices.csv")
    if not beside.exists():
        raise NotATable("no prices.csv beside it")
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
    if not (quality.min() >= 0.0 and quality.max() <= 1.0):
        raise NotATable("scores outside [0, 1]")
    if not (cost.min() >= 0.0 and np.isfinite(cost).all()):
        raise NotATable("costs that are negative or not finite")
    return table


@dataclass
class Pair:
    """A table to measure on, and the one that is streamed before it, if any."""

    table: Table
    warm: Table | None


def discover(folder: Path) -> tuple[dict[str, Table], dict[Path, str]]:
    """Return the tables of a folder's tree by name, and by path why the other files are none."""
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
        # Two folders may have a test table each: the later one is called by its folder too.
        if table.name in found:
            table.name = f"{path.parent.name}/{path.stem}"
        found[table.name] = table
    return found, others


def paired(tables: Iterable[Table]) -> list[Pair]:
    """Return the tables with a context to measure on: a `test` after the `val` of its folder."""
    by_name = {table.name: table for table in tables if table.has_context}
    pairs, spent = [], set()
    for name, table in by_name.items():
        warm = by_name.get(name[: -len("test")] + "val") if name.endswith("test") else None
        if warm is not None and warm.arms == table.arms:
            pairs.append(Pair(table, warm))
            spent |= {name, warm.name}
    return pairs + [Pair(table, None) for name, table in by_name.items() if name not in spent]
