"""The policy: two heads and one price of money.

    q_a     what quality to expect of arm a here: a regression, learned from labels
    c_a     what it is expected to cost here: today's price times usage, estimated by the caller
    lambda  the price of money, in quality per dollar: by the pacer, the floor, or a declared value
    s_a = q_a - lambda c_a, explored by inverse gap weighting within a budget

Neither regression ever sees lambda: folding cost into one learned reward makes every old example
wrong when lambda moves. The theory: Slivkins, Zhou, Sankararaman and Foster, Contextual Bandits
with Packing and Covering Constraints, JMLR 25 (394), 2024.

Lambda is solved again every few dozen requests, and at once when a price, an arm or a budget
changes, over the recent contexts. A budget asks for the least lambda that is cheap enough, a floor
for the greatest that is good enough; where both cannot be, the floor goes before pacing (the hard
cap is the ledger's, and not lambda's).
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from policies.constraints import feasible
from policies.exploration import Exploration
from policies.floor import Floor
from policies.pacer import Pacer
from policies.packing import pack, unpack
from policies.quality import Quality
from policies.sampling import certain, draw
from policies.types import Arm, Choice, Context, Objective
from policies.uniform import Uniform
from policies.window import Window

KIND = "lagrangian 1"
WINDOW = 400  # contexts: enough to tell a tenth of a cent, few enough to follow an hour
THIN = 20  # contexts after a restart: with fewer, the saved price is better than a new one
EVERY = 25  # requests: a solution costs about half a millisecond


class Lagrangian:
    """Chooses by quality less the price of money times cost."""

    # The mutable state is the parts', the price, and what has happened since it was solved.

    def __init__(
        self,
        objective: Objective,
        quality: Quality,
        *,
        explore: Exploration | Uniform,
        pacer: Pacer,
        floor: Floor | None,
        window: int = WINDOW,
        every: int = EVERY,
    ) -> None:
        if objective.kind == "min_cost" and floor is None:
            raise ValueError("min_cost needs a floor")
        self.version = 0
        self.explored_usd = 0.0  # what exploration was expected to cost, in all
        self.price_of_money = 0.0
        self._objective = objective
        self._quality = quality
        self._explore = explore
        self._pacer = pacer
        self._floor = floor
        self._window = Window(window)
        self._every = every
        self._since = 0
        self._event = True
        self._solved = False
        self._least = 1

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms`; see the port. ValueError for values that are not finite."""
        names, costs = _offered(arms)
        qualities = self._quality.predict(context, arms)
        self._see(names, qualities, costs)
        return self._draw(arms, qualities, costs, rng, floor)

    def _see(self, names: Sequence[str], qualities: list[float], costs: list[float]) -> None:
        """Remember a context; solve at once where nothing is known of the price yet."""
        self._event |= self._window.add(names, qualities, costs)
        self._since += 1
        # The very first price is solved on the path, or a dear arm would be free until then.
        if not self._solved:
            self.resolve()

    def _draw(
        self,
        arms: Sequence[Arm],
        qualities: list[float],
        costs: list[float],
        rng: Random,
        floor: float | None,
    ) -> Choice:
        """Draw by quality less the price of money times cost; both given per arm."""
        price = self.price_of_money
        names = tuple([arm.name for arm in arms])
        scores = [q - price * c for q, c in zip(qualities, costs, strict=True)]
        met = True
        if floor is not None:
            kept, met = feasible(arms, qualities, floor)
            scores = [s if at in kept else -math.inf for at, s in enumerate(scores)]
        if not met:
            index, reason = kept[0], "floor_unmet"
            pmf = certain(len(arms), index)
        elif self._floor is not None and self._floor.guarded and self._baseline in names:
            index, reason = names.index(self._baseline), "baseline"
            pmf = certain(len(arms), index)
        else:
            spread, extra = self._explore.pmf(
                names, scores, costs, self._quality.labels, self._pacer.allowance_usd
            )
            self.explored_usd += extra
            index, pmf = draw(spread, rng), tuple(spread)
            reason = "best" if scores[index] == max(scores) else "explore"
        return Choice(
            names, pmf, index, tuple(qualities), tuple(costs), price, reason, self.version
        )

    @property
    def _baseline(self) -> str:
        return self._objective.baseline or ""

    def learn(self, context: Context, choice: Choice, arm: str, quality: float) -> None:
        """Learn what an arm's answer was worth; see the port."""
        self._quality.learn(context, arm, quality)
        self.version += 1
        if self._floor is not None and arm == choice.arm:
            self._judge(self._floor, quality)

    def _judge(self, floor: Floor, quality: float) -> None:
        before = floor.guarded
        floor.observe(quality)
        self._event |= floor.guarded != before

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Count what a choice has cost in the end."""
        self._pacer.spend(cost_usd)

    def pace(self, allowance_usd: float | None) -> None:
        """Take what the budgets allow per request from now on."""
        self._event |= self._pacer.pace(allowance_usd)

    def reprice(self, arm: str, ratio: float) -> None:
        """Take over an arm's new price at once; ratio = new / old."""
        if not 0.0 <= ratio < math.inf:
            raise ValueError(f"a price ratio of {ratio}")
        self._window.reprice(arm, ratio)
        self._event = True

    def resolve_due(self) -> bool:
        """Say whether the price should be solved again."""
        # While the window fills, each quarter more of contexts changes the picture.
        return self._event or self._since >= min(self._every, 1 + len(self._window) // 4)

    def resolve(self) -> None:
        """Solve the price of money anew."""
        self._since = 0
        self._event = False
        if len(self._window) >= self._least:
            self.price_of_money = self._solve()
            self._solved = True

    def _solve(self) -> float:
        paced = self._pacer.price(self._window)
        if self._objective.kind == "value" and self._objective.value_per_correct_usd:
            paced = max(paced, 1.0 / self._objective.value_per_correct_usd)
        if self._floor is None:
            return paced
        held = self._floor.price(self._window)
        return held if self._objective.kind == "min_cost" else min(paced, held)

    def figures(self) -> dict[str, float]:
        """Return what there is to tell; see the port."""
        told = {"price_of_money": self.price_of_money, "explored_usd": self.explored_usd}
        if self._pacer.allowance_usd is not None:
            told["allowance_usd"] = self._pacer.allowance_usd
        if self._floor is not None:
            told["accuracy_floor"] = self._floor.floor
            told["floor_guarded"] = float(self._floor.guarded)
        return told

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""
        values = {
            "version": self.version,
            "price_of_money": self.price_of_money,
            "explored_usd": self.explored_usd,
            "pacer": self._pacer.save(),
            "floor": self._floor.save() if self._floor else None,
        }
        return pack(KIND, values, {"quality": self._quality.save()})

    def load(self, state: bytes) -> None:
        """Take a saved state; see the port."""
        values, parts = unpack(KIND, state)
        self._quality.load(parts["quality"])
        self._take(values)

    def _take(self, values: dict[str, Any]) -> None:
        self._solved, self._event, self._least = True, False, THIN
        self.version = int(values["version"])
        self.price_of_money = float(values["price_of_money"])
        self.explored_usd = float(values["explored_usd"])
        self._pacer.load(values["pacer"])
        if self._floor is not None and values["floor"] is not None:
            self._floor.load(values["floor"])


def _offered(arms: Sequence[Arm]) -> tuple[tuple[str, ...], list[float]]:
    """Return the names and costs of the arms; ValueError where they cannot be chosen among."""
    costs = [arm.cost_usd for arm in arms]
    if not (costs and min(costs) >= 0.0 and math.isfinite(sum(costs))):
        raise ValueError(f"arms without a cost that is finite and not negative: {list(arms)}")
    return tuple([arm.name for arm in arms]), costs
