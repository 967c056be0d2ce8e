"""Measures what clients see, what is lost and how long recovery takes under real faults.

    python benchmarks/faults.py [--only WORD] [--seconds 5] [--rate 50] [--json FILE]

A gateway process, two model servers of the digits example, a Redis, and faults between them,
injected by the proxy of `tollway gameday` or by signals. The route calls the large model; its
fallbacks are the small model, and rules inside the gateway. Requests are sent at a steady rate.
Each row starts from scratch: some seconds without faults, the fault, and then until all answers
have been normal for two seconds.

`large` counts the answers of the large model, `cpu` and `rules` those of the others. `refused`
counts the statuses 402, 429 and 503; `failed` other statuses, broken connections, and no answer in
ten seconds. `longest gap` is the longest time between two answers. `first after` and `all after`
are the times from the fault's end to the first answer of the large model, and to the last request
that another backend answered. `charged` is the spend by the ledger, which must equal that of the
journal; the backends may have billed less (a broken call may have run), but not more. `left open`
counts the files and sockets that the gateway has open at the end, beyond those open when idle
before.

Needs the extras `redis` and `demo`, and redis-server.
"""

import argparse
import asyncio
import itertools
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [
    str(ROOT),
    *(entry for entry in sys.path if Path(entry).resolve() != ROOT / "benchmarks"),
]

from benchmarks.faults_stage import Answer, Models, Stage  # noqa: E402
from benchmarks.throughput.processes import family  # noqa: E402
from examples.digits import train  # noqa: E402
from tests.support.redis_server import wait_for_another  # noqa: E402
from tollway.backends.money import to_usd  # noqa: E402
from tollway.gameday.faults import parse  # noqa: E402
from tollway.gameday.proxy import FaultProxy  # noqa: E402

PEACE_S = 3.0  # without faults, before each fault
WELL_S = 2.0  # of normal answers, after which the row ends
GIVE_UP_S = 60.0  # twice the longest pause of a breaker

USUAL = "large"
UNANSWERED = ("refused", "failed")

Strike = Callable[[Stage, float], Awaitable[None]]
"""Injects a fault for some seconds, and returns when it is over."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault. Times in seconds, money in dollars; see above."""

    fault: str
    struck_s: float
    large: int
    cpu: int
    rules: int
    refused: int
    failed: int
    gap_s: float
    slowest_s: float
    first_s: float
    all_s: float
    ledger_usd: float
    unproven_usd: float
    unwritten_usd: float
    fds: int


def by_proxy(side: str, words: str) -> Strike:
    """Inject faults between the gateway and `large`, or `redis`."""

    async def strike(stage: Stage, seconds: float) -> None:
        proxy: FaultProxy = getattr(stage, f"to_{side}")
        async with proxy.struck(parse(words)):
            await asyncio.sleep(seconds)

    return strike


async def redis_restarted(stage: Stage, seconds: float) -> None:
    stage.redis.kill()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(stage.redis.start)


async def redis_stopped(stage: Stage, seconds: float) -> None:
    stage.redis.pause()
    await asyncio.sleep(seconds)
    stage.redis.resume()


async def failover(stage: Stage, seconds: float) -> None:
    """Kill the primary permanently; return when the Sentinels have promoted another."""
    stage.redis.kill()
    await asyncio.to_thread(wait_for_another, stage.ledger_url, stage.redis.port)


async def all_refuse(stage: Stage, seconds: float) -> None:
    async with stage.to_cpu.struck(parse("refuse")), stage.to_large.struck(parse("refuse")):
        await asyncio.sleep(seconds)


async def gateway_killed(stage: Stage, seconds: float) -> None:
    stage.kill_gateway()


async def worker_killed(stage: Stage, seconds: float) -> None:
    worker = family(stage.gateway.pid)[1]
    os.kill(worker, signal.SIGKILL)


FAULTS: dict[str, Strike] = {
    "nothing": by_proxy("large", "none"),
    "backend refuses": by_proxy("large", "refuse"),
    "backend hangs": by_proxy("large", "hang"),
    "network to it cut off": by_proxy("large", "drop"),
    "backend 1 s slower": by_proxy("large", "latency=1s"),
    "resets as it answers": by_proxy("large", "reset"),
    "dies in mid-body": by_proxy("large", "cut=200"),
    "its replies corrupted": by_proxy("large", "corrupt=0.01"),
    "sends 100 bytes a second": by_proxy("large", "rate=100"),
    "all models refuse": all_refuse,
    "Redis killed and restarted": redis_restarted,
    "Redis stopped": redis_stopped,
    "network to Redis cut off": by_proxy("redis", "drop"),
    "Redis 40 ms away": by_proxy("redis", "latency=40ms"),
    "all replies of Redis lost": by_proxy("redis", "swallow=1000000"),
    "Sentinel failover": failover,
    "the gateway killed and restarted": gateway_killed,
    "one of its two workers killed": worker_killed,
}


