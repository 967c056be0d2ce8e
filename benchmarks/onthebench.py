"""Measures what a gateway adds to a call that takes 20 ms: p50, p99, and the first token.

    python benchmarks/onthebench.py                          # nginx and Tollway: two minutes
    python benchmarks/onthebench.py --litellm --portkey --mlflow
    python benchmarks/onthebench.py --rates 50,200 --json FILE

The definition is the usual one for gateways of language models: a mock upstream answers after a
fixed time, requests arrive at a constant rate whether or not earlier ones are answered, and what
is shown is a gateway's latency at a percentile less that of the upstream asked directly. Of a
stream, the first token is the first event that arrives; `end` is the last.

All contestants stand at once, on the first core; the upstream and the load are on the last. They
are loaded in turns, and each figure is the median of its rounds. Tollway runs `gateway.toml`: a
key, features, three arms, a learned policy, hard budgets in two scopes, metrics, journal.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.throughput import cases, contestants, rivals
from benchmarks.throughput.cases import Case
from benchmarks.throughput.contestants import Build, Contestant
from benchmarks.throughput.load import percentile, request_bytes
from benchmarks.throughput.machine import machine
from benchmarks.throughput.processes import cpu_s, free_port, started, stay

UPSTREAM = Path(__file__).parent / "throughput" / "delayed_upstream.py"
DELAY_MS = 20.0
RATES = (50, 200)  # requests a second: idle, and a fifth of what the slowest can do
PATIENCE_S = 10.0
WARM_S = 2.0
DIRECT = "the upstream itself"
CASES = {"chat": cases.CHAT, "stream": cases.STREAM}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status (0: none), and when its first and last bytes came, from when due."""

    status: int
    first_s: float
    end_s: float


