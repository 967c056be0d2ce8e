"""Measures routing with an embedding of the prompt, without it, and as the policy chooses.

    python benchmarks/embeddings.py --data DIR                     # every table with prompts
    python benchmarks/embeddings.py --data DIR --tables dc mmlu --seeds 3 --rows 5000

Each stream starts cold, and its second half is measured. Of a table with two arms the budgets are
those of mixes with 10, 25, 50 and 75 % of the strong arm, of others the third and the fifth of the
seven of `routing.py`. `--rows` takes a random part of a larger table. Needs the extra `embeddings`.
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402
from choosing import bounds  # noqa: E402
from choosing.figures import budgets_of  # noqa: E402
from choosing.stream import encode, run  # noqa: E402
from choosing.tables import Table, discover  # noqa: E402

from tollway.gateway.features.embedding import StaticEmbedding, load  # noqa: E402
from tollway.policies.registry import build  # noqa: E402
from tollway.policies.types import Context, Objective  # noqa: E402

SETS = ("without", "always", "chosen")
SHARES = (0.1, 0.25, 0.5, 0.75)


def part(table: Table, rows: int) -> Table:
    """Return a random part of a table, the same in every run."""
    if len(table) <= rows:
        return table
    kept = np.random.default_rng(99).permutation(len(table))[:rows]
    assert table.texts is not None
    return replace(
        table,
        quality=table.quality[kept],
        cost=table.cost[kept],
        groups=table.groups[kept],
        texts=[table.texts[row] for row in kept],
        numbers=None if table.numbers is None else table.numbers[kept],
    )


def budgets(table: Table) -> list[float]:
    cost = table.cost.mean(axis=0)
    if len(table.arms) == 2:
        return [float(cost.min() + share * (cost.max() - cost.min())) for share in SHARES]
    seven = budgets_of(table).tolist()
    return [seven[2], seven[4]]


def measured(
    table: Table, contexts: dict[str, list[Context]], name: str, budget: float, seed: int
) -> tuple[float, float, float]:
    """Return quality, spend over budget, and the embedding's final share."""
    policy = build("lagrangian", Objective(), options={}, seed=seed, embedded=name == "chosen")
    order = np.random.default_rng(seed).permutation(len(table))
    list_usd = table.cost.mean(axis=0)
    record = run(policy, contexts[name], table, order, list_usd, budget, seed)
    late = record.after(len(table) // 2)
    share = policy.figures().get("embedding_share", float(name == "always"))
    return float(late.quality.mean()), late.spend, share


def contexts_of(table: Table, embed: StaticEmbedding) -> dict[str, list[Context]]:
    plain = encode(table)
    assert table.texts is not None
    rich = [
        replace(context, dense=context.dense + embed(text))
        for context, text in zip(plain, table.texts, strict=True)
    ]
    return {"without": plain, "always": rich, "chosen": rich}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--model", default="wordllama")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    embed, rows = load(arguments.model), []
    print("| table | budget, $ | without | always | chosen | chosen less without | share |")
    print("|---|---|---|---|---|---|---|")
    tables, _ = discover(arguments.data)
    for table in tables.values():
        if table.texts is None or (arguments.tables and table.name not in arguments.tables):
            continue
        cut = part(table, arguments.rows)
        contexts = contexts_of(cut, embed)
        quality, cost = cut.quality.mean(axis=0), cut.cost.mean(axis=0)
        for budget in budgets(cut):
            hull = bounds.hull(quality, cost, budget)
            over, spend, qualities = {}, {}, {}
            share = 0.0
            for name in SETS:
                each = [
                    measured(cut, contexts, name, budget, seed) for seed in range(arguments.seeds)
                ]
                qualities[name] = np.array([one[0] for one in each])
                over[name] = float(np.mean([one[0] for one in each])) - hull
                spend[name] = float(np.mean([one[1] for one in each]))
                share = float(np.mean([one[2] for one in each]))
            rows.append({"table": table.name, "budget_usd": budget, "over": over, "spend": spend})
            cells = " | ".join(f"{over[name]:+.4f} ({spend[name]:.2f})" for name in SETS)
            gains = qualities["chosen"] - qualities["without"]  # of the same seeds
            gain = f"{gains.mean():+.4f}"
            if len(gains) > 1:
                gain += f" +- {gains.std(ddof=1) / np.sqrt(len(gains)):.4f}"
            print(
                f"| {table.name} | {budget:.2e} | {cells} | {gain} | {share:.2f} |",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
