"""Sends digits and their true labels to a gateway until its rollout is decided.

    python -m examples.digits.rollout --url http://127.0.0.1:8080 --rollout v2

It prints what both versions have answered, and ends when the rollout is promoted, rolled back,
aborted or paused.
"""

import argparse
import asyncio
import sys
from collections import Counter

from .client import Answer, Client, connect
from .data import halves, traffic

LOOK_EVERY = 100  # requests
REQUESTS_MAX = 30_000
UNDECIDED = frozenset({"idle", "progressing"})


async def play(url: str, rollout: str, *, requests: int = REQUESTS_MAX) -> str:
    """Send requests and labels; return the phase in which the rollout ended."""
    counts: Counter[tuple[str, bool]] = Counter()
    path = f"/_tollway/rollouts/{rollout}"
    async with connect(url) as client:
        sent = traffic(halves()[1], requests)
        for number, (image, label) in enumerate(sent):
            answer = await client.ask("digits", image, label)
            await _learn(client, answer, label, counts)
            if number % LOOK_EVERY == LOOK_EVERY - 1:
                found = await client.get(path)
                phase = found.get("phase", "idle")  # without one until the state is read
                sys.stdout.write(f"{_line(number + 1, counts)}; {phase}\n")
                sys.stdout.flush()
                if phase not in UNDECIDED:
                    sys.stdout.write(f"{found['why']}\n")
                    return str(phase)
    return "undecided"


async def _learn(
    client: Client, answer: Answer, label: int, counts: Counter[tuple[str, bool]]
) -> None:
    if answer.status != 200:
        counts["none", False] += 1
        return
    counts[answer.backend, answer.right] += 1
    await client.tell(answer.decision, label)


def _line(number: int, counts: Counter[tuple[str, bool]]) -> str:
    """Return how often each version answered, and was right."""
    parts = []
    for name in sorted({name for name, _ in counts}):
        total = counts[name, True] + counts[name, False]
        parts.append(f"{name} {total} ({counts[name, True] / total:.1%} right)")
    return f"{number} requests: {', '.join(parts)}"


def main() -> int:
    """Play, and return 0 once the rollout is decided."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits.rollout", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the gateway")
    parser.add_argument("--rollout", default="v2", help="the rollout's name")
    options = parser.parse_args()
    return int(asyncio.run(play(options.url, options.rollout)) == "undecided")


if __name__ == "__main__":
    sys.exit(main())
