"""The studies of the routing benchmark: each streams tables and returns rows of figures."""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from choosing import bounds, cascades, rivals, stream, tables
from choosing.stream import Record, World
from choosing.tables import Table
from gateway.context import Encoder
from policies.registry import build
from policies.types import Arm, Context, Objective

Row = dict[str, object]

PUBLISHED = (0.793, 0.813, 0.859, 0.898, 0.917, 0.924, 0.929)
"""ParetoBandit's published mean quality on its test table, by budget (arXiv 2604.00136)."""

PUBLISHED_DRIFT = {
    ("price cut", 3.0e-4): (0.862, 0.933, 0.854),
    ("price cut", 6.6e-4): (0.882, 0.926, 0.891),
    ("price cut", 1.9e-3): (0.909, 0.928, 0.912),
    ("degraded", 3.0e-4): (0.863, 0.800, 0.819),
    ("degraded", 6.6e-4): (0.885, 0.795, 0.863),
    ("degraded", 1.9e-3): (0.910, 0.794, 0.898),
}


def interval(values: list[float]) -> float:
    """Return half the width of a 95 % interval of the mean over seeds."""
    return float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


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
        "hull": hull,
        "over_hull": mean - hull,
        "group": bounds.group(table.quality, table.cost, table.groups, budget),
        "clairvoyant": top,
        "share_of_gain": (mean - hull) / (top - hull) if top > hull else float("nan"),
        "spend": float(np.mean(spend)),
        "spend_worst_seed": max(spend),
        "spend_worst_window": max(record.worst_window() for record in records),
        "learning_usd": float(np.mean([record.explored_usd for record in records])),
    }


def budgets_of(table: Table, count: int = 7) -> np.ndarray:
    """Return budgets, geometric from the cheapest to the dearest arm's mean."""
    means = table.cost.mean(axis=0)
    return np.geomspace(means.min(), means.max(), count)


def joined(first: Table, second: Table) -> Table:
    """Return two tables of the same arms, one after the other."""
    assert first.arms == second.arms
    assert first.texts is not None
    assert second.texts is not None
    return Table(
        second.name,
        first.arms,
        np.concatenate([first.quality, second.quality]),
        np.concatenate([first.cost, second.cost]),
        np.concatenate([first.groups, second.groups]),
        first.texts + second.texts,
    )


def curves(
    table: Table,
    warm: Table | None,
    names: list[str],
    seeds: int,
    python: Path | None,
    budgets: np.ndarray | None = None,
) -> list[Row]:
    """Quality by budget; streamed after `warm`, or measured on the second half of the stream."""
    whole = joined(warm, table) if warm is not None else table
    start = len(warm) if warm is not None else len(table) // 2
    contexts = stream.encode(whole)
    list_usd = (warm or table).cost.mean(axis=0)
    chosen = budgets_of(warm or table) if budgets is None else budgets
    orders = np.array([_order(seed, len(warm) if warm else 0, len(whole)) for seed in range(seeds)])
    rows = []
    for name in names:
        for budget in chosen.tolist():
            records = [
                stream.run(
                    rivals.make(name, seed), contexts, whole, order, list_usd, budget, seed
                ).after(start)
                for seed, order in enumerate(orders)
            ]
            rows.append({"policy": name, **summary(records, table, budget)})
    if python is not None:
        features = _features(contexts)
        taken = rivals.paretobandit(python, whole, features, orders, chosen.tolist(), list_usd)
        for b, budget in enumerate(chosen.tolist()):
            records = [
                Record(whole.quality[order, arms], whole.cost[order, arms], arms, budget).after(
                    start
                )
                for order, arms in zip(orders, taken[b], strict=True)
            ]
            rows.append({"policy": "paretobandit", **summary(records, table, budget)})
    return rows


def _order(seed: int, warm: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(warm), warm + rng.permutation(count - warm)])