async def row(stage: Stage, fault: str, seconds: float, per_s: float) -> Row:
    """Inject a fault once into a gateway under load, and return the row."""
    async with stage.standing():
        enough = asyncio.Event()
        load = asyncio.create_task(stage.load(per_s, enough))
        await asyncio.sleep(PEACE_S)
        began_s = time.monotonic()
        await FAULTS[fault](stage, seconds)
        ended_s = time.monotonic()
        await well(stage.answers, ended_s)
        enough.set()
        await load
        fds = await stage.left_open()
        bill = await stage.bill()
    struck = [answer for answer in stage.answers if answer.done_s >= began_s]
    who = Counter(answer.who for answer in struck)
    came_s = sorted(answer.done_s for answer in struck if answer.who not in UNANSWERED)
    first_s = [a.done_s for a in struck if a.due_s >= ended_s and a.who == USUAL]
    others_s = [a.due_s for a in struck if a.who != USUAL]
    return Row(
        fault,
        struck_s=ended_s - began_s,
        large=who["large"],
        cpu=who["cpu"],
        rules=who["rules"],
        refused=who["refused"],
        failed=who["failed"],
        gap_s=max(b - a for a, b in itertools.pairwise([began_s, *came_s])),
        slowest_s=max(answer.done_s - answer.due_s for answer in struck),
        first_s=min(first_s, default=math.inf) - ended_s,
        all_s=max(0.0, max(others_s, default=ended_s) - ended_s),
        ledger_usd=to_usd(bill.ledger_nano),
        unproven_usd=to_usd(bill.ledger_nano - bill.backends_nano),
        unwritten_usd=to_usd(bill.ledger_nano - bill.journal_nano),
        fds=fds,
    )


async def well(answers: list[Answer], since_s: float) -> None:
    """Wait until answers have been normal for a while and no older request is running."""
    while (now_s := time.monotonic()) - since_s < GIVE_UP_S:
        await asyncio.sleep(0.1)
        late = [a for a in answers if a.done_s > now_s - WELL_S]
        if (
            now_s - since_s > WELL_S
            and late
            and all(answer.who == USUAL and answer.due_s >= since_s for answer in late)
        ):
            return


COLUMNS: dict[str, Callable[[Row], str]] = {
    "fault": lambda row: row.fault,
    "for": lambda row: f"{row.struck_s:.1f} s",
    "answered by large / cpu / rules": lambda row: f"{row.large} / {row.cpu} / {row.rules}",
    "refused": lambda row: str(row.refused),
    "failed": lambda row: str(row.failed),
    "longest gap": lambda row: f"{row.gap_s:.2f} s",
    "slowest": lambda row: f"{row.slowest_s:.2f} s",
    "first after": lambda row: f"{row.first_s:.2f} s",
    "all after": lambda row: f"{row.all_s:.2f} s",
    "charged": lambda row: f"${row.ledger_usd:.4f}",
    "charged, not billed": lambda row: f"${row.unproven_usd:.4f}",
    "left open": lambda row: str(max(0, row.fds)),
}


def show(row: Row, first: bool) -> None:
    if first:
        print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    print("| " + " | ".join(tell(row) for tell in COLUMNS.values()) + " |", flush=True)


async def table(args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        models = Models(Path(folder), train.FOLDER)
        try:
            await models.start()
            for number, fault in enumerate(fault for fault in FAULTS if args.only in fault):
                home = Path(folder) / str(number)
                home.mkdir()
                stage = Stage(
                    home, models, sentinel="Sentinel" in fault, workers=1 + ("workers" in fault)
                )
                rows.append(await row(stage, fault, args.seconds, args.rate))
                show(rows[-1], first=number == 0)
        finally:
            models.stop()
    return rows


def wrong(rows: list[Row]) -> list[str]:
    """Return the violations: failures while the gateway runs, and money that is lost."""
    lives = [row for row in rows if "killed" not in row.fault or "Redis" in row.fault]
    found = [f"{row.fault}: {row.failed} requests failed" for row in lives if row.failed]
    found += [f"{row.fault}: money was lost" for row in rows if row.unproven_usd < 0]
    found += [f"{row.fault}: ledger and journal differ" for row in lives if row.unwritten_usd]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="WORD", help="only faults with this in the name"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each fault")
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    args = parser.parse_args()
    rows = asyncio.run(table(args))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if problems := wrong(rows):
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
