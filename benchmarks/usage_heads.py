"""Measures how well the usage of calls is predicted, where the context tells much or nothing of it.

    python benchmarks/usage_heads.py              # as it is
    python benchmarks/usage_heads.py --tried 20   # with another number of calls on trial

Three backends get 90, 7 and 3 % of the calls. What is shown is the mean absolute error of the
logarithm of the expected tokens, over all three, in calls 20 to 400 and after.
"""

import argparse
import math
from random import Random
from statistics import mean

from tollway.backends.pricing import parse_price
from tollway.backends.types import Usage
from tollway.gateway.estimation import usage_model
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.policies.types import Context

CALLS, FIRST, EARLY = 1500, 20, 400
BACKENDS = {"a": 0.9, "b": 0.07, "c": 0.03}
KNOWN = Usage(input_tokens=400.0, exact=False)


def errors(seed: int, told: float, noise: float) -> tuple[float, float]:
    """Return the mean errors early and late."""
    rng, estimator = Random(seed), CostEstimator()
    price = parse_price({"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0})
    early, late = list[float](), list[float]()
    for number in range(CALLS):
        x = tuple([rng.uniform(-1.0, 1.0) for _ in range(4)])
        context = Context(x, tuple([(rng.randrange(40), 1.0) for _ in range(6)]))
        drawn = rng.choices(list(BACKENDS), list(BACKENDS.values()))[0]
        tokens = 60.0 * math.exp(told * (x[0] + 0.5 * x[1]) + noise * rng.gauss(0.0, 1.0))
        used = Usage(1.0, 0.0, 100.0, 0.0, tokens)
        for backend in BACKENDS:
            quote = estimator.quote(context, backend, price, KNOWN)
            if number >= FIRST:
                found = early if number < EARLY else late
                found.append(abs(math.log(quote.usage.output_tokens / tokens)))
            if backend == drawn:
                chosen = quote
        estimator.observe(context, drawn, chosen, price, used)
    return mean(early), mean(late)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tried", type=int, default=usage_model.TRIED_CALLS, metavar="CALLS")
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    usage_model.TRIED_CALLS = args.tried
    print("told  noise   early    late")
    for told, noise in ((0.0, 0.5), (0.3, 0.5), (1.0, 0.3), (1.0, 1.0)):
        found = [errors(seed, told, noise) for seed in range(args.seeds)]
        early, late = (mean(column) for column in zip(*found, strict=True))
        print(f"{told:4}  {noise:5}  {early:6.3f}  {late:6.3f}")


if __name__ == "__main__":
    main()
