"""The policies to evaluate on a log: what each would have drawn, decision by decision.

A learning policy is run over the log in order: it learns from the feedback in the log, at the time
it arrived, about the arms that the log drew. So its probabilities at a decision depend only on the
past, and estimates with them are unbiased. The estimate is for this policy as taught by this log.
Had it drawn its own arms, it would have learned from other outcomes; only a simulation that knows
the outcomes of every arm can show that.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from tollway.policies.registry import POLICIES, build
from tollway.policies.types import Arm, Choice, Context, Objective, Policy
from tollway.simulations import options
from tollway.simulations.replay.logs import BadLog, Floats, Log

BEST = Objective()  # the best that the allowance pays for


@dataclass(frozen=True, slots=True)
class Target:
    """A policy by name with its options; `objective` and allowance are for learning policies."""

    label: str
    name: str
    options: dict[str, Any]
    objective: Objective = BEST
    allowance_usd: float | None = None
    seed: int = 0

    def probabilities(self, log: Log, costs: Floats) -> Floats:
        """Return the probability of every arm at every decision (n x K)."""
        if self.name == "logged":
            return log.pmf
        if self.name == "cascade":
            raise BadLog(
                "a cascade cannot be replayed, because the log lacks the arms that were not "
                "called; use tollway simulate compare"
            )
        if self.name in {"fixed", "weighted"}:
            return self._mix(log, costs)
        return _run(self, log, costs)

    def _mix(self, log: Log, costs: Floats) -> Floats:
        """Return fixed shares of the offered arms; the cheapest arm if none of them is offered."""
        weights: dict[str, float] = (
            {str(self.options.get("arm")): 1.0}
            if self.name == "fixed"
            else self.options.get("weights", {})
        )
        unknown = weights.keys() - set(log.arms)
        if unknown or not weights:
            raise BadLog(
                f"{self.label}: the log has no arm {', '.join(sorted(unknown)) or '(none named)'}; "
                f"its arms: {', '.join(log.arms)}"
            )
        _built(self)  # checks its options
        mix: Floats = np.array([weights.get(arm, 0.0) for arm in log.arms]) * log.offered
        lost = mix.sum(axis=1) == 0.0
        cheapest = np.where(log.offered, costs, np.inf).argmin(axis=1)
        mix[lost, cheapest[lost]] = 1.0
        mix = mix / mix.sum(axis=1, keepdims=True)
        return mix


def parse(
    text: str, objective: Objective = BEST, allowance_usd: float | None = None, seed: int = 0
) -> Target:
    """Read `NAME` or `NAME:OPTION=VALUE,...`; BadLog says how to write it."""
    try:
        name, values = options.policy(text)
    except ValueError as exc:
        raise BadLog(f"{text!r}: {exc}") from None
    if name != "logged" and name not in POLICIES:
        known = ", ".join(["logged", *POLICIES])
        raise BadLog(f"unknown policy {name!r}; the policies are: {known}")
    return Target(text, name, values, objective, allowance_usd, seed)


def _built(target: Target) -> Policy:
    try:
        return build(target.name, target.objective, options=target.options, seed=target.seed)
    except ValueError as exc:
        raise BadLog(f"{target.label}: {exc}") from exc


def _run(target: Target, log: Log, costs: Floats) -> Floats:
    """Run a policy over the log, in order, learning from the feedback known by then."""
    policy = _built(target)
    policy.pace(target.allowance_usd)
    rng, pmf = Random(target.seed), np.zeros((len(log), len(log.arms)))
    waiting: list[tuple[float, int, Context, Choice]] = []
    for start, stop in log.batches():
        contexts = log.contexts(start, stop)
        for row in range(start, stop):
            _teach(policy.learn, waiting, log, float(log.time[row]))
            context, offered = contexts[row - start], np.flatnonzero(log.offered[row])
            arms = [Arm(log.arms[at], float(costs[row, at])) for at in offered]
            choice = policy.choose(context, arms, rng)
            pmf[row, offered] = choice.pmf
            policy.charge(choice, arms[choice.index].cost_usd)
            if policy.resolve_due():
                policy.resolve()
            if np.isfinite(log.quality[row]):
                seen = _as_drawn(choice, log, row)
                heapq.heappush(waiting, (float(log.taught_s[row]), row, context, seen))
    return pmf


def _teach(
    learn: Callable[[Context, Choice, str, float], None],
    waiting: list[tuple[float, int, Context, Choice]],
    log: Log,
    now_s: float,
) -> None:
    while waiting and waiting[0][0] <= now_s:
        _, row, context, choice = heapq.heappop(waiting)
        learn(context, choice, choice.arm, float(log.quality[row]))


def _as_drawn(choice: Choice, log: Log, row: int) -> Choice:
    """Return the policy's choice with the arm and probabilities of the log's draw."""
    arm = log.arms[log.arm[row]]
    index = choice.arms.index(arm)
    pmf = [float(log.pmf[row, log.arms.index(name)]) for name in choice.arms]
    if not np.isfinite(pmf).all():
        rest = (1.0 - float(log.propensity[row])) / max(len(pmf) - 1, 1)
        pmf = [rest] * len(pmf)
        pmf[index] = float(log.propensity[row])
    return Choice(
        choice.arms,
        tuple(pmf),
        index,
        choice.quality_hat,
        choice.cost_hat_usd,
        choice.shadow_price,
        "logged",
        choice.version,
    )
