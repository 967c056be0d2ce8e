"""Checks whether a replay's intervals contain the truth, on logs drawn from fully known tables.

    python benchmarks/replay.py --data DIR [--logs 1000] [--json FILE]
    python benchmarks/replay.py --data DIR --logged FILE...

A production policy draws logs from each table, each with newly drawn requests, and learns while it
does. From each log twenty other policies are estimated: every arm, mixes, rules on the context.
Their true values are known from the table. The output has the share of intervals that contain the
truth, their width, the share without an estimate, and how many policies would have been promoted
(the interval of the gain over the logged policy is above 0) although they are no better. `normal`
is 1.96 standard errors.

`--logged` loads feedback that was logged elsewhere (files of the Open Bandit Dataset, with their
propensities, or any file that `tollway simulate replay` reads) and reports how many arms can be
estimated from it.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from choosing.tables import Table, discover

from tollway.policies.registry import build
from tollway.policies.types import Arm, Context, Objective
from tollway.simulations.replay import log_files
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.estimators import ESS_MIN, Refused
from tollway.simulations.replay.logs import Log
from tollway.simulations.replay.replay import Options, Replay, fixed
from tollway.simulations.replay.scratch import Scratch

METHODS = ("bernstein", "betting", "normal")
GROUPS_MAX = 10  # groups of a table that a context distinguishes; the rest are one group


@dataclass(frozen=True, slots=True)
class Asked:
    """A policy to estimate: probabilities of arms by group (groups x arms)."""

    name: str
    by_group: np.ndarray


def grouped(table: Table) -> np.ndarray:
    """Return each request's group as a number; rare groups share one."""
    names, counts = np.unique(table.groups, return_counts=True)
    common = names[np.argsort(-counts)][: GROUPS_MAX - 1].tolist()
    place = {name: at for at, name in enumerate(common)}
    return np.array([place.get(name, GROUPS_MAX - 1) for name in table.groups])


def policies(table: Table, groups: np.ndarray) -> list[Asked]:
    """Return twenty policies: each arm, mixes, the best by group at several prices, rules."""
    arms, rng = len(table.arms), np.random.default_rng(0)
    found = [Asked(name, _all(np.eye(arms)[at])) for at, name in enumerate(table.arms)]
    found.append(Asked("evenly", _all(np.full(arms, 1 / arms))))
    for number in range(5):
        found.append(Asked(f"mix {number}", _all(rng.dirichlet(np.ones(arms)))))
    means = np.zeros((GROUPS_MAX, arms))
    for group in range(GROUPS_MAX):
        rows = groups == group
        means[group] = table.quality[rows].mean(axis=0) if rows.any() else 0.0
    mean_usd = table.cost.mean(axis=0)
    for share in (0.0, 0.02, 0.1, 0.5):
        best = (means - share * mean_usd / mean_usd.max()).argmax(axis=1)
        found.append(Asked(f"by group at price {share}", np.eye(arms)[best]))
    while len(found) < 20:
        rule = np.eye(arms)[rng.integers(0, arms, GROUPS_MAX)]
        found.append(Asked(f"rule {len(found)}", 0.9 * rule + 0.1 / arms))
    return found


def _all(row: np.ndarray) -> np.ndarray:
    return np.tile(row, (GROUPS_MAX, 1))


def draw(
    table: Table, groups: np.ndarray, requests: int, seed: int, p_min: float
) -> tuple[Log, np.ndarray]:
    """Return a log that a learning policy drew, and the table's row of each request."""
    rng, own = np.random.default_rng(seed), Random(seed)
    order = rng.integers(0, len(table), requests)
    mean_usd = table.cost.mean(axis=0)
    policy = build(
        "lagrangian",
        Objective(),
        options={"p_min": p_min, "explore_share": 1.0} if p_min else {},
        seed=seed,
    )
    paid = mean_usd[mean_usd > 0.0]  # a free arm leaves nothing to explore the others with
    policy.pace(float(np.sqrt(paid.min() * paid.max())))
    shapes = requests, len(table.arms)
    pmf, arm = np.empty(shapes), np.empty(requests, int)
    arms = [Arm(name, float(usd)) for name, usd in zip(table.arms, mean_usd, strict=True)]
    kinds = [Context(tuple(float(at == group) for at in range(GROUPS_MAX))) for group in range(10)]
    contexts = [kinds[groups[row]] for row in order]
    for t, row in enumerate(order):
        choice = policy.choose(contexts[t], arms, own)
        pmf[t], arm[t] = choice.pmf, choice.index
        policy.charge(choice, float(table.cost[row, choice.index]))
        policy.learn(contexts[t], choice, choice.arm, float(table.quality[row, choice.index]))
        if policy.resolve_due():
            policy.resolve()
    rows, at = np.arange(requests), np.arange(requests, dtype=float)
    quality, cost = table.quality[order, arm], table.cost[order, arm]
    log = Log(
        arms=tuple(table.arms),
        time=at,
        arm=arm,
        pmf=pmf,
        offered=np.ones(shapes, bool),
        propensity=pmf[rows, arm],
        quality=quality,
        cost_usd=cost,
        latency_s=np.zeros(requests),
        cost_hat_usd=np.tile(mean_usd, (requests, 1)),
        taught_s=at,
        final_quality=quality,
        total_usd=cost,
        keeping=np.ones(requests),
        features=tuple(contexts),
    )
    return log, order


