"""Measures what a tenant gets while another asks for ten times its share.

    python benchmarks/fairness.py [--seconds 10] [--rounds 3] [--json FILE]

The upstream of `overload.py` answers 400 calls a second. One tenant asks at a tenth of that,
alternately alone, and while another one asks at five times the capacity, ten times its half. All
requests are sent on time whatever happens (an open loop). The figure is the median over the rounds
of the ratio of the two 99th percentiles.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]

from benchmarks import overload  # noqa: E402
from benchmarks.throughput import cases  # noqa: E402
from benchmarks.throughput.load import at_rate, percentile, request_bytes  # noqa: E402
from benchmarks.throughput.processes import free_port, started  # noqa: E402
from tollway.gateway.security import keys  # noqa: E402

MODEST, GREEDY = 0.1 * overload.CAPACITY, 5 * overload.CAPACITY
BACKEND = f"concurrency = {overload.PLACES}"


@dataclass(frozen=True, slots=True)
class Row:
    """The modest tenant's latencies in ms, and the share of its requests that were answered."""

    other: str
    answered: float
    p50_ms: float
    p99_ms: float


def measure(other: str, port: int, key: str, seconds: float) -> Row:
    """Send the modest tenant's requests."""
    request = request_bytes(cases.SMALL, {"authorization": f"Bearer {key}"})
    replies = at_rate(port, request, MODEST, seconds, overload.PATIENCE_S)
    good = [reply.latency_s * 1e3 for reply in replies if reply.status == 200] or [0.0]
    p50, p99 = percentile(good, 0.5), percentile(good, 0.99)
    row = Row(other, len(good) / len(replies), p50, p99)
    print(f"{other:10}{row.answered:10.1%}{p50:10.1f}{p99:10.1f}", flush=True)
    return row


def flood(port: int, key: str, seconds: float) -> None:
    """Send the greedy tenant's requests."""
    request = request_bytes(cases.SMALL, {"authorization": f"Bearer {key}"})
    at_rate(port, request, GREEDY, seconds, overload.PATIENCE_S)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    modest, greedy = keys.new_key(), keys.new_key()
    print(f"{'other':10}{'answered':>10}{'p50 ms':>10}{'p99 ms':>10}")
    with tempfile.TemporaryDirectory() as folder, overload.upstream() as up:
        port, config = free_port(), Path(folder) / "tollway.toml"
        tenants = "".join(
            f'[[tenants]]\nname = "{name}"\nkey_hash = "{keys.hash_key(key)}"\n\n'
            for name, key in (("modest", modest), ("greedy", greedy))
        )
        text = overload.CONFIG.format(port=port, upstream=up, backend=BACKEND) + tenants
        config.write_text(text)
        with started([sys.executable, "-m", "tollway", "serve", str(config)], port, None):
            rows = []
            for _ in range(args.rounds):
                rows.append(measure("idle", port, modest, args.seconds))
                asking = multiprocessing.get_context("spawn").Process(
                    target=flood, args=[port, greedy, args.seconds + 2]
                )
                asking.start()
                try:
                    rows.append(measure("floods", port, modest, args.seconds))
                finally:
                    asking.kill()
                    asking.join()
    ratios = [busy.p99_ms / idle.p99_ms for idle, busy in zip(rows[::2], rows[1::2], strict=True)]
    print(f"ratio of the 99th percentiles: {median(ratios):.1f} (median of rounds)")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
