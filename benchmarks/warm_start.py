"""Measures how many requests of a cold bandit a warm-up is worth, on a table of all answers.

    python benchmarks/warm_start.py --data DIR/paretobandit            # val.jsonl and test.jsonl
    python benchmarks/warm_start.py --data DIR/paretobandit --seeds 3 --json warm_start.json

The policy is the gateway's own. It is started in one of three ways, and then streams `test` at one
of three budgets, learning as it goes:

    cold       untrained
    bandit N   after N requests of `val`, of which it saw the answer of the backend that it drew
    warm-up N  after N prompts of `val`, of which every backend's answer was scored

What a start is worth shows at the beginning, so the table has the first 500 requests apart. Streams
of one seed have the same order.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from random import Random  # noqa: E402

import numpy as np  # noqa: E402
from choosing import bounds  # noqa: E402
from choosing.figures import budgets_of  # noqa: E402
from choosing.stream import encode, run  # noqa: E402
from choosing.tables import Table, load  # noqa: E402

from tollway.policies.registry import build  # noqa: E402
from tollway.policies.types import WARM_UP, Arm, Choice, Context, Objective, Policy  # noqa: E402

FIRST = 500
BANDIT, WARM = (300, 600, 1200, 1785), (100, 300)


def warm_up(
    policy: Policy, contexts: list[Context], table: Table, rows: np.ndarray, list_usd: np.ndarray
) -> None:
    """Teach every backend's answer, as the gateway does with a warm-up's feedback."""
    arms = [Arm(name, float(usd)) for name, usd in zip(table.arms, list_usd, strict=True)]
    count, rng = len(arms), Random(0)
    for row in rows.tolist():
        drawn = policy.choose(contexts[row], arms, rng)
        for at, name in enumerate(drawn.arms):
            choice = Choice(
                drawn.arms,
                (1.0 / count,) * count,
                at,
                drawn.quality_hat,
                drawn.cost_hat_usd,
                drawn.shadow_price,
                WARM_UP,
                drawn.version,
            )
            policy.learn(contexts[row], choice, name, float(table.quality[row, at]))
        if policy.resolve_due():
            policy.resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    val, test = load(arguments.data / "val.jsonl"), load(arguments.data / "test.jsonl")
    both = val.followed_by(test)
    contexts, ahead = encode(both), len(val)
    budgets = budgets_of(val)[1:4].tolist()
    list_usd = val.cost.mean(axis=0)
    ways = [("cold", 0), *(("bandit", n) for n in BANDIT), *(("warm-up", n) for n in WARM)]
    rows = []
    quality, cost = test.quality.mean(axis=0), test.cost.mean(axis=0)
    print("| start | budget, $ | first 500, over the hull | all, over the hull | spend |")
    print("|---|---|---|---|---|")
    for way, count in ways:
        mean: list[tuple[float, float]] = []
        for budget in budgets:
            early, whole, spend = [], [], []
            for seed in range(arguments.seeds):
                rng = np.random.default_rng(seed)
                order = ahead + rng.permutation(len(test))
                before = rng.permutation(ahead)[:count]
                policy = build("lagrangian", Objective(), options={}, seed=seed)
                if way == "bandit":
                    run(policy, contexts, both, before, list_usd, budget, seed)
                elif way == "warm-up":
                    warm_up(policy, contexts, both, before, list_usd)
                record = run(policy, contexts, both, order, list_usd, budget, seed)
                early.append(float(record.quality[:FIRST].mean()))
                whole.append(float(record.quality.mean()))
                spend.append(record.spend)
            hull = bounds.hull(quality, cost, budget)
            row = {
                "start": way,
                "requests": count,
                "budget_usd": budget,
                "first": float(np.mean(early)) - hull,
                "all": float(np.mean(whole)) - hull,
                "spend": float(np.mean(spend)),
            }
            rows.append(row)
            mean.append((row["first"], row["all"]))
            print(
                f"| {way} {count or ''} | {budget:.2e} | {row['first']:+.4f} | {row['all']:+.4f} "
                f"| {row['spend']:.2f} |",
                flush=True,
            )
        early_mean, all_mean = np.mean(mean, axis=0)
        print(f"| {way} {count or ''} | mean | {early_mean:+.4f} | {all_mean:+.4f} | |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
