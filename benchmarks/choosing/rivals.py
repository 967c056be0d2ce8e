"""Rivals with the same features and the same pacer, and ParetoBandit in its own environment."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np

from choosing.tables import Table
from tollway.policies.exploration import Offer, Uniform
from tollway.policies.lagrangian import Lagrangian
from tollway.policies.pacing.pacer import Pacer
from tollway.policies.quality import Quality
from tollway.policies.registry import build
from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.types import Context, Objective, Policy

PACKAGE = "paretobandit==0.1.1"
SQUARECB = 1000.0  # greediness, the same for all arms; not tuned


class Optimistic(RidgeRegressor):
    """LinUCB: the estimate plus `alpha` standard deviations."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self._alpha = alpha

    def predict(self, context: Context, arms: Sequence[str]) -> list[float]:
        plain = super().predict(context, arms)
        return [
            q + self._alpha * self.variance(context, arm) ** 0.5
            for q, arm in zip(plain, arms, strict=True)
        ]


class Sampled(RidgeRegressor):
    """Linear Thompson sampling: a draw from the posterior, marginally per arm."""

    def __init__(self, scale: float, seed: int) -> None:
        super().__init__()
        self._scale, self._rng = scale, Random(seed)

    def predict(self, context: Context, arms: Sequence[str]) -> list[float]:
        plain = super().predict(context, arms)
        return [
            q + self._scale * self._rng.gauss(0, 1) * self.variance(context, arm) ** 0.5
            for q, arm in zip(plain, arms, strict=True)
        ]


class InverseGaps(Uniform):
    """SquareCB's exploration (Foster and Rakhlin 2020, arXiv 2002.04926), without a budget for it.

    With b the best of K arms, p_a = 1 / (K + greediness * (s_b - s_a)) for the others.
    """

    def pmf(
        self, scores: Sequence[float], offer: Offer, base_usd: float
    ) -> tuple[int, list[float], float]:
        best, costs_usd = max(scores), offer.costs_usd
        top = scores.index(best)
        pmf = [1.0 / (len(scores) + SQUARECB * (best - score)) for score in scores]
        pmf[top] = 0.0
        pmf[top] = 1.0 - sum(pmf)
        more = [max(usd - costs_usd[top], 0.0) for usd in costs_usd]
        return top, pmf, sum(p * usd for p, usd in zip(pmf, more, strict=True))


def paced(head: RidgeRegressor, explore: Uniform | None = None) -> Policy:
    """Return a policy that takes the best arm, by a head's own exploration or by `explore`."""
    return Lagrangian(
        Objective(),
        Quality(head, default=0.8),
        explore=explore or Uniform(0.0),
        pacer=Pacer(),
        floor=None,
    )


def make(name: str, seed: int) -> Policy:
    """Return a policy by name; registry policies have their default options."""
    if name == "squarecb":
        return paced(RidgeRegressor(), InverseGaps())
    if name == "linucb":
        return paced(Optimistic(0.1))
    if name == "lin_thompson":
        return paced(Sampled(0.1, seed))
    base, _, head = name.partition("/")
    return build(base, Objective(), options={"head": head} if head else {}, seed=seed)


def environment(cache: Path) -> Path:
    """Return the Python of an environment with ParetoBandit, created on the first call."""
    python = cache / "paretobandit" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
    probe = subprocess.run([python, "-c", "import pareto_bandit"], capture_output=True, check=False)
    if probe.returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", PACKAGE], check=True)
    return python


def paretobandit(
    python: Path,
    table: Table,
    features: np.ndarray,
    orders: np.ndarray,
    budgets: Sequence[float],
    list_usd: np.ndarray,
) -> tuple[np.ndarray, tuple[float, float]]:
    """Run ParetoBandit through its public API.

    Return (arms taken, budgets x seeds x requests; median microseconds of a decision and an
    update).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        np.savez(
            path / "in.npz",
            features=features,
            quality=table.quality,
            cost=table.cost,
            orders=orders,
            budgets=np.array(budgets),
            list_usd=list_usd,
        )
        (path / "arms.json").write_text(json.dumps(table.arms))
        script = Path(__file__).with_name("paretobandit_run.py")
        subprocess.run([python, script, folder], check=True)
        taken = np.load(path / "out.npz")
        return taken["arms"], (float(taken["decide_us"]), float(taken["update_us"]))
