"""How fast the gateway is: throughput, latency and memory, as ratios to what else stands here.

    python benchmarks/throughput_gateway.py              # against nginx and our own floors, 5
    minutes
    python benchmarks/throughput_gateway.py --litellm    # and rivals, installed on first use
    python benchmarks/throughput_gateway.py --only gateway --profile flame.svg
    python benchmarks/throughput_gateway.py --workers              # two workers against one

Each contestant stands alone, pinned to the first core; wrk (or our own client) and the nginx that
answers as the upstream have the second. Tollway runs `gateway.toml`: a key, features, three arms, a
learned policy, hard budgets in two scopes, metrics, journal. Figures of one run on one machine
compare with each other only: read the ratios. Needs nginx and wrk.
"""

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "gateway":
    # A script beside this file meant the package of that name: a script's folder comes first on
    # the path. Step aside.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE]
    del sys.modules["gateway"]
    importlib.import_module("gateway")
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]

from benchmarks.throughput import cases, contestants, rivals  # noqa: E402
from benchmarks.throughput.contestants import FLOOR, Build, Contestant  # noqa: E402
from benchmarks.throughput.load import at_rate, percentile, request_bytes, wrk  # noqa: E402
from benchmarks.throughput.processes import (  # noqa: E402
    cpu_s,
    free_port,
    pinned,
    rss_mib,
    started,
    stay,
    wait_for,
)

__all__ = ["FLOOR", "free_port", "pinned", "rss_mib", "wait_for"]  # for the benchmarks beside this

RATE_PER_S = 1000
NGINX, RELAY, TOLLWAY = "nginx as the proxy", "plain ASGI + our transport", "Tollway"


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant under one load. Latencies in ms, CPU in us a request, memory in MiB."""

    name: str
    case: str
    connections: int
    requests_per_s: float
    errors: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_us: float
    rss_mib: float


@dataclass(frozen=True, slots=True)
class Added:
    """What a contestant adds to the latency of asking the upstream directly, in ms."""

    name: str
    load: str
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a run has its files, its upstream's port, and how long it loads each."""

    folder: Path
    upstream: int
    seconds: int

    @contextmanager
    def running(self, build: Build, core: int | None = 0) -> Iterator[tuple[Contestant, int]]:
        """Start a contestant; yield it and its process id."""
        with tempfile.TemporaryDirectory(dir=self.folder) as home:
            one, log = build(Path(home), self.upstream), Path(home) / "log"
            try:
                with started(one.command, one.port, core, one.environ, log) as pid:
                    yield one, pid
            except SystemExit:
                sys.stderr.write(log.read_text(errors="replace")[-2000:])
                raise

    def measure(self, one: Contestant, pid: int, case: cases.Case, connections: int) -> Row:
        """Load a contestant, once it is warm."""
        wrk(self.folder, one.port, case, one.headers, connections, one.warm_s)
        before_s = cpu_s(pid)
        found = wrk(self.folder, one.port, case, one.headers, connections, self.seconds)
        used_s = cpu_s(pid) - before_s
        return Row(
            name=one.name,
            case=case.name,
            connections=connections,
            requests_per_s=found.requests / found.seconds,
            errors=found.errors,
            p50_ms=found.p50_ms,
            p99_ms=found.p99_ms,
            p999_ms=found.p999_ms,
            cpu_us=used_s / max(1, found.requests) * 1e6,
            rss_mib=rss_mib(pid),
        )

    def loads(self, given: list[int]) -> Iterator[tuple[cases.Case, int]]:
        """Yield what each is loaded with."""
        for connections in given:
            yield cases.SMALL, connections
        for case in (*cases.BODIES, cases.CHAT, cases.STREAM):
            yield case, 32
        yield cases.CHAT, 1


def throughput(bench: Bench, builds: list[Build], connections: list[int]) -> list[Row]:
    """Measure every contestant under every load that it understands."""
    rows = []
    for build in builds:
        with bench.running(build) as (one, pid):
            for case, count in bench.loads(connections):
                if case.name in one.names:
                    rows.append(bench.measure(one, pid, case, count))
                    show([rows[-1]], rows)
    return rows


