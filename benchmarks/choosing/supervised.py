"""Yardsticks and rivals that are trained on the first part of a stream and then frozen.

A ridge regression per arm has the same features as the policies. It predicts quality; the choice is
by predicted quality less a shadow price times the request's *true* cost, at the shadow price that
spends the budget on the measured requests themselves. So it is told more than any router can know,
and is printed as a yardstick, not as a rival:

    every arm's label   what all labels of the first part can teach
    one label each      the same, with the label of one arm drawn evenly for each request: as many
                        labels as a policy gets

The rivals are told no more than a router would be: RouteLLM's form of a router (Ong et al. 2024,
arXiv 2406.18665) and FrugalML's (Chen, Zaharia and Zou 2020, arXiv 2006.07512).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from choosing import bounds
from choosing.figures import Effort, Row, interval
from choosing.stream import Record
from choosing.tables import Table

PRIOR = 8.0  # as the ridge head's


def fitted(x: np.ndarray, y: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return predictions for all rows: per arm a ridge regression around the mean of its labels.

    `x` is rows x features, `y` rows x arms, `seen` (rows x arms) marks the labels to learn from.
    """
    x = np.hstack([np.ones((len(x), 1)), x])
    predicted = np.zeros_like(y)
    for arm in range(y.shape[1]):
        rows = np.flatnonzero(seen[:, arm])
        mean = (y[rows, arm].sum() + 0.8) / (len(rows) + 1.0)
        own = x[rows]
        theta = np.linalg.solve(
            own.T @ own + PRIOR * np.eye(x.shape[1]), own.T @ (y[rows, arm] - mean)
        )
        predicted[:, arm] = (mean + x @ theta).clip(0.0, 1.0)
    return predicted


def spending(predicted: np.ndarray, cost: np.ndarray, budget: float) -> tuple[float, float, float]:
    """Return (price, price, share): the two prices at which choices cost the budget on average."""
    rows = np.arange(len(cost))

    def at(price: float) -> float:
        return float(cost[rows, (predicted - price * cost).argmax(axis=1)].mean())

    if at(0.0) <= budget:
        return 0.0, 0.0, 0.0
    low, high = 0.0, 1e3 / max(float(cost.mean()), 1e-12)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) > budget else (low, middle)
    dear, cheap = at(low), at(high)
    return high, low, (budget - cheap) / (dear - cheap) if dear > cheap else 0.0


def yardstick(
    table: Table,
    measured: Table,
    features: np.ndarray,
    orders: Sequence[np.ndarray],
    start: int,
    budgets: Sequence[float],
    effort: Effort,
) -> Iterator[Row]:
    """Yield the yardsticks' rows; a stream's first `start` requests are learned from.

    `measured` is the part of `table` that the hull is taken of.
    """
    for label, every in (("every arm's label", True), ("one label each", False)):
        effort.tell(f"{table.name}: supervised, {label}")
        found: list[list[float]] = [[] for _ in budgets]
        for seed, order in enumerate(orders):
            seen = np.zeros(table.quality.shape, bool)
            known, new = order[:start], order[start:]
            if every:
                seen[known] = True
            else:
                drawn = np.random.default_rng(seed).integers(len(table.arms), size=start)
                seen[known, drawn] = True
            predicted = fitted(features, table.quality, seen)[new]
            quality, cost = table.quality[new], table.cost[new]
            rows = np.arange(len(new))
            for values, budget in zip(found, budgets, strict=True):
                high, low, share = spending(predicted, cost, budget)
                mean = [
                    quality[rows, (predicted - price * cost).argmax(axis=1)].mean()
                    for price in (high, low)
                ]
                values.append(float(mean[0] + share * (mean[1] - mean[0])))
        q, c = measured.quality.mean(axis=0), measured.cost.mean(axis=0)
        for values, budget in zip(found, budgets, strict=True):
            yield {
                "table": measured.name,
                "supervised": label,
                "budget_usd": budget,
                "quality": float(np.mean(values)),
                "plus_minus": interval(values),
                "over_hull": float(np.mean(values)) - bounds.hull(q, c, budget),
            }


