"""Rolls out versions of the digits model on real processes, beside Argo's fixed thresholds.

    python benchmarks/rollouts_live.py [--rate 200] [--only worse nan] [--json FILE]

v1 is the demo's small network, in a process of its own; v2 is a second process that is better (the
demo's ensemble), wrong in 5 points more, fails in 2 %, costs 20 % more, or answers NaN in 2 %. Both
have computed their answers to the 899 held-out images before, so that two cores are enough. A
gateway process serves them with a canary of 10, 50 and 100 % and the default criteria; a client
sends requests at a constant rate, from 2,000 users, and the true label of each within 0.25 s.

Argo Rollouts is computed on the same requests and the same answers: 60 s at each weight, analyses
every 10 s over the last 60 s, `failureLimit` 2, and thresholds of an operator who knows v1 well:
1 % errors, 2 points of quality, 10 % of the cost. It counts NaN as no error, as a proxy does.

A request is harmed if v2 got it and its answer is an error, NaN, wrong where v1's is right, or
costs more. A failure counts even if the gateway's fallback to v1 answered its client.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]

from benchmarks.throughput.processes import free_port, started  # noqa: E402
from examples.digits import train  # noqa: E402
from examples.digits.data import halves  # noqa: E402

VARIANTS = ("better", "worse", "errors", "costlier", "nan")
USERS = 2000
CONNECTIONS = 24
LABELS_S = 0.25
POLL_S = 0.5
PRICE_USD = 0.0001
COSTLIER = 1.2
LAST_S = 240.0

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
allow_anonymous = true
feedback_per_s = 100000

[ledger]
url = "sqlite:///tollway.db"

[[backends]]
name = "v1"
kind = "cpu"
protocol = "oip"
url = "http://127.0.0.1:{v1}"
price = {{ per_request_usd = {price} }}

[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["v1"]
policy = "cheapest"
score = {{ exact = "outputs[0].data[0]" }}

[[rollouts]]
name = "v2"
backend = "v1"
candidate = {{ url = "http://127.0.0.1:{v2}", price = {{ per_request_usd = {price2} }} }}
sticky = "header:x-user-id"
steps = [{{ setWeight = 10 }}, {{ setWeight = 50 }}, {{ setWeight = 100 }}]
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the versions answer to each held-out image, and what is right."""

    small: np.ndarray
    large: np.ndarray
    right: np.ndarray

    def of(self, variant: str, number: int) -> int | None:
        """Return a version's answer to request `number`: -1 if it fails, None for NaN."""
        image = number % len(self.right)
        answer = int((self.large if variant == "better" else self.small)[image])
        luck = zlib.crc32(f"luck {number}".encode()) % 1000
        if variant == "worse" and luck < 53 and answer == self.right[image]:
            return (answer + 1) % 10  # 5.3 % of the right ones: 5 points
        if variant == "errors" and luck < 20:
            return -1
        if variant == "nan" and luck < 20:
            return None
        return answer

    def harms(self, variant: str, number: int) -> bool:
        """Whether a version harms request `number`, compared with v1."""
        answer, image = self.of(variant, number), number % len(self.right)
        if answer is None or answer < 0 or variant == "costlier":
            return True
        return bool(answer != self.right[image] and self.small[image] == self.right[image])


def answers(folder: Path) -> Answers:
    """Return what the trained models answer; it is computed once."""
    file = folder / "answers.npz"
    _, held_out = halves()
    if not file.exists():
        both = {
            name: train.get(kind, folder, large="ensemble").read(held_out.images)
            for name, kind in (("small", "cpu"), ("large", "large"))
        }
        np.savez(file, **{name: one.probabilities.argmax(1) for name, one in both.items()})
    saved = np.load(file)
    return Answers(saved["small"], saved["large"], held_out.labels)


# -- a version, as a process


def serve(variant: str, port: int, folder: Path) -> None:
    """Serve a version until it is ended."""
    import uvicorn  # noqa: PLC0415 - only servers need it

    known = answers(folder)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, reply = 200, b"{}"
        if scope["method"] == "POST":
            number = int(orjson.loads(body)["id"])
            answer = known.of(variant, number)
            text = "NaN" if answer is None else str(answer)
            status = 500 if answer == -1 else 200
            reply = (
                '{"model_name":"digits","outputs":[{"name":"label","shape":[1],"datatype":"FP64",'
                f'"data":[{text}]}}]}}'
            ).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")


# -- the client


