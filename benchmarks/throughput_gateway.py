"""Measures what Tollway costs beside nginx: server CPU a request, throughput, latency, memory.

    python benchmarks/throughput_gateway.py                 # all cases: 5 minutes
    python benchmarks/throughput_gateway.py --quick --only oip chat
    python benchmarks/throughput_gateway.py --relay --litellm --portkey --mlflow
    python benchmarks/throughput_gateway.py --soak          # and a million requests
    python benchmarks/throughput_gateway.py --workers       # compare two workers with one
    python benchmarks/throughput_gateway.py --beside ../before      # and another checkout's Tollway

The figure to compare is `x_nginx_cpu`: the CPU (user + sys) that the server uses for a request,
divided by nginx's for the same request to the same upstream. All contestants stand at once, pinned
to the first core, and are loaded in turns, nginx, Tollway, nginx, Tollway, ...; each row has the
medians of its rounds. wrk and the upstream have the last core. Tollway runs `gateway.toml`: a key,
features, three arms, a learned policy, hard budgets in two scopes, metrics, journal.

The cases: `oip` and `chat` are small JSON requests; `stream` has 40 events, which the upstream
writes one by one; `cascade` keeps a cheap reply or escalates it, and is compared with nginx's CPU
times its upstream calls; `floor` seeks the lowest cost above an accuracy floor with a baseline.
Labels are fed beforehand. Needs nginx and wrk.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import soak, start
from benchmarks.throughput import cases, contestants, labels, rivals
from benchmarks.throughput.cases import CASES, DEFAULT, Case
from benchmarks.throughput.contestants import ADMIN_KEY, NGINX_NAME, TOLLWAY, Build, Contestant
from benchmarks.throughput.load import wrk
from benchmarks.throughput.machine import machine, python_build
from benchmarks.throughput.processes import cpu_s, free_port, rss_mib, started, stay
from benchmarks.throughput.rows import Round, Row, in_turns, row

CONNECTIONS = (1, 32, 128)
STARTS = 3  # cold starts
LABELS = 1000  # of each route
FLOOR_LABELS_MAX = 12_000  # until the floor's learned policy has all requests


class NoAnswerError(Exception):
    """A contestant answered no request in the time of a load."""


@dataclass(frozen=True, slots=True)
class Running:
    """A contestant that runs, and its process id."""

    one: Contestant
    pid: int


@dataclass(frozen=True, slots=True)
class Bench:
    """The folder of a run's files, the ports of the upstream and of its streams, and the duration
    of a load in seconds.
    """

    folder: Path
    upstream: int
    streams: int
    seconds: int

    @contextmanager
    def running(self, build: Build, core: int | None = 0) -> Iterator[Running]:
        """Start a contestant; yield it with its process id."""
        with tempfile.TemporaryDirectory(dir=self.folder) as home:
            one, log = build(Path(home), self.upstream), Path(home) / "log"
            try:
                with started(one.command, one.port, core, one.environ, log) as pid:
                    yield Running(one, pid)
            except SystemExit:
                sys.stderr.write(log.read_text(errors="replace")[-2000:])
                raise

    def load(self, run: Running, case: Case, connections: int, seconds: int) -> Round:
        """Load a contestant once. NoAnswerError if it answered nothing.

        At the end each connection has a request without an answer. Its CPU counts for those that
        were answered, which is a little too much for a slow server. Of streams it would be far too
        much: they are long, so their events are counted.
        """
        asked = run.one.cases[case.name].paced(connections)
        calls, events, used_s = self.calls(), self.events(), cpu_s(run.pid)
        found = wrk(self.folder, run.one.port, asked, run.one.headers, connections, seconds)
        used_s, events = cpu_s(run.pid) - used_s, self.events() - events
        calls = self.calls() - calls - 1  # less the question itself
        if not found.requests:
            raise NoAnswerError(f"{run.one.name} answered no request of the case {case.name!r}")
        return Round(
            requests_per_s=found.requests / found.seconds,
            cpu_us=used_s / (events / cases.EVENTS if case.streamed else found.requests) * 1e6,
            p50_ms=found.p50_ms,
            p99_ms=found.p99_ms,
            errors=found.errors,
            calls=calls / (found.requests + connections),
        )

    def calls(self) -> int:
        """Return the number of requests that the upstream has received."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.upstream}/status") as reply:
            return int(reply.read().split()[9])

    def events(self) -> int:
        """Return the number of events that the upstream has written to streams."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.streams}/") as reply:
            return int(reply.read())


def paired(
    bench: Bench, runs: list[Running], case: Case, connections: int, rounds: int
) -> list[Row]:
    """Load the contestants that support a case in turns; return their rows, nginx's first."""
    by_name = {run.one.name: run for run in runs if case.name in run.one.cases}

    def measured(name: str) -> Round:
        run = by_name[name]
        seconds = max(bench.seconds, run.one.least_s, case.least_s(connections))
        return bench.load(run, case, connections, seconds)

    for name in list(by_name):
        try:
            measured(name)  # warms it up
        except NoAnswerError as exc:
            if name in {NGINX_NAME, TOLLWAY}:
                raise
            print(f"left out: {exc}")
            del by_name[name]
    found = in_turns(list(by_name), rounds, measured)
    return [
        row(
            name,
            case.name,
            connections,
            own,
            found[NGINX_NAME],
            per_call=case.per_call and name != NGINX_NAME,
            rss_mib=rss_mib(by_name[name].pid),
            load_average=os.getloadavg()[0],
        )
        for name, own in found.items()
    ]