def study(
    table: Table, requests: int, p_min: float, seeds: Sequence[int]
) -> list[dict[str, object]]:
    """Return the estimate of every policy from each log, with the truth."""
    groups, found = grouped(table), []
    asked = policies(table, groups)
    for seed in seeds:
        log, order = draw(table, groups, requests, seed, p_min)
        most = Options(cost_max_usd=float(table.cost.max()))
        replay = Replay(log, most)
        was = log.pmf * table.quality[order]
        for one in asked:
            target = one.by_group[groups[order]]
            truth = float((one.by_group[groups] * table.quality).sum(axis=1).mean())
            # The gain is measured on the log's own requests.
            gain = float((target * table.quality[order] - was).sum(axis=1).mean())
            paid = float((one.by_group[groups] * table.cost).sum(axis=1).mean())
            for method in METHODS:
                replay.options = replace(most, method=method)
                outcome = replay.outcome(one.name, target)
                row: dict[str, object] = {"table": table.name, "p_min": p_min, "method": method}
                row |= {"policy": one.name, "seed": seed, "ess": outcome.quality.ess}
                for what, answer, true in (
                    ("quality", outcome.quality, truth),
                    ("cost", outcome.cost_usd, paid),
                    ("gain", outcome.quality_gain, gain),
                ):
                    if not isinstance(answer, Refused):
                        scale = float(table.cost.max()) if what == "cost" else 1.0
                        row[what] = (answer.low / scale, answer.high / scale, true / scale)
                found.append(row)
    return found


def summary(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return coverage, width and promotions by table, exploration and method."""
    groups: dict[tuple[object, ...], list[dict[str, object]]] = defaultdict(list)
    for row in rows:
        groups[row["table"], row["p_min"], row["method"]].append(row)
    return [{**dict(zip(("table", "p_min", "method"), key, strict=True)), **_count(some)}
            for key, some in groups.items()]  # fmt: skip


def _count(rows: list[dict[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {"asked": len(rows)}
    for what in ("quality", "cost", "gain"):
        ends = np.array([row[what] for row in rows if what in row])
        if len(ends):
            low, high, true = ends.T
            slack = 1e-9  # a cost that is known exactly has an interval of no width
            found[f"{what}_covered"] = float(
                ((low <= true + slack) & (true <= high + slack)).mean()
            )
            found[f"{what}_width"] = float(np.median(high - low))
        if what == "gain" and len(ends):
            found["promoted"] = int((low > 0).sum())
            found["wrongly"] = int(((low > 0) & (true <= 0)).sum())
    found["answered_below_ess"] = sum(
        "quality" in row and row["ess"] < ESS_MIN
        for row in rows  # type: ignore[operator]
    )
    found["no_answer"] = sum("quality" not in row for row in rows) / len(rows)
    worst = defaultdict(list)
    for row in rows:
        if "quality" in row:
            low, high, true = row["quality"]  # type: ignore[misc]
            worst[row["policy"]].append(low <= true <= high)
    often = [float(np.mean(held)) for held in worst.values() if len(held) >= 100]
    found["worst_policy"] = min(often, default=None)
    return found


def loaded(path: Path) -> str:
    """Return a sentence on the arms that a file of logged feedback supports."""
    scratch = Scratch()
    log = log_files.read(path, scratch, Columns())
    replay = Replay(log)
    answers = [replay.ask(target).quality for target in fixed(log)]
    known = [one for one in answers if not isinstance(one, Refused)]
    line = (
        f"{path.name}: {len(log):,} decisions, {len(log.arms)} arms, {log.quality.sum():.0f} times "
        f"right, propensities {log.propensity.min():.3g} to {log.propensity.max():.3g}; "
        f"{len(known)} arms estimated, {len(answers) - len(known)} refused"
    )
    if known:
        width = float(np.median([one.high - one.low for one in known]))
        mean = float(np.mean([one.value for one in known]))
        line += f"; their mean {mean:.4f} (logged {log.quality.mean():.4f}), width {width:.4f}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of tables")
    parser.add_argument(
        "--tables", nargs="+", default=["test"], help="names of tables (%(default)s)"
    )
    parser.add_argument("--logs", type=int, default=1000, help="logs of each table (%(default)s)")
    parser.add_argument(
        "--requests", type=int, default=2000, help="requests in each log (%(default)s)"
    )
    parser.add_argument("--p-min", type=float, nargs="+", default=[0.1, 0.02, 0.0])
    parser.add_argument("--workers", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--logged", type=Path, nargs="+", help="files of logged feedback, below DIR"
    )
    args = parser.parse_args()
    if args.logged:
        print(*(loaded(args.data / path) for path in args.logged), sep="\n")
        return
    tables, _ = discover(args.data)
    started, rows = time.perf_counter(), []
    with ProcessPoolExecutor(args.workers) as pool:
        jobs = [
            pool.submit(
                study, tables[name], args.requests, p_min, range(at, min(at + 25, args.logs))
            )
            for name in args.tables
            for p_min in args.p_min
            for at in range(0, args.logs, 25)
        ]
        for job in jobs:
            rows += job.result()
    found = summary(rows)
    for row in found:
        print(
            f"{row['table']:12} p_min {row['p_min']:<5} {row['method']:9} no estimate "
            f"{row['no_answer']:6.1%}  worst policy {row['worst_policy']}"
        )
        for what in ("quality", "cost", "gain"):
            if f"{what}_covered" in row:
                covered, width = row[f"{what}_covered"], row[f"{what}_width"]
                print(f"    {what:8} covered {covered:6.2%}   median width {width:.4f}")
        print(f"    promoted {row.get('promoted')}, wrongly {row.get('wrongly')} of {row['asked']}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    print(f"{args.logs} logs of {args.requests} requests; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
