"""Streams a table of labels and confidences through a cascade, stage by stage, as the router does.

The context of a later stage is the gateway's own (`gateway.held`). A true label scores every reply
that was seen, the passed-over ones too, and no other.
"""

from random import Random

import numpy as np

from backends.types import Answer
from choosing.stream import Record
from choosing.tables import Table
from gateway.held import with_reply
from policies.types import ACCEPT, Arm, Choice, Context, Policy


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
            choice = policy.choose(context, offered, rng)
            draws.append((context, choice))
            if choice.arm == ACCEPT:
                policy.charge(choice, 0.0)
                break
            held = places[choice.arm]
            policy.charge(choice, usd[held])
            cost += usd[held]
            seen.append(held)
            said = Answer(str(table.said[row, held]), (float(table.sure[row, held]),))
            replies.append((choice.arm, said))
            context = with_reply(first, replies)
        if labelled >= 1.0 or labels.random() < labelled:
            teach(policy, draws, {table.arms[at]: right[at] for at in seen})
        if policy.resolve_due():
            policy.resolve()
        qualities[t], costs[t], finals[t] = right[held], cost, held
    return Record(
        qualities,
        costs,
        finals,
        allowance or float("nan"),
        getattr(policy, "explored_usd", 0.0),
        {"policy": policy},
    )


def teach(policy: Policy, draws: list[tuple[Context, Choice]], known: dict[str, float]) -> None:
    """Learn what every reply seen was worth, as the gateway's learner does."""
    for context, choice in draws:
        if context.held in known and ACCEPT in choice.arms:
            policy.learn(context, choice, ACCEPT, known[context.held])
        if choice.arm in known:
            policy.learn(context, choice, choice.arm, known[choice.arm])
