"""Cascades that weigh a right answer in dollars, compared with thresholds chosen in hindsight.

The yardstick asks the cheapest arm, accepts its reply from one confidence on, and otherwise asks
the best service. Its threshold is the one of the highest value on the measured requests
themselves, so no router can know it.
"""

from collections.abc import Iterator

import numpy as np

from choosing import cascades
from choosing.figures import Effort, Row, interval, seeded
from choosing.stream import Record
from choosing.tables import Table
from tollway.policies.registry import build
from tollway.policies.types import Objective

WORTH = (5.0, 10.0, 20.0)
"""What a right answer is worth, in calls of the best service."""
LENGTH = 6000  # requests, of which the later half is measured


def study(table: Table, effort: Effort) -> Iterator[Row]:
    """Yield quality, saving and value of a cascade, and of the best threshold in hindsight."""
    quality, cost = table.quality.mean(axis=0), table.cost.mean(axis=0)
    best = int(np.lexsort((cost, -quality))[0])
    if best == 0 or not cost[best]:
        return
    length = min(len(table), LENGTH)
    for worth in WORTH:
        usd = worth * float(cost[best])
        found: list[tuple[float, float, float, float]] = []

        def one(seed: int, usd: float = usd) -> Record:
            order = np.random.default_rng(seed).permutation(len(table))[:length]
            policy = build("cascade", Objective("value", value_per_correct_usd=usd), options={},
                           seed=seed)  # fmt: skip
            return cascades.run(policy, table, order, None, seed).after(length // 2)

        records = seeded(effort, f"{table.name}: a right answer is worth {worth:g} calls", one)
        for seed, record in enumerate(records):
            order = np.random.default_rng(seed).permutation(len(table))[:length]
            at = best_threshold(table, order[length // 2 :], best, usd)
            found.append((float(record.quality.mean()), float(record.cost.mean()), *at))
        q, c, q_best, c_best = np.array(found).mean(axis=0).tolist()
        fixed = max((usd * quality - cost).tolist())
        gains = [usd * a - b - fixed for a, b, _, _ in found]
        gain, most = usd * q - c - fixed, usd * q_best - c_best - fixed
        yield {
            "table": table.name,
            "worth_calls": worth,
            "best_service": float(quality[best]),
            "quality": q,
            "saving": 1.0 - c / float(cost[best]),
            "threshold_quality": q_best,
            "threshold_saving": 1.0 - c_best / float(cost[best]),
            "gain_in_calls": gain / float(cost[best]),
            "plus_minus": interval(gains) / float(cost[best]),
            "share_of_gain": gain / most if most > 0.0 else None,
        }


def best_threshold(table: Table, rows: np.ndarray, best: int, usd: float) -> tuple[float, float]:
    """Return (quality, cost) of the threshold on the cheapest arm's confidence of highest value."""
    assert table.sure is not None
    order = rows[np.argsort(-table.sure[rows, 0], kind="stable")]
    accepted = np.concatenate([[0.0], np.cumsum(table.quality[order, 0])])
    asked = table.quality[order, best].sum() - np.concatenate(
        [[0.0], np.cumsum(table.quality[order, best])]
    )
    count = np.arange(len(rows) + 1)
    quality = (accepted + asked) / len(rows)
    cost = table.cost[0, 0] + (1.0 - count / len(rows)) * table.cost[0, best]
    at = int((usd * quality - cost).argmax())
    return float(quality[at]), float(cost[at])
