"""Checks under random faults that every request is answered and every cent accounted for.

    python benchmarks/faults_soak.py [--seconds 300] [--rate 50] [--seed 1] [--workers 1]

It runs on the stage of benchmarks/faults.py. On each connection from the gateway to the two models
and to Redis, faults alternate with quiet times; kinds and durations are random. From time to time
Redis itself is killed or stopped. At the end all faults are removed. The output says what clients
saw, whether ledger, journal and the backends' bill agree, and how many more files, sockets and
bytes the gateway holds than before. The same seed draws the same faults.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]

from benchmarks.faults import well  # noqa: E402
from benchmarks.faults_stage import Models, Stage  # noqa: E402
from benchmarks.throughput.processes import rss_mib  # noqa: E402
from examples.digits import train  # noqa: E402
from tollway.backends.money import to_usd  # noqa: E402
from tollway.gameday.faults import parse  # noqa: E402
from tollway.gameday.proxy import FaultProxy  # noqa: E402

PEACE_S, FAULT_S = (0.2, 4.0), (0.2, 5.0)
REDIS_EVERY_S = (10.0, 30.0)
TO_MODELS = (
    *("refuse", "hang", "drop", "reset", "reset=300", "cut", "cut=150", "corrupt=0.02", "rate=200"),
    *("latency=200ms,jitter=200ms", "latency=2s", "slice=10", "hang,share=0.3", "reset,share=0.3"),
    # Not corrupt,side=requests: a backend answers a damaged request with 400, a client's error.
    *("cut,side=requests", "rate=500,side=requests", "hang,side=requests", "swallow=10"),
)
TO_REDIS = (
    *("refuse", "hang", "drop", "reset", "cut", "cut=20", "swallow=3", "latency=20ms,jitter=20ms"),
    *("latency=200ms", "slice=1", "rate=2kB", "reset,side=requests", "hang,share=0.5"),
)


@dataclass(frozen=True, slots=True)
class Soak:
    """The results. Money in dollars."""

    seconds: float
    faults: int
    large: int
    cpu: int
    rules: int
    refused: int
    failed: int
    slowest_s: float
    ledger_usd: float
    unproven_usd: float
    unwritten_usd: float
    descriptors: int
    rss_before_mib: float
    rss_after_mib: float


async def plague(
    proxy: FaultProxy, kinds: tuple[str, ...], rng: random.Random, struck: list[str]
) -> None:
    """Inject one fault after the other, until cancelled."""
    while True:
        await asyncio.sleep(rng.uniform(*PEACE_S))
        words = rng.choice(kinds)
        struck.append(words)
        async with proxy.struck(parse(words)):
            await asyncio.sleep(rng.uniform(*FAULT_S))


async def plague_redis(stage: Stage, rng: random.Random, struck: list[str]) -> None:
    """Kill or stop Redis now and then, until cancelled."""
    while True:
        await asyncio.sleep(rng.uniform(*REDIS_EVERY_S))
        kills = rng.random() < 0.5
        struck.append("killed" if kills else "stopped")
        (stage.redis.kill if kills else stage.redis.pause)()
        try:
            await asyncio.sleep(rng.uniform(*FAULT_S))
        finally:
            (stage.redis.start if kills else stage.redis.resume)()


async def soak(stage: Stage, seconds: float, per_s: float, seed: int) -> Soak:
    """Inject faults around a gateway for some seconds, and return the results."""
    struck: list[str] = []
    async with stage.standing():
        rss_before_mib = rss_mib(stage.gateway.pid)
        enough = asyncio.Event()
        load = asyncio.create_task(stage.load(per_s, enough))
        lots = [random.Random(f"{seed}/{number}") for number in range(4)]
        plagues = [
            asyncio.create_task(plague(stage.to_large, TO_MODELS, lots[0], struck)),
            asyncio.create_task(plague(stage.to_cpu, TO_MODELS, lots[1], struck)),
            asyncio.create_task(plague(stage.to_redis, TO_REDIS, lots[2], struck)),
            asyncio.create_task(plague_redis(stage, lots[3], struck)),
        ]
        await asyncio.wait([load, *plagues], timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in plagues:
            task.cancel()
        ended = await asyncio.gather(*plagues, return_exceptions=True)
        for one in ended:
            if not isinstance(one, asyncio.CancelledError):
                raise RuntimeError("a fault injector ended early") from one  # type: ignore[misc]
        await well(stage.answers, time.monotonic())
        enough.set()
        await load
        descriptors = await stage.left_open()
        rss_after_mib = rss_mib(stage.gateway.pid)
        bill = await stage.bill()
    who = Counter(answer.who for answer in stage.answers)
    return Soak(
        seconds,
        len(struck),
        large=who["large"],
        cpu=who["cpu"],
        rules=who["rules"],
        refused=who["refused"],
        failed=who["failed"],
        slowest_s=max(answer.done_s - answer.due_s for answer in stage.answers),
        ledger_usd=to_usd(bill.ledger_nano),
        unproven_usd=to_usd(bill.ledger_nano - bill.backends_nano),
        unwritten_usd=to_usd(bill.ledger_nano - bill.journal_nano),
        descriptors=descriptors,
        rss_before_mib=rss_before_mib,
        rss_after_mib=rss_after_mib,
    )


async def run(args: argparse.Namespace) -> Soak:
    with tempfile.TemporaryDirectory() as folder:
        models = Models(Path(folder), train.FOLDER)
        try:
            await models.start()
            stage = Stage(Path(folder), models, sentinel=False, workers=args.workers)
            return await soak(stage, args.seconds, args.rate, args.seed)
        finally:
            models.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="the gateway's worker processes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found = asyncio.run(run(args))
    for name, value in asdict(found).items():
        print(f"{name:16}{value:12.6g}")
    if args.json:
        args.json.write_text(json.dumps(asdict(found), indent=1))
    if found.failed or found.unproven_usd < 0 or found.unwritten_usd:
        sys.exit("requests failed, or money was lost")


if __name__ == "__main__":
    main()
