"""How soon a worse version is rolled back, and how often one that is no worse.

    .venv/bin/python benchmarks/rollouts.py --virtual [--seeds 200] [--processes 2]

Plays rollouts in virtual time with the production collector and controller, at 200 requests a
second with immediate labels, beside fixed thresholds as in Argo Rollouts on the same requests.
First one step of 10 % that has no end, for five minutes: the time to roll back, and false
rollbacks. Then three steps of at least a minute: how long a better version takes to be promoted,
and what becomes of a slow leak and of a version that fails for one user in ten.
"""

import argparse
import json
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tollway.gateway.cli import terminal
from tollway.simulations.rollouts import figures
from tollway.simulations.rollouts.commands import many
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


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--virtual", action="store_true", required=True)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--stepped-seeds", type=int, default=20, help="of the second table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.margin = None
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
