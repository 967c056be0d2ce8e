"""Streams a table of labels and confidences through a cascade, stage by stage, as the router does.

The context of a later stage is the gateway's own (`tollway.gateway.features.reply_features`). A
true label scores every reply that was received, including those that were not accepted.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random

import numpy as np

from choosing import figures, supervised
from choosing.figures import Effort, Row, budgets_of, seeded, summary
from choosing.stream import Record, median_us
from choosing.tables import Table
from tollway.backends.types import ModelAnswer
from tollway.gateway.features.reply_features import with_reply
from tollway.policies.registry import build
from tollway.policies.types import ACCEPT, Arm, Choice, Context, Objective, Policy

BELOW_BEST = 0.01
STRETCHES = (0, 250, 500, 1000, 2000, 4000)  # requests, each with its label


def run(
    policy: Policy,
    table: Table,
    order: np.ndarray,
    allowance: float | None,
    seed: int,
    labelled: float = 1.0,
) -> Record:
    """Stream the requests of `order`; see the module."""
    rng, labels = Random(seed), Random(seed + 1)
    count = len(order)
    qualities, costs, finals = np.zeros(count), np.zeros(count), np.zeros(count, int)
    deciding: list[int] = []
    learning: list[int] = []
    policy.pace(allowance)
    usd = table.cost[0].tolist()
    places = {name: at for at, name in enumerate(table.arms)}
    first = Context(())
    for t, row in enumerate(order.tolist()):
        right = table.quality[row].tolist()
        context, replies, draws, seen = first, [], [], []
        cost, held = 0.0, -1
        while True:
            offered = [Arm(ACCEPT, 0.0)] if seen else []
            offered += [
                Arm(name, usd[at])
                for name, at in places.items()
                if at not in seen and (held < 0 or usd[at] > usd[held])
            ]
            if seen and len(offered) == 1:
                break
            started = time.perf_counter_ns()
            choice = policy.choose(context, offered, rng)
            deciding.append(time.perf_counter_ns() - started)
            draws.append((context, choice))
            if choice.arm == ACCEPT:
                policy.charge(choice, 0.0)
                break
            held = places[choice.arm]
            policy.charge(choice, usd[held])
            cost += usd[held]
            seen.append(held)
            said = ModelAnswer(str(table.said[row, held]), (float(table.sure[row, held]),))
            replies.append((choice.arm, said))
            context = with_reply(first, replies, choice)
        if labelled >= 1.0 or labels.random() < labelled:
            learning += teach(policy, draws, {table.arms[at]: right[at] for at in seen})
        if policy.resolve_due():
            policy.resolve()
        qualities[t], costs[t], finals[t] = right[held], cost, held
    return Record(
        qualities,
        costs,
        finals,
        float("nan") if allowance is None else allowance,
        getattr(policy, "explored_usd", 0.0),
        median_us(deciding),
        median_us(learning),
    )


def teach(
    policy: Policy, draws: list[tuple[Context, Choice]], known: dict[str, float]
) -> list[int]:
    """Learn the quality of every reply seen, as the gateway does; return the times."""
    taken = []
    for context, choice in draws:
        held = [ACCEPT] if context.held in known and ACCEPT in choice.arms else []
        for arm in held + [choice.arm] * (choice.arm in known):
            worth = known[context.held if arm == ACCEPT else arm]
            started = time.perf_counter_ns()
            policy.learn(context, choice, arm, worth)
            taken.append(time.perf_counter_ns() - started)
    return taken


def study(
    table: Table, effort: Effort, shares: Sequence[float], labelled: float = 1.0
) -> Iterator[Row]:
    """Yield the second half of a cascade's stream, at shares of the best single service's price."""
    quality, cost = table.quality.mean(axis=0), table.cost.mean(axis=0)
    best = int(np.lexsort((cost, -quality))[0])
    for share in shares:
        budget = float(cost[best] * share)

        def one(seed: int, budget: float = budget) -> Record:
            order = np.random.default_rng(seed).permutation(len(table))
            policy = build("cascade", Objective(), options={}, seed=seed)
            return run(policy, table, order, budget, seed, labelled).after(len(table) // 2)

        records = seeded(effort, f"{table.name}: {share:g} of the best service's price", one)
        told = summary(records, table, budget)
        yield {
            "policy": "cascade",
            "labelled": labelled,
            "share_of_price": share,
            "best_service": float(quality[best]),
            "over_best": float(told["quality"]) - float(quality[best]),  # type: ignore[arg-type]
            **told,
        }


def curve(table: Table, effort: Effort) -> Iterator[Row]:
    """Yield a cascade's quality at the seven budgets, after the fixed arms."""
    quality, cost = table.quality.mean(axis=0), table.cost.mean(axis=0)
    max_price = float(cost[int(np.lexsort((cost, -quality))[0])]) or 1.0
    yield from figures.fixed(table)
    rows = list(study(table, effort, [usd / max_price for usd in budgets_of(table).tolist()]))
    saved = figures.saving(rows, table)
    yield from ({**row, "saving_at_best": saved} for row in rows)
    orders = [np.random.default_rng(seed).permutation(len(table)) for seed in range(effort.seeds)]
    for budget in budgets_of(table).tolist():
        records = supervised.frugalml(table, orders, len(table) // 2, budget)
        yield {"policy": "frugalml's form, trained", **summary(records, table, budget)}


def floors(table: Table, effort: Effort, given: float | None = None) -> Iterator[Row]:
    """Yield a cascade's saving at a floor, compared with the best service, from a cold start.

    The floor is `given`, or one point below the best service's accuracy. Each row is a section of
    the stream; `windows_below` is of the whole stream.
    """
    quality, cost = table.quality.mean(axis=0), table.cost.mean(axis=0)
    best = int(np.lexsort((cost, -quality))[0])
    floor = max(float(quality[best]) - BELOW_BEST, 0.0) if given is None else given
    if floor > quality[best]:
        return
    for baseline in (table.arms[best], None):

        def one(seed: int, baseline: str | None = baseline) -> Record:
            order = np.random.default_rng(seed).permutation(len(table))[: STRETCHES[-1]]
            objective = Objective("min_cost", floor=floor, baseline=baseline)
            policy = build("cascade", objective, options={}, seed=seed)
            return run(policy, table, order, None, seed)

        records = seeded(effort, f"{table.name}: floor {floor:.3g}, baseline {baseline}", one)
        below = float(np.mean([figures.windows_below(r, floor - 0.01) for r in records]))
        for begin, end in pairwise(STRETCHES):
            if begin >= len(table):
                break
            spent = float(np.mean([record.cost[begin:end].mean() for record in records]))
            yield {
                "table": table.name,
                "floor": floor,
                "baseline": baseline or "none",
                "requests": f"{begin} to {min(end, len(table))}",
                "quality": float(np.mean([record.quality[begin:end].mean() for record in records])),
                "best_service": float(quality[best]),
                "saving": 1.0 - spent / float(cost[best]) if cost[best] else None,
                "windows_below": below,
            }