def threshold(
    table: Table,
    features: np.ndarray,
    orders: Sequence[np.ndarray],
    start: int,
    budget: float,
) -> list[Record]:
    """Return the records of a router in RouteLLM's form: two arms, and a threshold on a prediction.

    The arms are the two whose mix is the hull at the budget, by the labels of the first part. One
    label is known of each request there, of either arm in turn. The threshold is the quantile of
    the predicted gain at which the first part would have cost the budget; it stays.
    """
    records = []
    for order in orders:
        known, new = order[:start], order[start:]
        low, high, share = best_pair(
            table.quality[known].mean(0), table.cost[known].mean(0), budget
        )
        seen = np.zeros((len(table), 2), bool)
        seen[known[::2], 0] = seen[known[1::2], 1] = True
        predicted = fitted(features, table.quality[:, [low, high]], seen)
        gain = predicted[:, 1] - predicted[:, 0]
        gain += 1e-9 * np.random.default_rng(0).random(len(gain))  # equal gains: some at random
        limit = np.quantile(gain[known], 1.0 - share) if share < 1.0 else -np.inf
        arms = np.where(gain[new] >= limit, high, low) if share > 0.0 else np.full(len(new), low)
        records.append(_record(table, new, arms, budget))
    return records


def best_pair(quality: np.ndarray, cost: np.ndarray, budget: float) -> tuple[int, int, float]:
    """Return the two arms of the best mix at a budget, and the second one's share."""
    count = range(len(quality))
    fitting = [at for at in count if cost[at] <= budget] or [int(cost.argmin())]
    best = max(fitting, key=lambda at: quality[at])
    found, value = (best, best, 0.0), float(quality[best])
    for low in fitting:
        for high in count:
            if cost[high] > budget and cost[high] > cost[low]:
                share = max(budget - float(cost[low]), 0.0) / float(cost[high] - cost[low])
                mixed = float(quality[low] + share * (quality[high] - quality[low]))
                if mixed > value:
                    found, value = (low, high, share), mixed
    return found


def _record(table: Table, rows: np.ndarray, arms: np.ndarray, budget: float) -> Record:
    return Record(
        table.quality[rows, arms],
        table.cost[rows, arms],
        arms,
        budget,
        explored_usd=float("nan"),
        decide_us=float("nan"),
        update_us=float("nan"),
    )


def frugalml(table: Table, orders: Sequence[np.ndarray], start: int, budget: float) -> list[Record]:
    """Return the records of a router in FrugalML's form, for tables with answers and confidences.

    One service is asked first; by its label and the decile of its confidence the reply is accepted
    or another service asked. It knows every service's label of every request of the first part.
    """
    assert table.said is not None
    assert table.sure is not None
    records = []
    for order in orders:
        known, new = order[:start], order[start:]
        best, chosen = -np.inf, None
        for base in range(len(table.arms)):
            steps = np.quantile(table.sure[known, base], np.linspace(0.1, 0.9, 9))
            decile = np.searchsorted(steps, table.sure[:, base], side="right")
            groups = np.char.add(table.said[:, base].astype(str), decile.astype(str))
            cost = table.cost + table.cost[:, [base]]
            cost[:, base] = table.cost[:, base]
            if cost[known, base].mean() > budget:
                continue
            means = _by_group(table.quality, groups, known)
            high, low, share = spending(means[known], cost[known], budget)
            rows = np.arange(len(known))
            taken = [(means[known] - price * cost[known]).argmax(axis=1) for price in (high, low)]
            value = [float(table.quality[known][rows, arms].mean()) for arms in taken]
            worth = value[0] + share * (value[1] - value[0])
            if worth > best:
                best, chosen = worth, (means, cost, high, low, share)
        if chosen is None:  # no service fits the budget
            arms = np.full(len(new), int(table.cost[0].argmin()))
            records.append(_record(table, new, arms, budget))
            continue
        means, cost, high, low, share = chosen
        price = np.where(np.random.default_rng(0).random(len(new)) < share, low, high)
        arms = (means[new] - price[:, None] * cost[new]).argmax(axis=1)
        record = _record(table, new, arms, budget)
        record.cost = cost[new, arms]
        records.append(record)
    return records


def _by_group(quality: np.ndarray, groups: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return for every row the mean quality of its group's known rows, by arm."""
    _, at = np.unique(groups, return_inverse=True)
    count = np.bincount(at[known], minlength=at.max() + 1)
    overall = quality[known].mean(axis=0)
    means = [
        (np.bincount(at[known], quality[known, arm], at.max() + 1) + overall[arm]) / (count + 1.0)
        for arm in range(quality.shape[1])
    ]
    return np.stack(means, axis=1)[at]
