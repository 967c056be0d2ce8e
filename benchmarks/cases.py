"""Runs situations of LLM clients and servers through Tollway and its rivals.

    python benchmarks/cases.py                                  # Tollway alone: a minute
    python benchmarks/cases.py --litellm --portkey --mlflow     # installs what is missing
    python benchmarks/cases.py --only stream --json cases.json
    python benchmarks/cases.py --folder DIR [--clients PYTHON]  # also the scripts of a folder

A mock server answers with exact bytes; a client checks what the gateway makes of them. All gateways
are asked the same, one after the other, each in one process for all situations, so that what one
situation leaves behind (a shut breaker, a broken connection) shows in the next.

The scripts of a folder are run one by one and print lines that begin with PASS or FAIL. In them
`@PROJECT@`, `@PY@`, `@CLIENTS_PY@` and `@WORK@` stand for this checkout, its Python, a Python with
more clients (`--clients`), and a folder to write to. They start Tollway themselves.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

BENCHMARKS = Path(__file__).parent
PROJECT = BENCHMARKS.parent
sys.path.insert(0, str(PROJECT))

from benchmarks.situations import chats, endpoints, gateways, streams, wire  # noqa: E402
from benchmarks.situations.client import Client, Reply  # noqa: E402
from benchmarks.situations.gateways import Gateway  # noqa: E402
from benchmarks.situations.situation import CHAT, Situation, ask, chat  # noqa: E402
from benchmarks.situations.upstream import Upstream, reply  # noqa: E402
from benchmarks.throughput import rivals  # noqa: E402
from benchmarks.throughput.processes import free_port, started  # noqa: E402

GROUPS: dict[str, Sequence[Situation]] = {
    "replies": chats.REPLY_CHATS,
    "requests": chats.REQUEST_CHATS,
    "streams": streams.STREAMS,
    "HTTP": wire.WIRE,
    "endpoints": endpoints.ENDPOINTS,
    "other dialects": endpoints.DIALECTS,
    "errors": chats.ERRORS,  # last: a gateway that cools down after them fails what follows
}
SCRIPT_S = 300  # a script of a folder that takes longer has hung
START_S = 180.0  # LiteLLM takes a minute while the machine is busy
Build = Callable[[Path, int, int], Gateway]
"""Returns a gateway, given a folder, its port and the upstream's."""


def verdict(situation: Situation, client: Client, upstream: Upstream) -> str:
    """Return why a situation fails; nothing if it does not."""
    upstream.answer = situation.answer
    try:
        situation.check(client, upstream)
    except Exception as wrong:  # whatever a client hits is a failure of the gateway
        return f"{type(wrong).__name__}: {wrong}"[:300]
    return ""


def ready(client: Client, upstream: Upstream) -> None:
    """Ask until an ordinary chat is answered: some gateways listen before they can answer.

    RuntimeError if none is within ten tries.
    """
    upstream.answer = lambda _: reply(chat())
    said: object = None
    for _turn in range(10):
        try:
            said = client.ask(CHAT, ask())
        except OSError as silent:
            said = silent
        if isinstance(said, Reply) and said.status == 200:
            return
    raise RuntimeError(f"no ordinary chat is answered: {said}")


def run(build: Build, only: str) -> tuple[Gateway, dict[str, str]]:
    """Return a gateway and the verdict on each situation."""
    upstream, port = Upstream(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        gateway = build(Path(folder), port, upstream.port)
        print(f"{gateway.name} {gateway.version}", file=sys.stderr)
        log = Path(folder) / "log"
        with started(gateway.command, port, None, gateway.environ, log, START_S):
            client = Client(port, gateway.headers)
            ready(client, upstream)
            found = {}
            for group, situations in GROUPS.items():
                for one in situations:
                    if only in f"{group}: {one.name}":
                        found[f"{group}: {one.name}"] = verdict(one, client, upstream)
    return gateway, found


def builds(chosen: argparse.Namespace) -> list[Build]:
    """Return the gateways that were asked for, installed."""
    home: Path = chosen.rivals
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True,
        cwd=PROJECT,
    ).stdout.strip()  # fmt: skip
    out: list[Build] = [lambda f, p, u: gateways.tollway(f, p, u, commit)]
    if chosen.litellm:
        program = rivals.litellm(home)
        made = gateways.version_of_python(program, "litellm")
        out.append(lambda f, p, u: gateways.litellm(program, f, p, u, made))
    if chosen.portkey:
        package = rivals.portkey(home)
        of_node = gateways.version_of_node(package)
        out.append(lambda f, p, u: gateways.portkey(package, p, u, of_node))
    if chosen.mlflow:
        flow = rivals.mlflow(home)
        of_flow = gateways.version_of_python(flow, "mlflow")
        out.append(lambda f, p, u: gateways.mlflow(flow, f, p, u, of_flow))
    return out


