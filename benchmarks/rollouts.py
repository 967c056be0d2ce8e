"""How soon a worse version is rolled back, and how often one that is no worse.

    .venv/bin/python benchmarks/rollouts.py --virtual [--seeds 200] [--processes 2]
    .venv/bin/python benchmarks/rollouts.py --oracle

Plays rollouts in virtual time with the production collector and controller, at 200 requests a
second with immediate labels, beside fixed thresholds as in Argo Rollouts on the same requests.
First one step of 10 % that has no end, for five minutes: the time to roll back, and false
rollbacks. Then three steps of at least a minute: how long a better version takes to be promoted,
and what becomes of a slow leak and of a version that fails for one user in ten.

`--oracle` prints how long a test takes that knows both versions' true rates beforehand: Wald's
sequential probability ratio test on the candidate's values alone, which no valid test beats in the
mean. It has all of alpha for one metric, and no tolerance.
"""

import argparse
import json
import math
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tollway.gateway.cli import terminal
from tollway.simulations.rollouts import figures
from tollway.simulations.rollouts.commands import many
from tollway.simulations.rollouts.judges import ALPHA
from tollway.simulations.rollouts.scenarios import SCENARIOS

HELD = ("errors", "worse", "cost", "segment", "same")
STEPPED = ("better", "leak", "segment")


def table(names: tuple[str, ...], arguments: Namespace, **more: object) -> list[figures.Figures]:
    """Play scenarios under both judges."""
    asked = Namespace(**{**vars(arguments), **more})
    return [
        figures.of(name, judge, many(SCENARIOS[name], judge, asked))
        for name in names
        for judge in ("tollway", "argo")
    ]


def oracle(stable: float, candidate: float, per_s: float, plays: int = 20_000) -> tuple[int, int]:
    """Return after how many seconds Wald's test ends: the median and the 95th percentile.

    `stable` and `candidate` are rates of harm, `per_s` the candidate's values a second. It looks
    once a second.
    """
    rng = np.random.default_rng(1)
    sums, ends = np.zeros(plays), np.zeros(plays, dtype=int)
    gain, loss = math.log(candidate / stable), math.log((1.0 - candidate) / (1.0 - stable))
    for second in range(1, 10_000):
        count = rng.poisson(per_s, plays)
        harms = rng.binomial(count, candidate)
        sums += harms * gain + (count - harms) * loss
        ends[(ends == 0) & (sums >= -math.log(ALPHA))] = second
        if ends.all():
            break
    return int(np.median(ends)), int(np.quantile(ends, 0.95))


def main() -> int:
    """Print both tables, or the oracle's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--virtual", action="store_true", help="play rollouts")
    what.add_argument("--oracle", action="store_true", help="what a test could do at best")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--stepped-seeds", type=int, default=20, help="of the second table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.margin = None
    if arguments.oracle:
        for name in ("errors", "worse"):
            one = SCENARIOS[name]
            stable, candidate = (
                version.error_rate if name == "errors" else 1.0 - version.quality
                for version in (one.stable, one.candidate)
            )
            found = oracle(stable, candidate, 0.1 * arguments.rate)
            terminal.say(f"{name}: median {found[0]} s, p95 {found[1]} s")
        return 0
    held = table(HELD, arguments, hold=True, seconds=300.0)
    terminal.say("one step of 10 %, held for 300 s", "")
    terminal.say(*terminal.columns([figures.HEAD, *map(figures.row, held)]), "")
    stepped = table(STEPPED, arguments, hold=False, seconds=1800.0, seeds=arguments.stepped_seeds)
    terminal.say("10 %, 50 % and 100 %, each for at least 60 s", "")
    terminal.say(*terminal.columns([figures.HEAD, *map(figures.row, stepped)]))
    if arguments.json is not None:
        documents = [one.document() for one in (*held, *stepped)]
        arguments.json.write_text(json.dumps(documents, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