def taught(run: Running, chosen: list[Case]) -> labels.FloorState | None:
    """Feed the routes of the chosen cases with labels; return how the floor stands, if chosen."""
    port, headers = run.one.port, dict(run.one.headers)
    for case in chosen:
        if case.streamed or case.name == cases.FLOOR.name:
            continue
        label = labels.first_class if case is cases.CASCADE else labels.by_backend
        labels.feed(port, case, headers, ADMIN_KEY, LABELS, label)
    if cases.FLOOR not in chosen:
        return None
    for count in range(LABELS, FLOOR_LABELS_MAX + 1, LABELS):
        labels.feed(port, cases.FLOOR, headers, ADMIN_KEY, LABELS, labels.by_backend)
        state = labels.floor_state(metrics(port), "floor", count)
        if not state.guarded:
            break
    return state


def metrics(port: int) -> str:
    """Return the text of /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        return str(reply.read().decode())


def workers(bench: Bench) -> None:
    """Compare two workers with one, by the CPU of a request.

    With two cores for wrk, the upstream and both workers, throughput reflects the shared cores. The
    CPU of a request shows whether workers slow each other down. Each worker has the same load in
    both cases: 32 connections.
    """
    used: dict[int, list[float]] = {1: [], 2: []}
    for count in (1, 2) * 3:
        build = partial(contestants.gateway, workers=count)
        with bench.running(build, core=None) as run:
            bench.load(run, cases.SMALL, 32 * count, run.one.least_s)
            used[count].append(bench.load(run, cases.SMALL, 32 * count, bench.seconds).cpu_us)
    one, two = min(used[1]), min(used[2])
    print(f"CPU a request, best of three: {one:.1f} us with one worker, {two:.1f} us with two")
    print(f"two workers with a core each: {2 * one / two:.2f} times one")


# -- output

HEAD = f"{'':20}{'case':>9}{'conn':>5}{'requests/s':>12}{'CPU us':>9}{'x nginx':>9}{'of nginx':>9}"
HEAD += f"{'p50 ms':>9}{'x nginx':>9}{'p99 ms':>9}{'calls':>7}{'MiB':>6}{'errors':>8}{'load':>6}"


def show(one: Row) -> None:
    """Print a row."""
    print(
        f"{one.name:20}{one.case:>9}{one.connections:5}{one.requests_per_s:12,.0f}"
        f"{one.cpu_us:9.1f}{one.x_nginx_cpu:9.2f}{one.of_nginx:9.4f}{one.p50_ms:9.3f}"
        f"{one.x_nginx_p50:9.2f}{one.p99_ms:9.3f}{one.calls:7.2f}{one.rss_mib:6.0f}"
        f"{one.errors:8}{one.load_average:6.1f}",
        flush=True,
    )


def builds(args: argparse.Namespace) -> list[Build]:
    """Return the selected contestants, nginx first."""
    chosen: list[Build] = [contestants.proxy, partial(contestants.gateway, python=args.python)]
    if args.beside:
        chosen.append(contestants.beside(args.beside, args.python))
    if args.relay:
        chosen.append(contestants.floor("relay", "bare relay"))
    if args.litellm:
        chosen.append(contestants.litellm(rivals.litellm(args.rivals)))
    if args.portkey:
        chosen.append(contestants.portkey(rivals.portkey(args.rivals)))
    if args.mlflow:
        chosen.append(contestants.mlflow(rivals.mlflow(args.rivals)))
    return chosen


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="loads of one second, not of two")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=list(CASES),
                        default=[case.name for case in DEFAULT],
                        help=f"of {', '.join(CASES)}; default: the first five")  # fmt: skip
    parser.add_argument("--connections", type=lambda s: [int(n) for n in s.split(",")],
                        default=list(CONNECTIONS), metavar="N,N")  # fmt: skip
    parser.add_argument("--rounds", type=int, metavar="N", default=3,
                        help="loads of each contestant for a row")  # fmt: skip
    parser.add_argument("--python", default=sys.executable, metavar="FILE",
                        help="the Python that runs Tollway, which it has installed")  # fmt: skip
    parser.add_argument("--beside", type=Path, metavar="DIR",
                        help="also measure the Tollway of another checkout")  # fmt: skip
    parser.add_argument("--relay", action="store_true", help="also measure floor.py's bare relay")
    parser.add_argument("--litellm", action="store_true", help="also measure LiteLLM's proxy")
    parser.add_argument("--portkey", action="store_true", help="also measure Portkey's gateway")
    parser.add_argument("--mlflow", action="store_true", help="also measure MLflow's gateway")
    parser.add_argument("--rivals", type=Path, default=Path.home() / ".cache/tollway-rivals",
                        metavar="DIR", help="where the rivals are installed")  # fmt: skip
    parser.add_argument("--soak", nargs="?", type=int, const=1_000_000, metavar="REQUESTS",
                        help="then measure how memory grows, over a million requests")  # fmt: skip
    parser.add_argument("--workers", action="store_true", help="only compare two workers with one")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def measure(bench: Bench, args: argparse.Namespace) -> dict[str, object]:
    """Measure everything that was asked for; return the document of `--json`."""
    chosen = [CASES[name] for name in args.only]
    starts = start.several(STARTS, args.python)
    cold_s, cold_cpu_s = (
        median(getattr(one, name) for one in starts) for name in ("wall_s", "cpu_s")
    )
    print(f"cold start of Tollway: {cold_s:.2f} s, CPU {cold_cpu_s:.2f} s (medians of {STARTS})")
    rows: list[Row] = []
    with ExitStack() as stack:
        runs = [stack.enter_context(bench.running(build)) for build in builds(args)]
        tollway = next(run for run in runs if run.one.name == TOLLWAY)
        memory = {"ready": rss_mib(tollway.pid)}
        floor = taught(tollway, chosen)
        for run in runs:
            if run.one.name == contestants.BESIDE:
                taught(run, chosen)
        if floor is not None:
            print(f"floor: {floor}")
        print(HEAD)
        for case in chosen:
            for connections in args.connections:
                rows += paired(bench, runs, case, connections, args.rounds)
                for one in rows[-len(runs) :]:
                    if (one.case, one.connections) == (case.name, connections):
                        show(one)
        memory["after"] = rss_mib(tollway.pid)
    return {
        "python": asdict(python_build(args.python)),
        "machine": machine(),
        "rounds": args.rounds,
        "seconds": bench.seconds,
        "cold_start_s": cold_s,
        "cold_start_cpu_s": cold_cpu_s,
        "rss_mib": memory,
        "floor": asdict(floor) if floor is not None else None,
        "soak": soaked(args.soak, args.python) if args.soak else None,
        "rows": [asdict(one) for one in rows],
    }


def soaked(requests: int, python: str) -> dict[str, object]:
    """Send Tollway many requests; return its memory at the start, when warm, and the growth."""
    marks = soak.soak(requests, python=python)
    soak.conclude(marks)
    return asdict(soak.growth(marks))


def main() -> None:
    args = arguments()
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: install it first")
    stay(-1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, streams, home = free_port(), free_port(), folder / "upstream"
        home.mkdir()
        stack.enter_context(started(contestants.streams(streams), streams, -1))
        stack.enter_context(started(contestants.upstream(home, port, streams), port, -1))
        bench = Bench(folder, port, streams, 1 if args.quick else 2)
        if args.workers:
            return workers(bench)
        document = measure(bench, args)
    if args.json:
        args.json.write_text(json.dumps(document, indent=1))
    return None


if __name__ == "__main__":
    main()