def latency(bench: Bench, builds: list[Build]) -> list[Added]:
    """Measure what each contestant adds: with one connection, and at a steady rate.

    Directly before and after each, for machines are not the same from minute to minute.
    """
    added = []
    for build in builds:
        with bench.running(build) as (one, _):
            for load, ask in (("1 connection", _alone), (f"{RATE_PER_S} requests/s", _steadily)):
                ask(bench, one.port, one)
                before = ask(bench, bench.upstream, one)
                through = ask(bench, one.port, one)
                after = ask(bench, bench.upstream, one)
                direct = [(a + b) / 2 for a, b in zip(before, after, strict=True)]
                p50, p99 = (t - d for t, d in zip(through, direct, strict=True))
                added.append(Added(one.name, load, p50, p99))
                print(f"{one.name:28}{load:>20}  added p50 {p50:7.3f} ms  p99 {p99:7.3f} ms")
    return added


def _alone(bench: Bench, port: int, one: Contestant) -> tuple[float, float]:
    found = wrk(bench.folder, port, cases.SMALL, one.headers, 1, bench.seconds)
    return found.p50_ms, found.p99_ms


def _steadily(bench: Bench, port: int, one: Contestant) -> tuple[float, float]:
    request = request_bytes(cases.SMALL, one.headers)
    replies = at_rate(port, request, RATE_PER_S, bench.seconds)
    wrong = sum(reply.status != 200 for reply in replies)
    if wrong:
        raise SystemExit(f"{wrong} of {len(replies)} replies were not 200")
    times = [reply.latency_s * 1e3 for reply in replies]
    return percentile(times, 0.5), percentile(times, 0.99)


def workers(bench: Bench) -> None:
    """Compare two workers with one, by the CPU that a request takes.

    With two cores for wrk, the upstream and both workers, throughput shows the sharing of cores;
    what a request costs in each shows whether workers hinder each other. Each worker has the same
    load in both: 32 connections.
    """
    rows = []
    for count in (1, 2) * 3:
        build = partial(contestants.gateway, workers=count)
        with bench.running(build, core=None) as (one, pid):
            rows.append(bench.measure(one, pid, cases.SMALL, 32 * count))
            show(rows[-1:], rows[-1:])
    one, two = (min(row.cpu_us for row in rows[start::2]) for start in (0, 1))
    print(f"CPU a request, least of three: {one:.1f} us with one worker, {two:.1f} us with two")
    print(f"two workers with a core each: {2 * one / two:.2f} times one")


def profile(bench: Bench, picture: Path) -> None:
    """Draw where the gateway's time goes while Python runs, under 32 connections."""
    with bench.running(contestants.gateway) as (one, pid):
        wrk(bench.folder, one.port, cases.SMALL, one.headers, 32, 1)
        command = ["py-spy", "record", "--gil", "-p", str(pid), "-d", "8", "-r", "200"]
        command += ["-o", str(picture)]
        with subprocess.Popen(command) as spy:
            wrk(bench.folder, one.port, cases.SMALL, one.headers, 32, 10)
            spy.wait()
    print(f"wrote {picture}")


# -- telling

HEAD = f"{'':28}{'case':>13}{'conn':>6}{'requests/s':>12}{'to nginx':>10}{'p50 ms':>9}{'p99 ms':>9}"
HEAD += f"{'p99.9':>9}{'CPU us':>9}{'MiB':>6}{'errors':>8}"


def ratio(row: Row, rows: list[Row], to: str) -> float | None:
    """Return a row's throughput as a share of another's under the same load."""
    for other in rows:
        if (other.name, other.case, other.connections) == (to, row.case, row.connections):
            return row.requests_per_s / other.requests_per_s
    return None