def _features(contexts: list[Context]) -> np.ndarray:
    """Return the exact features that the ridge head sees, without its constant."""
    from policies.heads.ridge import RidgeHead  # noqa: PLC0415 - the one look inside a head

    head = RidgeHead()
    return np.array([head._features(context)[1:] for context in contexts])


def floors(table: Table, warm: Table, seeds: int, wanted: list[float]) -> list[Row]:
    """Cost of holding a floor, against the hull's; streamed after `warm`."""
    whole = joined(warm, table)
    contexts = stream.encode(whole)
    list_usd = warm.cost.mean(axis=0)
    quality, cost = table.quality.mean(axis=0), table.cost.mean(axis=0)
    rows = []
    for floor in wanted:
        # The baseline that an operator would declare: the cheapest arm known to hold the floor.
        holding = np.flatnonzero(warm.quality.mean(axis=0) >= floor)
        objective = Objective("min_cost", floor=floor, baseline=table.arms[int(holding[0])])
        records = [
            stream.run(
                build("lagrangian", objective, options={}, seed=seed),
                contexts,
                whole,
                _order(seed, len(warm), len(whole)),
                list_usd,
                None,
                seed,
            ).after(len(warm))
            for seed in range(seeds)
        ]
        below = [
            float((np.convolve(r.quality, np.ones(500) / 500, "valid") < floor - 0.01).mean())
            for r in records
        ]
        spent = float(np.mean([r.cost.mean() for r in records]))
        hull_usd = bounds.hull_cost(quality, cost, floor)
        rows.append(
            {
                "table": table.name,
                "floor": floor,
                "quality": float(np.mean([r.quality.mean() for r in records])),
                "windows_below": float(np.mean(below)),
                "cost_usd": spent,
                "hull_usd": hull_usd,
                "saving": 1 - spent / hull_usd,
            }
        )
    return rows


def drift(table: Table, seeds: int) -> list[Row]:
    """ParetoBandit's scenarios: three phases of 608 requests, the second one changed."""
    contexts, list_usd = stream.encode(table), table.cost.mean(axis=0)
    size = len(table) // 3
    middle, dear = 1, len(table.arms) - 1
    factor = 0.75 / table.quality[:, middle].mean()

    def cut(t: int, arm: int) -> float:
        return 0.01 if arm == dear and size <= t < 2 * size else 1.0

    def degraded(t: int, quality: np.ndarray) -> np.ndarray:
        if not size <= t < 2 * size:
            return quality
        worse = quality.copy()
        worse[middle] *= factor
        return worse

    worlds = {
        "price cut": World(price=cut),
        "price cut, silent": World(price=cut, announced=False),
        "degraded": World(quality=degraded),
    }
    rows = []
    for name, world in worlds.items():
        for budget in (3.0e-4, 6.6e-4, 1.9e-3):
            records = [
                stream.run(
                    rivals.make("lagrangian", seed),
                    contexts,
                    table,
                    _order(seed, 0, len(table)),
                    list_usd,
                    budget,
                    seed,
                    world,
                )
                for seed in range(seeds)
            ]
            phases = [[r.between(k * size, (k + 1) * size) for r in records] for k in range(3)]
            rows.append(
                {
                    "scenario": name,
                    "budget_usd": budget,
                    "quality": [float(np.mean([r.quality.mean() for r in p])) for p in phases],
                    "spend": [float(np.mean([r.spend for r in p])) for p in phases],
                    "paretobandit_published": PUBLISHED_DRIFT.get((name, budget)),
                }
            )
    return rows


