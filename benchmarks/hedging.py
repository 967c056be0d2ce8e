"""Measures how hedging changes the latency tail of a backend, and what it costs.

    python benchmarks/hedging.py [--share 0.05] [--slow 0.02] [--requests 4000]

A backend answers in 5 ms, but a share of its calls takes 200. The same requests are sent in the
same order, eight at a time, through a gateway without hedging and through one with it. The table
shows latencies, second calls and dollars. Gateway and backend share one event loop, so compare the
two lines only with each other.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "gateway")]

from tests.support.configs import two_backends  # noqa: E402
from tests.support.harness import Running, Upstream, running, serving  # noqa: E402

USUAL_S, SLOW_S = 0.005, 0.2
CLIENTS = 8
WARM = 100  # requests before any is timed


class Tailed(Upstream):
    """Answers slowly at random, as drawn by `rng`."""

    slow: float
    rng: random.Random

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(SLOW_S if self.rng.random() < self.slow else USUAL_S)
        await super().__call__(scope, receive, send)


async def latencies_s(tollway: Running, count: int) -> list[float]:
    """Send `count` requests, eight at a time; return their latencies."""
    left, took = iter(range(count)), []

    async def client() -> None:
        for _ in left:
            begun = time.perf_counter()
            (await tollway.infer()).raise_for_status()
            took.append(time.perf_counter() - begun)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return took


async def line(share: float, slow: float, count: int) -> str:
    """Return a line of the table."""
    upstream = Tailed()
    upstream.slow, upstream.rng = slow, random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        async with serving(upstream) as url:
            toml = two_backends(url, url, route=f"hedge_share = {share}\nfallback = false")
            async with running(toml, Path(folder)) as tollway:
                await latencies_s(tollway, WARM)
                before = upstream.calls
                took = await latencies_s(tollway, count)
                spent_usd = (await tollway.get("/_tollway/spend"))["cost_usd"]
    p50, p95, p99, worst = (1e3 * np.quantile(took, q) for q in (0.5, 0.95, 0.99, 1.0))
    calls = upstream.calls - before
    return (
        f"| {share:.0%} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {worst:.0f} "
        f"| {calls / count:.3f} | {spent_usd / (count + WARM):.6f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--share", type=float, default=0.05, help="hedge_share of the second line")
    parser.add_argument("--slow", type=float, default=0.02, help="share of calls that are slow")
    parser.add_argument("--requests", type=int, default=4000)
    args = parser.parse_args()
    print("| hedge_share | p50, ms | p95 | p99 | worst | calls per request | dollars per request |")
    print("|---|---|---|---|---|---|---|")
    for share in (0.0, args.share):
        print(asyncio.run(line(share, args.slow, args.requests)), flush=True)


if __name__ == "__main__":
    main()
