"""Streams a table through a policy as the gateway would: quote, choose, charge, learn, resolve.

The policy and the estimator are the production classes. The world may change over time: prices,
qualities, which arms are up, and how often a label comes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np

from choosing.tables import Table
from tollway.backends.money import NANO_PER_USD, to_usd
from tollway.backends.pricing import Price
from tollway.backends.types import Usage
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.features.encoder import FeatureEncoder
from tollway.policies.evidence.audit import Auditor
from tollway.policies.evidence.drift import Change
from tollway.policies.types import Arm, Context, Policy

TOKENS = 500.0  # the estimator's assumption before the first call


@dataclass
class World:
    """The changes over the stream; `t` counts requests from 0."""

    quality: Callable[[int, np.ndarray], np.ndarray] = lambda t, q: q
    price: Callable[[int, int], float] = lambda t, arm: 1.0
    up: Callable[[int, int], bool] = lambda t, arm: True
    tail: Callable[[int], float] = lambda t: 1.0  # factor on the cost of a request
    labelled: float = 1.0
    audited: bool = False  # whether the auditor draws the labelled answers, else they are random
    announced: bool = True  # whether the price table follows the true price
    fixed_price: bool = False


@dataclass
class Record:
    """The results, per request."""

    quality: np.ndarray
    cost: np.ndarray
    arm: np.ndarray
    allowance: float
    explored_usd: float = 0.0
    decide_us: float = 0.0
    update_us: float = 0.0
    changes: list[tuple[int, Change]] = field(default_factory=list)  # by request

    def after(self, start: int) -> "Record":
        """Return the later part."""
        return self.between(start, len(self.quality))

    def between(self, start: int, end: int) -> "Record":
        at = slice(start, end)
        cut = {"quality": self.quality[at], "cost": self.cost[at], "arm": self.arm[at]}
        return replace(self, **cut, changes=[])

    @property
    def spend(self) -> float:
        """Mean cost over the allowance."""
        return float(self.cost.mean() / self.allowance) if self.allowance else 1.0

    def worst_window(self, size: int = 500) -> float:
        """Return the highest spend over the allowance in any window."""
        if len(self.cost) < size:
            return self.spend
        sums = np.convolve(self.cost, np.ones(size), "valid")
        return float(sums.max() / size / self.allowance)


def encode(table: Table) -> list[Context]:
    """Return the contexts, by the gateway's own encoder."""
    encoder = FeatureEncoder()
    numbers = table.numbers.tolist() if table.numbers is not None else [[]] * len(table)
    texts = [[text] for text in table.texts] if table.texts is not None else [[]] * len(table)
    return [encoder.encode(*values) for values in zip(numbers, texts, strict=True)]


def run(
    policy: Policy,
    contexts: Sequence[Context],
    table: Table,
    order: np.ndarray,
    list_usd: np.ndarray,
    allowance: float | None,
    seed: int,
    world: World | None = None,
) -> Record:
    """Stream the requests of `order`; `list_usd` is each arm's list price for a usual call."""
    world = world or World()
    rng, labels = Random(seed), Random(seed + 1)
    estimator = CostEstimator()
    count = len(order)
    qualities, costs = np.zeros(count), np.zeros(count)
    arms_taken = np.zeros(count, int)
    changes: list[tuple[int, Change]] = []
    deciding: list[int] = []
    learning: list[int] = []
    policy.pace(allowance)
    auditor = Auditor(share=world.labelled) if world.audited else None
    known = Usage(exact=False)
    fixed = bool((table.cost.std(axis=0) <= 1e-12).all())
    ratios = [world.price(0, a) for a in range(len(table.arms))]
    prices = [_price(usd * ratio, fixed) for usd, ratio in zip(list_usd, ratios, strict=True)]
    for t, row in enumerate(order.tolist()):
        context = contexts[row]
        truth = world.quality(t, table.quality[row])
        for a, name in enumerate(table.arms):
            ratio = world.price(t, a)
            if ratio != ratios[a] and world.announced:
                prices[a] = _price(list_usd[a] * ratio, fixed)
                policy.reprice(name, ratio / ratios[a])
            ratios[a] = ratio
        up = [a for a in range(len(table.arms)) if world.up(t, a)]
        quotes = [estimator.quote(context, table.arms[a], prices[a], known) for a in up]
        arms = [
            Arm(table.arms[a], to_usd(quote.expected_nano))
            for a, quote in zip(up, quotes, strict=True)
        ]
        started = time.perf_counter_ns()
        choice = policy.choose(context, arms, rng)
        deciding.append(time.perf_counter_ns() - started)
        a = up[choice.index]
        cost = table.cost[row, a] * ratios[a] * world.tail(t)
        unit = prices[a].output_token_nano
        usage = Usage(output_tokens=cost * NANO_PER_USD / unit) if unit else Usage()
        quote = quotes[choice.index]
        estimator.observe(context, table.arms[a], quote, prices[a], usage)
        policy.charge(choice, cost)
        if auditor is not None:
            drawn = auditor.draw(choice.arm, choice, spent_nano=0, audit_nano=0, rng=labels) > 0.0
        else:
            drawn = labels.random() < world.labelled
        if drawn:
            if auditor is not None:
                auditor.learned(choice.arm)
            started = time.perf_counter_ns()
            policy.learn(context, choice, choice.arm, float(truth[a]))
            learning.append(time.perf_counter_ns() - started)
        changes += [(t, change) for change in policy.drain()]
        if policy.resolve_due():
            policy.resolve()
        qualities[t], costs[t], arms_taken[t] = truth[a], cost, a
    return Record(
        qualities,
        costs,
        arms_taken,
        float("nan") if allowance is None else allowance,
        getattr(policy, "explored_usd", 0.0),
        median_us(deciding),
        median_us(learning),
        changes,
    )


def median_us(taken_ns: Sequence[int]) -> float:
    """Return the median in microseconds; nan if nothing was timed."""
    return float(np.median(taken_ns)) / 1e3 if taken_ns else float("nan")


def _price(usd: float, fixed: bool) -> Price:
    """Return a list price: per call, or per token of a usual call's."""
    if fixed:
        return Price(per_request_nano=usd * NANO_PER_USD)
    return Price(output_token_nano=usd * NANO_PER_USD / TOKENS)
