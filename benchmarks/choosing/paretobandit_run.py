"""Runs ParetoBandit over a stream, in its own environment; see rivals.py. Usage: FOLDER."""

import json
import sys
import time
from pathlib import Path

import numpy as np
from pareto_bandit import BanditRouter
from pareto_bandit.budget_pacer import BudgetPacer
from pareto_bandit.feature_service import FeatureService
from pareto_bandit.storage import EphemeralContextStore

# Its published 0.01 goes with priors from 8,374 judged requests; from a cold start it then never
# leaves the cheapest arm. 2 is the best of 0.01, 0.1, 0.3, 1, 2 and 4 on the val table.
ALPHA = 2.0


def router(arms: list[str], dollars: np.ndarray, budget: float, size: int) -> BanditRouter:
    # Its registry wants dollars per million tokens; a usual call is 1000 of them here.
    registry = {
        arm: {"input_cost_per_m": usd * 1e3, "output_cost_per_m": usd * 1e3}
        for arm, usd in zip(arms, dollars.tolist(), strict=True)
    }
    return BanditRouter.create(
        model_registry=registry,
        feature_service=FeatureService.for_precomputed(dimension=size),
        context_store=EphemeralContextStore(),
        priors="none",
        alpha=ALPHA,
        forgetting_factor=0.997,
        budget_pacer=BudgetPacer(budget),
    )


def main() -> None:
    folder = Path(sys.argv[1])
    given = np.load(folder / "in.npz")
    arms = json.loads((folder / "arms.json").read_text())
    features, quality, cost = given["features"], given["quality"], given["cost"]
    deciding: list[int] = []
    learning: list[int] = []
    taken = np.zeros((len(given["budgets"]), *given["orders"].shape), int)
    for b, budget in enumerate(given["budgets"].tolist()):
        for s, order in enumerate(given["orders"]):
            bandit = router(arms, given["list_usd"], budget, features.shape[1])
            for t, row in enumerate(order.tolist()):
                started = time.perf_counter_ns()
                arm, log = bandit.route(features[row])
                deciding.append(time.perf_counter_ns() - started)
                a = arms.index(arm)
                log.cost_usd = float(cost[row, a])
                started = time.perf_counter_ns()
                bandit.process_feedback(log.request_id, reward=float(quality[row, a]))
                learning.append(time.perf_counter_ns() - started)
                taken[b, s, t] = a
    np.savez(
        folder / "out.npz",
        arms=taken,
        decide_us=np.median(deciding) / 1e3,
        update_us=np.median(learning) / 1e3,
    )


if __name__ == "__main__":
    main()