def show(new: list[Row], rows: list[Row]) -> None:
    """Print rows, with their throughput as a share of nginx's under the same load."""
    for row in new:
        share = ratio(row, rows, NGINX)
        told = f"{share:.4f}" if share is not None else ""
        print(
            f"{row.name:28}{row.case:>13}{row.connections:6}{row.requests_per_s:12,.0f}{told:>10}"
            f"{row.p50_ms:9.2f}{row.p99_ms:9.2f}{row.p999_ms:9.2f}{row.cpu_us:9.1f}"
            f"{row.rss_mib:6.0f}{row.errors:8}",
            flush=True,
        )


def conclude(rows: list[Row]) -> None:
    """Print Tollway's throughput as ratios to all others."""
    names = list(dict.fromkeys(row.name for row in rows if row.name != TOLLWAY))
    print()
    for row in (row for row in rows if row.name == TOLLWAY):
        shares = [(name, ratio(row, rows, name)) for name in names]
        told = ", ".join(f"{share:.2f} of {name}" for name, share in shares if share is not None)
        print(f"{row.case}, {row.connections} connections: {told}")


def chosen(args: argparse.Namespace) -> list[Build]:
    """Return the contestants asked for, nginx first: the others are compared with it."""
    own: dict[str, Build] = {
        "nginx": contestants.proxy,
        "uvicorn": contestants.floor("uvicorn", "uvicorn, fixed reply"),
        "front": contestants.floor("front", "guarded front, fixed reply"),
        "relay": contestants.floor("relay", RELAY),
        "gateway": contestants.gateway,
    }
    builds = [build for name, build in own.items() if not args.only or name in args.only]
    if args.litellm:
        builds.append(contestants.litellm(rivals.litellm(args.rivals)))
    if args.portkey:
        builds.append(contestants.portkey(rivals.portkey(args.rivals)))
    return builds


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME",
                        choices=["nginx", "uvicorn", "front", "relay", "gateway"])  # fmt: skip
    parser.add_argument("--litellm", action="store_true", help="measure LiteLLM's proxy too")
    parser.add_argument("--portkey", action="store_true", help="measure Portkey's gateway too")
    parser.add_argument("--rivals", type=Path, default=Path.home() / ".cache/tollway-rivals",
                        metavar="DIR", help="where the rivals are installed")  # fmt: skip
    parser.add_argument("--connections", type=lambda s: [int(n) for n in s.split(",")],
                        default=[1, 32, 128], metavar="N,N")  # fmt: skip
    parser.add_argument("--seconds", type=int, default=4, help="each load's duration")
    parser.add_argument("--no-latency", action="store_true", help="leave added latency out")
    parser.add_argument("--workers", action="store_true", help="only two workers against one")
    parser.add_argument("--profile", type=Path, metavar="SVG", help="only a picture, by py-spy")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    for program in ("nginx", "wrk", *(["py-spy"] if args.profile else [])):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: install it first")
    stay(-1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, home = free_port(), folder / "upstream"
        home.mkdir()
        stack.enter_context(started(contestants.upstream(home, port), port, -1))
        bench = Bench(folder, port, args.seconds)
        if args.profile:
            return profile(bench, args.profile)
        if args.workers:
            print(HEAD)
            return workers(bench)
        print(HEAD)
        rows = throughput(bench, chosen(args), args.connections)
        conclude(rows)
        added = [] if args.no_latency else latency(bench, chosen_latency(args))
    if args.json:
        found = {"rows": [asdict(row) for row in rows], "added": [asdict(one) for one in added]}
        args.json.write_text(json.dumps(found, indent=1))
    return None


def chosen_latency(args: argparse.Namespace) -> list[Build]:
    """Return those whose added latency is measured: the limit, the floor, and the gateway."""
    relay = contestants.floor("relay", RELAY)
    own = {"nginx": contestants.proxy, "relay": relay, "gateway": contestants.gateway}
    print()
    return [build for name, build in own.items() if not args.only or name in args.only]


if __name__ == "__main__":
    main()
