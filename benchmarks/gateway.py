"""How many requests a second a gateway carries, as a ratio to nginx as the proxy, in one run.

    python benchmarks/gateway.py --gateway "tollway serve bench.toml" --port 8080
    python benchmarks/gateway.py --json out.json            # the floors only

Starts an nginx upstream, then one contestant after the other, each alone and pinned to the first
core; wrk and the upstream have the second. `--gateway` is the command of a gateway that is to be
measured; in it {port} and {upstream} are replaced, and it must serve `--path` there. Figures of one
run on one machine compare with each other only: read the ratios. Needs nginx and wrk.
"""

import argparse
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

FLOOR = Path(__file__).parent / "floor.py"

if __name__ == "gateway":
    # A script beside this file meant the package of that name: a script's folder comes first on
    # the path. Step aside.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != FLOOR.resolve().parent]
    del sys.modules["gateway"]
    importlib.import_module("gateway")

REPLY = '{"outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[7]}]}'
BODY = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }}
}}
"""
ANSWER = "default_type application/json; return 200 '" + REPLY + "';"
PROXY = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'

WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "{key}"
wrk.body = [[{body}]]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %f %f %f\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant under one load. Latencies in ms, CPU in us a request, memory in MiB."""

    name: str
    connections: int
    requests_per_s: float
    errors: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_us: float
    rss_mib: float
    to_nginx: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk sends: to which path, for how long, with which script."""

    path: str
    seconds: int
    script: Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


def pinned(core: int) -> list[str]:
    """Return the prefix that keeps a command on one core, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core])] if len(cores) > 1 else []


@contextmanager
def started(command: list[str], port: int, core: int) -> Iterator[int]:
    """Run `command` until the block ends; yield its process id once the port answers."""
    process = subprocess.Popen([*pinned(core), *command], start_new_session=True)
    try:
        wait_for(port, process)
        yield process.pid
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(port: int, process: subprocess.Popen[bytes], patience_s: float = 30.0) -> None:
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nothing answered on port {port}")


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process and its descendants have used so far."""
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def wrk(port: int, connections: int, seconds: int, load: Load) -> list[float]:
    """Return what the script's RESULT line says."""
    url = f"http://127.0.0.1:{port}{load.path}"
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(load.script)]
    command = [*pinned(-1), "wrk", *options, url]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"RESULT (.*)", out)
    if found is None:
        raise SystemExit(f"wrk said nothing of use:\n{out}")
    return [float(word) for word in found.group(1).split()]


def measure(name: str, pid: int, port: int, connections: int, load: Load) -> Row:
    """Load a contestant, after a second to warm up."""
    wrk(port, connections, 1, load)
    before_s = cpu_s(pid)
    requests, micros, errors, p50, p99, p999 = wrk(port, connections, load.seconds, load)
    used_s = cpu_s(pid) - before_s
    return Row(
        name=name,
        connections=connections,
        requests_per_s=requests / micros * 1e6,
        errors=int(errors),
        p50_ms=p50 / 1000,
        p99_ms=p99 / 1000,
        p999_ms=p999 / 1000,
        cpu_us=used_s / requests * 1e6,
        rss_mib=rss_mib(pid),
    )


def nginx(folder: Path, name: str, port: int, location: str, upstream: int = 1) -> list[str]:
    """Return the command of an nginx with one location."""
    home = folder / name
    home.mkdir()
    config = home / "nginx.conf"
    config.write_text(NGINX.format(folder=home, port=port, location=location, upstream=upstream))
    return ["nginx", "-c", str(config), "-p", str(home), "-e", str(home / "error.log")]


def contestants(
    args: argparse.Namespace, folder: Path, upstream: int
) -> Iterator[tuple[str, int, list[str]]]:
    """Yield (name, port, command), nginx as the proxy first: the others are compared with it."""
    port = free_port()
    yield "nginx as the proxy", port, nginx(folder, "proxy", port, PROXY, upstream)
    for kind in ("uvicorn", "front", "relay"):
        port = free_port()
        options = ["--port", str(port), "--upstream", f"http://127.0.0.1:{upstream}"]
        yield kind, port, [sys.executable, str(FLOOR), kind, *options]
    if args.gateway:
        port = args.port or free_port()
        command = args.gateway.format(port=port, upstream=f"http://127.0.0.1:{upstream}")
        yield "gateway", port, shlex.split(command)


def run(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Measure every contestant under every number of connections."""
    script = folder / "load.lua"
    script.write_text(WRK.format(key=args.authorization, body=args.body))
    load = Load(args.path, args.seconds, script)
    rows: list[Row] = []
    upstream = args.upstream_port or free_port()
    with started(nginx(folder, "upstream", upstream, ANSWER), upstream, -1):
        for name, port, command in contestants(args, folder, upstream):
            with started(command, port, 0) as pid:
                rows += [measure(name, pid, port, count, load) for count in args.connections]
    return rows


def compared(rows: list[Row]) -> list[dict[str, object]]:
    """Return the rows with their throughput as a ratio to nginx's under the same load."""
    bar = {row.connections: row.requests_per_s for row in rows if row.name.startswith("nginx")}
    return [asdict(row) | {"to_nginx": row.requests_per_s / bar[row.connections]} for row in rows]


def show(rows: list[dict[str, object]]) -> None:
    print(f"{'':20}{'conn':>5}{'requests/s':>12}{'to nginx':>9}{'p50 ms':>8}{'p99 ms':>8}"
          f"{'p99.9':>8}{'CPU us':>8}{'MiB':>7}{'errors':>8}")  # fmt: skip
    for row in rows:
        print("{name:20}{connections:5}{requests_per_s:12,.0f}{to_nginx:9.3f}{p50_ms:8.2f}"
              "{p99_ms:8.2f}{p999_ms:8.2f}{cpu_us:8.1f}{rss_mib:7.0f}{errors:8}"
              .format_map(row))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gateway", help="the command that starts the gateway")
    parser.add_argument("--port", type=int, help="where the gateway listens, unless {port}")
    parser.add_argument("--upstream-port", type=int, help="where the upstream is to listen")
    parser.add_argument("--path", default="/v2/models/digits/infer")
    parser.add_argument("--body", default=BODY, help="the JSON that is posted")
    parser.add_argument("--authorization", default="Bearer none")
    parser.add_argument("--connections", type=lambda s: [int(n) for n in s.split(",")],
                        default=[1, 32, 128], metavar="N,N")  # fmt: skip
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: apt-get install {program}")
    with tempfile.TemporaryDirectory() as folder:
        rows = compared(run(args, Path(folder)))
    show(rows)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
