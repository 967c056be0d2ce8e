"""Load: wrk for throughput, and our own client with a constant rate, for latency.

wrk sends the next request when the last is answered, so a slow server gets fewer. The open loop
here sends on time regardless, and counts latency from when a request was due.
"""

import asyncio
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.throughput.cases import Case
from benchmarks.throughput.processes import pinned

SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
{headers}
local file = io.open("{bodies}", "rb")
local requests, at = {{}}, 0
init = function(args)
  for body in file:read("*a"):gmatch("[^%z]+") do
    requests[#requests + 1] = wrk.format(nil, nil, nil, body)
  end
  file:close()
end
request = function()
  at = at % #requests + 1
  return requests[at]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %f %f %f\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


@dataclass(frozen=True, slots=True)
class Result:
    """The results of wrk. Latencies in ms."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float
    p999_ms: float


def wrk(
    folder: Path,
    port: int,
    case: Case,
    headers: Mapping[str, str],
    connections: int,
    seconds: int,
) -> Result:
    """Load a server with a case's bodies in turns; SystemExit if wrk reports no result."""
    bodies, script = folder / "bodies", folder / "load.lua"
    bodies.write_text("\0".join(case.bodies))
    lines = [f'wrk.headers["{k}"] = "{v}"' for k, v in {**headers, **case.headers}.items()]
    script.write_text(SCRIPT.format(headers="\n".join(lines), bodies=bodies))
    url = f"http://127.0.0.1:{port}{case.path}"
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script)]
    command = [*pinned(-1), "wrk", *options, url]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"RESULT (.*)", out)
    if found is None:
        raise SystemExit(f"wrk reported no result:\n{out}")
    requests, micros, errors, p50, p99, p999 = map(float, found[1].split())
    return Result(int(requests), micros / 1e6, int(errors), p50 / 1e3, p99 / 1e3, p999 / 1e3)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: its status (0: no answer), and the time since the request was due."""

    status: int
    latency_s: float


def request_bytes(case: Case, headers: Mapping[str, str]) -> bytes:
    """Return a request as it goes over the wire."""
    fields = {"host": "127.0.0.1", "content-type": "application/json", **headers, **case.headers}
    fields["content-length"] = str(len(case.body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {case.path} HTTP/1.1\r\n{lines}\r\n{case.body}".encode()


def at_rate(
    port: int, request: bytes, per_s: float, seconds: float, patience_s: float = 10.0
) -> list[Reply]:
    """Send requests at a constant rate, over as many connections as needed; return the answers."""
    return uvloop.run(_at_rate(port, request, per_s, seconds, patience_s))


async def _at_rate(
    port: int, request: bytes, per_s: float, seconds: float, patience_s: float
) -> list[Reply]:
    loop = asyncio.get_running_loop()
    idle: list[_Caller] = []
    tasks: list[asyncio.Task[Reply]] = []
    began_s = time.perf_counter()

    async def call(due_s: float) -> Reply:
        try:
            async with asyncio.timeout(patience_s):
                caller = idle.pop() if idle else None
                if caller is None or caller.lost:
                    _, caller = await loop.create_connection(_Caller, "127.0.0.1", port)
                status = await caller.ask(request)
        except (OSError, TimeoutError):
            return Reply(0, time.perf_counter() - due_s)
        done_s = time.perf_counter()
        idle.append(caller)
        return Reply(status, done_s - due_s)

    for number in range(int(per_s * seconds)):
        due_s = began_s + number / per_s
        if (wait_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.create_task(call(due_s)))
    replies = await asyncio.gather(*tasks)
    for caller in idle:
        caller.transport.close()
    return list(replies)


class _Caller(asyncio.Protocol):
    """A connection that carries one request at a time; replies must state their length."""

    # The mutable state is the part of the reply received so far, and the waiting future.

    def __init__(self) -> None:
        self.lost = False
        self._data = b""
        self._asking: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    async def ask(self, request: bytes) -> int:
        """Return the status of the reply, once it is whole."""
        self._asking = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._asking

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if length is not None and len(body) >= int(length[1]):
            self._data = b""
            if self._asking is not None and not self._asking.done():
                self._asking.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._asking is not None and not self._asking.done():
            self._asking.set_exception(ConnectionResetError("closed before the reply was complete"))


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of the values are at or below."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