class Connection:
    """One keep-alive connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._host = "{}:{}".format(*writer.get_extra_info("peername"))

    async def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request; return the status, the header and the body of its reply."""
        fields = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\n{fields}"
        self._writer.write(
            f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        raw = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = raw.split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        reply = await self._reader.readexactly(int(found.get("content-length", "0")))
        return int(lines[0].split()[1]), found, reply


@dataclass(slots=True)
class Live:
    """How a rollout went: its outcome, after how long, and how many requests v2 harmed."""

    outcome: str
    seconds: float
    requests: int
    candidate: int
    harmed: int
    lost: int
    why: str


async def run(  # noqa: PLR0915 - one dialogue of client and gateway
    variant: str, port: int, known: Answers, rate: float
) -> Live:
    """Send requests and labels until the rollout is decided."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(Connection(*await asyncio.open_connection("127.0.0.1", port)))
    control = Connection(*await asyncio.open_connection("127.0.0.1", port))
    feeding = Connection(*await asyncio.open_connection("127.0.0.1", port))
    labels: list[dict[str, Any]] = []
    live = Live("", 0.0, 0, 0, 0, 0, "")
    pixels = [0.0] * 64

    async def one(number: int) -> None:
        connection = await free.get()
        inputs = [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": pixels}]
        body = orjson.dumps({"id": str(number), "inputs": inputs})
        user = str(zlib.crc32(f"user {number}".encode()) % USERS)
        path = "/v2/models/digits/infer"
        status, header, _ = await connection.ask("POST", path, body, x_user_id=user)
        free.put_nowait(connection)
        live.requests += 1
        live.lost += status != 200
        fell_back = header.get("x-tollway-reason") == "fallback"
        if header.get("x-tollway-backend") == "v2" or fell_back:
            live.candidate += 1
            live.harmed += known.harms(variant, number)
        if status == 200:
            right = int(known.right[number % len(known.right)])
            labels.append({"decision": header["x-tollway-decision"], "label": right})

    async def feed() -> None:
        while True:
            await asyncio.sleep(LABELS_S)
            sent, labels[:] = labels[:], []
            if sent:
                await feeding.ask("POST", "/_tollway/feedback", orjson.dumps(sent))

    async def watch() -> dict[str, Any]:
        while True:
            found: dict[str, Any] = orjson.loads(
                (await control.ask("GET", "/_tollway/rollouts/v2"))[2]
            )
            if found["phase"] not in {"idle", "progressing"}:
                return found
            await asyncio.sleep(POLL_S)

    act = orjson.dumps({"action": "start", "who": "benchmark", "why": variant})
    started_s = time.monotonic()
    status, _, reply = await control.ask("POST", "/_tollway/rollouts/v2", act)
    assert status == 200, reply
    fed, watching = asyncio.create_task(feed()), asyncio.create_task(watch())
    asked: set[asyncio.Task[None]] = set()
    number = 0
    while not watching.done() and time.monotonic() < started_s + LAST_S:
        while number < (time.monotonic() - started_s) * rate and len(asked) < 1000:
            task = asyncio.create_task(one(number))
            asked.add(task)
            task.add_done_callback(asked.discard)
            number += 1
        await asyncio.sleep(0.002)
    live.seconds = time.monotonic() - started_s
    await asyncio.gather(*asked)
    fed.cancel()
    if watching.done():
        found = watching.result()
        live.outcome, live.why = found["phase"], found["why"]
    watching.cancel()
    return live


# -- Argo, on the same requests


def argo(variant: str, known: Answers, rate: float) -> Live:
    """Compute what fixed thresholds make of the same requests."""
    live = Live("", 0.0, 0, 0, 0, 0, "")
    quality = float((known.small == known.right).mean()) - 0.02
    window: deque[tuple[float, bool, bool]] = deque()
    failed, weights, number = 0, [0.1, 0.5, 1.0], 0
    for step, weight in enumerate(weights):
        for second in range(60):
            for _ in range(int(rate)):
                user = zlib.crc32(f"user {number}".encode()) % USERS
                if zlib.crc32(f"argo {user}".encode()) / 2**32 < weight:
                    answer = known.of(variant, number)
                    right = answer == known.right[number % len(known.right)]
                    window.append((step * 60.0 + second, answer == -1, bool(right)))
                    live.candidate += 1
                    live.harmed += known.harms(variant, number)
                number += 1
            now_s = step * 60.0 + second + 1.0
            while window[0][0] < now_s - 60.0:
                window.popleft()
            if second % 10 == 9:
                errors = sum(error for _, error, _ in window) / len(window)
                wrong = sum(ok for _, _, ok in window) / len(window) < quality
                failed += errors > 0.01 or wrong or (variant == "costlier" and COSTLIER > 1.1)
            if failed > 2:
                live.outcome, live.seconds, live.requests = "rolled_back", now_s, number
                return live
    live.outcome, live.seconds, live.requests = "promoted", 180.0, number
    return live


def compare(variant: str, known: Answers, rate: float, folder: Path) -> dict[str, Live]:
    """Run one variant live, and compute Argo."""
    ports = {name: free_port() for name in ("v1", "v2", "port")}
    with tempfile.TemporaryDirectory() as place, ExitStack() as running:
        for name, what in (("v1", "same"), ("v2", variant)):
            me = [sys.executable, str(HERE / "rollouts_live.py"), "--dir", str(folder)]
            command = [*me, "--serve", what, "--port", str(ports[name])]
            running.enter_context(started(command, ports[name], None))
        config = Path(place) / "tollway.toml"
        price2 = PRICE_USD * (COSTLIER if variant == "costlier" else 1.0)
        config.write_text(CONFIG.format(**ports, price=PRICE_USD, price2=f"{price2:.6f}"))
        gateway = [sys.executable, "-m", "tollway", "serve", str(config)]
        running.enter_context(
            started(gateway, ports["port"], None, {"PYTHONPATH": str(HERE.parent)})
        )
        live = asyncio.run(run(variant, ports["port"], known, rate))
    return {"tollway": live, "argo": argo(variant, known, rate)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--dir", type=Path, default=train.FOLDER, help="where models are kept")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.port, chosen.dir)
        return
    known = answers(chosen.dir)
    accuracy = float((known.small == known.right).mean())
    print(f"v1 is right in {accuracy:.1%}; {chosen.rate:g} requests/s")
    print(f"{'v2':9}{'judge':9}{'outcome':13}{'after':>8}{'by v2':>8}{'harmed':>8}{'lost':>6}")
    rows: list[Mapping[str, Any]] = []
    for variant in chosen.only:
        for judge, live in compare(variant, known, chosen.rate, chosen.dir).items():
            rows.append({"v2": variant, "judge": judge, **asdict(live)})
            after = "-" if math.isnan(live.seconds) else f"{live.seconds:.0f} s"
            print(
                f"{variant:9}{judge:9}{live.outcome or 'undecided':13}{after:>8}"
                f"{live.candidate:>8}{live.harmed:>8}{live.lost:>6}  {live.why[:90]}",
                flush=True,
            )
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