def newcomer(table: Table, seeds: int) -> list[Row]:
    """A fourth arm comes after a third of the stream: when is it first 5 % of 100 requests?"""
    contexts, list_usd = stream.encode(table), table.cost.mean(axis=0)
    size, new = len(table) // 3, 2
    rows = []
    for budget in (1.0e-3, 3.0e-3, 6.0e-3):
        steps, late = [], []
        for seed in range(seeds):
            world = World(up=lambda t, arm: arm != new or t >= size)
            record = stream.run(
                rivals.make("lagrangian", seed),
                contexts,
                table,
                _order(seed, 0, len(table)),
                list_usd,
                budget,
                seed,
                world,
            )
            after = record.arm[size:] == new
            share = np.convolve(after, np.ones(100) / 100, "valid")
            reached = np.flatnonzero(share >= 0.05)
            steps.append(float(reached[0] + 100) if len(reached) else float("inf"))
            late.append(float(after[-size:].mean()))
        rows.append(
            {
                "arm": table.arms[new],
                "budget_usd": budget,
                "requests_until_5_percent": float(np.median(steps)),
                "share_at_the_end": float(np.mean(late)),
            }
        )
    return rows


def cascade(table: Table, seeds: int, shares: list[float], labelled: float = 1.0) -> list[Row]:
    """Second half of a cascade's stream, at shares of the best single service's price."""
    quality, cost = table.quality.mean(axis=0), table.cost.mean(axis=0)
    best = int(quality.argmax())
    rows = []
    for share in shares:
        budget = float(cost[best] * share)
        records = []
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(table))
            policy = build("cascade", Objective(), options={}, seed=seed)
            record = cascades.run(policy, table, order, budget, seed, labelled)
            records.append(record.after(len(table) // 2))
        figures = summary(records, table, budget)
        rows.append(
            {
                "share_of_price": share,
                "best_service": float(quality[best]),
                "over_best": float(figures["quality"]) - float(quality[best]),  # type: ignore[arg-type]
                **figures,
            }
        )
    return rows


def llmdrift(path: Path, seeds: int) -> list[Row]:
    """March, then June, task by task, over the tasks' questions that all four versions answered."""
    import json  # noqa: PLC0415 - its own form of table

    with path.open() as file:
        raw = [json.loads(line) for line in file]
    rows = []
    for task in sorted({row["task"] for row in raw}):
        versions = sorted({row["model"] for row in raw if row["task"] == task})
        by: dict[str, dict[str, dict[str, float]]] = {version: {} for version in versions}
        for row in raw:
            if row["task"] == task:
                by[row["model"]][row["prompt"]] = row
        prompts = sorted(set.intersection(*(set(table) for table in by.values())))
        march = sorted(v for v in versions if v.endswith(("0301", "0314")))
        june = sorted(v for v in versions if v.endswith("0613"))
        if len(prompts) < 100 or len(march) != 2 or len(june) != 2:
            continue
        rows.append(
            _two_times(
                task,
                [[by[v][p] for v in march] for p in prompts],
                [[by[v][p] for v in june] for p in prompts],
                prompts,
                seeds,
            )
        )
    return rows


def _two_times(
    task: str,
    before: list[list[dict[str, float]]],
    after: list[list[dict[str, float]]],
    prompts: list[str],
    seeds: int,
) -> Row:
    names = ["gpt-3.5", "gpt-4"]
    both = before + after
    table = Table(
        task,
        names,
        np.array([[float(row["correct"]) for row in pair] for pair in both]),
        np.array([[float(row["cost"]) for row in pair] for pair in both]),
        np.array(["all"] * len(both)),
        prompts + prompts,
    )
    half = len(prompts)
    # Each time is streamed twice over, in another order: 300 labels must be possible.
    contexts, list_usd = stream.encode(table), table.cost[:half].mean(axis=0)
    found, late, best = [], [], float(table.quality[half:].mean(axis=0).max())
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = np.concatenate(
            [
                rng.permutation(half),
                rng.permutation(half),
                half + rng.permutation(half),
                half + rng.permutation(half),
            ]
        )
        policy = rivals.make("lagrangian", seed)
        record = stream.run(policy, contexts, table, order, list_usd, None, seed)
        changed = record.between(2 * half, 4 * half)
        mean = np.convolve(changed.quality, np.ones(100) / 100, "valid")
        ok = np.flatnonzero(mean >= best - 0.02)
        found.append(float(ok[0] + 100) if len(ok) else float("inf"))
        late.append(float(changed.quality[300:].mean()))
    return {
        "task": task,
        "requests": half,
        "march": table.quality[:half].mean(axis=0).tolist(),
        "june": table.quality[half:].mean(axis=0).tolist(),
        "requests_until_recovered": float(np.median(found)),
        "quality_after_300": float(np.mean(late)),
        "best_arm_in_june": best,
    }


def speed() -> list[Row]:
    """Median microseconds of a decision and of an update, on one core."""
    rng = Random(0)
    words = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(2000)]
    rows = []
    for head in ("ridge", "vowpal"):
        for label, arms, texts in (
            ("20 numbers", 3, 0),
            ("20 numbers", 10, 0),
            ("200 words", 3, 200),
        ):
            encoder = Encoder((0.0, 1.0))
            offered = [Arm(f"arm{at}", 1e-4 * (at + 1)) for at in range(arms)]
            policy = build("lagrangian", Objective(), options={"head": head}, seed=0)
            policy.pace(2e-4)
            numbers = [[rng.random() for _ in range(20)] for _ in range(3000)]
            said = [[" ".join(rng.choices(words, k=texts))] if texts else [] for _ in range(3000)]

            def encode(at: int, encoder: Encoder = encoder) -> Context:
                return encoder.encode([] if said[at] else numbers[at], said[at])  # noqa: B023

            contexts = [encode(at) for at in range(3000)]
            draws = Random(1)
            choices = [policy.choose(context, offered, draws) for context in contexts[:500]]
            for at in range(500):
                policy.learn(contexts[at], choices[at], choices[at].arm, rng.random())
            policy.resolve()
            fresh = [encode(at) for at in range(500, 3000)]
            decide = _median(lambda at: policy.choose(fresh[at], offered, draws), 2500)  # noqa: B023
            late = [Context(c.dense, c.sparse) for c in contexts[:500]]
            update = _median(
                lambda at: policy.learn(late[at], choices[at], choices[at].arm, 0.5),  # noqa: B023
                500,
            )
            rows.append(
                {
                    "head": head,
                    "context": label,
                    "arms": arms,
                    "encode_us": _median(encode, 2500),
                    "decide_us": decide,
                    "update_us": update,
                    "resolve_us": _median(lambda at: policy.resolve(), 50),  # noqa: B023
                }
            )
    return rows


def _median(call: Callable[[int], object], count: int) -> float:
    taken = []
    for at in range(count):
        started = time.perf_counter_ns()
        call(at)
        taken.append(time.perf_counter_ns() - started)
    return float(np.median(taken)) / 1e3


def load_folder(folder: Path) -> dict[str, Table]:
    """Return every table of a folder's tree that has one of the two forms, by its stem."""
    found = {}
    for path in sorted(folder.rglob("*.jsonl")):
        if path.parent.name != "llmdrift":
            found[path.stem] = tables.load(path)
    for path in sorted(folder.rglob("*.csv")):
        if (path.parent / "prices.csv").exists() and path.stem != "prices":
            found[path.stem] = tables.load(path)
    return found


def scarce(table: Table, warm: Table, seeds: int, labelled: float = 0.01) -> list[Row]:
    """Quality by budget where one answer in a hundred is ever judged; streamed after `warm`."""
    whole = joined(warm, table)
    contexts, list_usd = stream.encode(whole), warm.cost.mean(axis=0)
    rows = []
    for budget in budgets_of(warm)[1:6].tolist():
        records = [
            stream.run(
                rivals.make("lagrangian", seed),
                contexts,
                whole,
                _order(seed, len(warm), len(whole)),
                list_usd,
                budget,
                seed,
                World(labelled=labelled),
            ).after(len(warm))
            for seed in range(seeds)
        ]
        rows.append({"labelled": labelled, **summary(records, table, budget)})
    return rows