class Caller(asyncio.Protocol):
    """A connection that carries one request at a time."""

    # The mutable state is the reply so far, when its first event came, and what waits for it.

    def __init__(self) -> None:
        self.lost = False
        self._data = b""
        self._first_s = 0.0
        self._asking: asyncio.Future[tuple[int, float, float]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    async def ask(self, request: bytes) -> tuple[int, float, float]:
        """Return the status, and the times of the first event or byte of the body and the end."""
        self._data, self._first_s = b"", 0.0
        self._asking = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._asking

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        fields = head.lower()
        if body and not self._first_s:
            self._first_s = now_s
        if b"transfer-encoding: chunked" in fields:
            done = body.endswith(b"0\r\n\r\n")
        else:
            _, _, after = fields.partition(b"content-length:")
            done = bool(after) and len(body) >= int(after.split(b"\r\n", 1)[0])
        if done and self._asking is not None and not self._asking.done():
            self._asking.set_result((int(head[9:12]), self._first_s or now_s, now_s))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._asking is not None and not self._asking.done():
            self._asking.set_exception(ConnectionResetError("closed before the reply was whole"))


async def sent(port: int, requests: list[bytes], per_s: float, seconds: float) -> list[Reply]:
    """Send requests in turns at a constant rate, over as many connections as needed."""
    loop = asyncio.get_running_loop()
    idle: list[Caller] = []
    tasks: list[asyncio.Task[Reply]] = []
    began_s = time.perf_counter()

    async def call(request: bytes, due_s: float) -> Reply:
        try:
            async with asyncio.timeout(PATIENCE_S):
                caller = idle.pop() if idle else None
                if caller is None or caller.lost:
                    _, caller = await loop.create_connection(Caller, "127.0.0.1", port)
                status, first_s, end_s = await caller.ask(request)
        except (OSError, TimeoutError):
            return Reply(0, PATIENCE_S, PATIENCE_S)
        idle.append(caller)
        return Reply(status, first_s - due_s, end_s - due_s)

    for number in range(int(per_s * seconds)):
        due_s = began_s + number / per_s
        if (wait_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.create_task(call(requests[number % len(requests)], due_s)))
    replies = await asyncio.gather(*tasks)
    for caller in idle:
        caller.transport.close()
    return list(replies)


@dataclass(frozen=True, slots=True)
class Round:
    """One load: percentiles in ms, the errors, and the server's CPU of a request in us."""

    first_p50: float
    first_p99: float
    end_p50: float
    end_p99: float
    errors: int
    cpu_us: float


def load(one: Contestant, pid: int, case: Case, per_s: float, seconds: float) -> Round:
    """Load a contestant once."""
    asked = one.cases[case.name].paced(32)
    fields: Mapping[str, str] = {**one.headers}
    requests = [
        request_bytes(Case(asked.name, asked.path, (body,), asked.headers), fields)
        for body in asked.bodies
    ]
    used_s = cpu_s(pid) if pid else 0.0
    replies = uvloop.run(sent(one.port, requests, per_s, seconds))
    used_s = (cpu_s(pid) if pid else 0.0) - used_s
    first = [reply.first_s * 1e3 for reply in replies]
    end = [reply.end_s * 1e3 for reply in replies]
    return Round(
        percentile(first, 0.5),
        percentile(first, 0.99),
        percentile(end, 0.5),
        percentile(end, 0.99),
        sum(reply.status != 200 for reply in replies),
        used_s / len(replies) * 1e6,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """What a contestant adds, in ms: medians of its rounds, less those of the upstream itself."""

    name: str
    case: str
    per_s: float
    first_p50: float
    first_p99: float
    end_p50: float
    end_p99: float
    errors: int
    cpu_us: float


FIGURES = ("first_p50", "first_p99", "end_p50", "end_p99")


def row(name: str, case: str, per_s: float, own: list[Round], direct: list[Round]) -> Row:
    """Return the row of a contestant; that of the upstream itself has its own figures."""
    found = {
        figure: median(getattr(one, figure) for one in own)
        - (0.0 if own is direct else median(getattr(one, figure) for one in direct))
        for figure in FIGURES
    }
    errors, cpu_us = sum(one.errors for one in own), median(one.cpu_us for one in own)
    return Row(name, case, per_s, **found, errors=errors, cpu_us=cpu_us)


HEAD = f"{'':22}{'case':>8}{'per s':>7}{'p50 ms':>9}{'p99 ms':>9}{'end p50':>9}{'end p99':>9}"
HEAD += f"{'CPU us':>8}{'errors':>8}"


def show(one: Row) -> None:
    """Print a row."""
    print(
        f"{one.name:22}{one.case:>8}{one.per_s:7.0f}{one.first_p50:9.2f}{one.first_p99:9.2f}"
        f"{one.end_p50:9.2f}{one.end_p99:9.2f}{one.cpu_us:8.0f}{one.errors:8}",
        flush=True,
    )


def builds(args: argparse.Namespace) -> list[Build]:
    """Return the selected contestants."""
    chosen: list[Build] = [contestants.gateway]
    if shutil.which("nginx"):
        chosen.insert(0, contestants.proxy)
    if args.litellm:
        chosen.append(contestants.litellm(rivals.litellm(args.rivals)))
    if args.portkey:
        chosen.append(contestants.portkey(rivals.portkey(args.rivals)))
    if args.mlflow:
        chosen.append(contestants.mlflow(rivals.mlflow(args.rivals)))
    return chosen


def measure(args: argparse.Namespace) -> list[Row]:
    """Measure and print everything that was asked for; return the rows."""
    rows: list[Row] = []
    with ExitStack() as stack:
        port = free_port()
        command = [sys.executable, str(UPSTREAM), str(port), str(args.delay_ms)]
        stack.enter_context(started(command, port, -1))
        runs = [(Contestant(DIRECT, [], port, contestants.CHATS), 0)]
        for build in builds(args):
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            one = build(home, port)
            pid = stack.enter_context(started(one.command, one.port, 0, one.environ, home / "log"))
            runs.append((one, pid))
        print(f"upstream: {args.delay_ms:g} ms. p50 and p99: of the first bytes or event, added")
        print(HEAD)
        for case in (CASES[name] for name in args.only):
            for per_s in args.rates:
                ask = partial(load, case=case, per_s=per_s)
                for one, pid in runs:
                    ask(one, pid, seconds=max(WARM_S, one.least_s))
                found: dict[str, list[Round]] = {one.name: [] for one, _ in runs}
                for _ in range(args.rounds):
                    for one, pid in runs:
                        found[one.name].append(ask(one, pid, seconds=args.seconds))
                for name, own in found.items():
                    rows.append(row(name, case.name, per_s, own, found[DIRECT]))
                    show(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rates", type=lambda s: [float(n) for n in s.split(",")],
                        default=list(RATES), metavar="N,N", help="requests a second")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=5.0, help="of a load")
    parser.add_argument("--rounds", type=int, default=3, help="loads of each contestant for a row")
    parser.add_argument("--delay-ms", type=float, default=DELAY_MS, help="of the upstream")
    parser.add_argument("--litellm", action="store_true", help="also measure LiteLLM's proxy")
    parser.add_argument("--portkey", action="store_true", help="also measure Portkey's gateway")
    parser.add_argument("--mlflow", action="store_true", help="also measure MLflow's gateway")
    parser.add_argument("--rivals", type=Path, default=Path.home() / ".cache/tollway-rivals",
                        metavar="DIR", help="where the rivals are installed")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    stay(-1)
    rows = measure(args)
    if args.json:
        document = {"machine": machine(), "rows": [asdict(one) for one in rows]}
        args.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