def table(results: list[tuple[Gateway, dict[str, str]]]) -> str:
    """Return what passes by group, then the situations that some gateway fails, in Markdown."""
    names = " | ".join(f"{gateway.name} {gateway.version}" for gateway, _ in results)
    rule = "|---|" + "---|" * len(results)
    lines = [f"| situations | {names} |", rule]
    for group in dict.fromkeys(name.partition(": ")[0] for name in results[0][1]):
        rows = [[why for name, why in found.items() if name.startswith(f"{group}: ")]
                for _, found in results]  # fmt: skip
        lines.append(f"| {group}: {len(rows[0])} | {' | '.join(str(_passed(r)) for r in rows)} |")
    totals = " | ".join(f"**{_passed(list(found.values()))}**" for _, found in results)
    lines += [f"| **all: {len(results[0][1])}** | {totals} |", ""]
    lines += [f"| failed by some | {names} |", rule]
    for name in results[0][1]:
        if any(found[name] for _, found in results):
            cells = " | ".join("no" if found[name] else "yes" for _, found in results)
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def _passed(whys: list[str]) -> int:
    return sum(not why for why in whys)


def scripts(folder: Path, clients: str) -> list[tuple[str, int, list[str]]]:
    """Return for each script of a folder its name, its PASS lines, and what failed."""
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        said = {"@PROJECT@": str(PROJECT), "@PY@": sys.executable, "@CLIENTS_PY@": clients,
                "@WORK@": made}  # fmt: skip
        for source in folder.glob("*.py"):
            text = source.read_text()
            for mark, value in said.items():
                text = text.replace(mark, value)
            (work / source.name).write_text(text)
        return [script(one, clients) for one in sorted(work.glob("[0-9]*.py"))]


def script(path: Path, clients: str) -> tuple[str, int, list[str]]:
    try:
        done = subprocess.run(
            [clients, str(path)],
            check=False,
            capture_output=True,
            text=True,
            timeout=SCRIPT_S,
            cwd=path.parent,
        )
    except subprocess.TimeoutExpired:
        return path.stem, 0, [f"not done after {SCRIPT_S} s"]
    lines = done.stdout.splitlines()
    failed = [line for line in lines if re.match("FAIL|GATEWAY", line)]
    if done.returncode:
        failed += done.stderr.splitlines()[-1:] or [f"exit code {done.returncode}"]
    return path.stem, sum(line.startswith("PASS") for line in lines), failed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--litellm", action="store_true", help="also ask LiteLLM's proxy")
    parser.add_argument("--portkey", action="store_true", help="also ask Portkey's gateway")
    parser.add_argument("--mlflow", action="store_true", help="also ask MLflow's gateway")
    parser.add_argument("--rivals", type=Path, default=Path.home() / ".cache/tollway-rivals",
                        metavar="DIR", help="where they are installed")  # fmt: skip
    parser.add_argument("--only", default="", metavar="TEXT", help="situations with it in the name")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="also run this folder's scripts")
    parser.add_argument("--clients", default=sys.executable, metavar="PYTHON",
                        help="the Python of these scripts")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    results = [run(build, chosen.only) for build in builds(chosen)]
    print(table(results))
    for gateway, found in results:
        for name, why in found.items():
            if why:
                print(f"{gateway.name}: {name}: {why}", file=sys.stderr)
    if chosen.json:
        chosen.json.write_text(json.dumps(
            {f"{gateway.name} {gateway.version}": found for gateway, found in results}, indent=1,
        ))  # fmt: skip
    failed = [name for name, why in results[0][1].items() if why]
    if chosen.folder:
        for name, passed, wrong in scripts(chosen.folder, chosen.clients):
            print(f"{name}: {passed} passed" + "".join(f"\n  {line}" for line in wrong))
            failed += wrong
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
