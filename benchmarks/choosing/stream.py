"""Streams a table through a policy as the gateway would: quote, choose, charge, learn, resolve.

The policy and the estimator are the production classes. The world may change over time: prices,
qualities, which arms are up, and how often a label comes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np

from backends.pricing import Price
from backends.types import Usage
from choosing.tables import Table
from gateway.context import Encoder
from gateway.estimator import Estimator
from policies.types import Arm, Context, Policy

TOKENS = 500.0  # what the estimator takes a call to use before it saw one


@dataclass
class World:
    """What happens over the stream; `t` counts requests from 0."""

    quality: Callable[[int, np.ndarray], np.ndarray] = lambda t, q: q
    price: Callable[[int, int], float] = lambda t, arm: 1.0
    up: Callable[[int, int], bool] = lambda t, arm: True
    labelled: float = 1.0
    announced: bool = True  # whether the price table follows the true price
    fixed_price: bool = False


@dataclass
class Record:
    """What happened, per request."""

    quality: np.ndarray
    cost: np.ndarray
    arm: np.ndarray
    allowance: float
    explored_usd: float = 0.0
    extra: dict[str, object] = field(default_factory=dict)

    def after(self, start: int) -> "Record":
        """Return the later part."""
        return self.between(start, len(self.quality))

    def between(self, start: int, end: int) -> "Record":
        at = slice(start, end)
        return Record(
            self.quality[at], self.cost[at], self.arm[at], self.allowance, self.explored_usd
        )

    @property
    def spend(self) -> float:
        """Mean cost over the allowance."""
        return float(self.cost.mean() / self.allowance)

    def worst_window(self, size: int = 500) -> float:
        """Return the highest spend over the allowance in any window."""
        if len(self.cost) < size:
            return self.spend
        sums = np.convolve(self.cost, np.ones(size), "valid")
        return float(sums.max() / size / self.allowance)


def encode(table: Table) -> list[Context]:
    """Return the contexts, by the gateway's own encoder."""
    encoder = Encoder()
    if table.texts is None:
        return [encoder.encode([], [])] * len(table)
    return [encoder.encode([], [text]) for text in table.texts]


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
    estimator = Estimator()
    count = len(order)
    qualities, costs = np.zeros(count), np.zeros(count)
    arms_taken = np.zeros(count, int)
    policy.pace(allowance)
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
            Arm(table.arms[a], quote.expected_nano / 1e9)
            for a, quote in zip(up, quotes, strict=True)
        ]
        choice = policy.choose(context, arms, rng)
        a = up[choice.index]
        cost = table.cost[row, a] * ratios[a]
        unit = prices[a].output_token_nano
        usage = Usage(output_tokens=cost * 1e9 / unit) if unit else Usage()
        quote = quotes[choice.index]
        estimator.observe(context, table.arms[a], quote, prices[a], usage, 0.1)
        policy.charge(choice, cost)
        if world.labelled >= 1.0 or labels.random() < world.labelled:
            policy.learn(context, choice, choice.arm, float(truth[a]))
        if policy.resolve_due():
            policy.resolve()
        qualities[t], costs[t], arms_taken[t] = truth[a], cost, a
    return Record(
        qualities,
        costs,
        arms_taken,
        allowance or float("nan"),
        getattr(policy, "explored_usd", 0.0),
        {"estimator": estimator, "policy": policy},
    )


def _price(usd: float, fixed: bool) -> Price:
    """Return a list price: per call, or per token of a usual call's."""
    if fixed:
        return Price(per_request_nano=usd * 1e9)
    return Price(output_token_nano=usd * 1e9 / TOKENS)
