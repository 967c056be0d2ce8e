"""Whole gateways over HTTP, and LiteLLM's proxy, on one budget in a real Redis.

These are `benchmarks/budgets.py --gateways` and `--litellm`. Replicas are processes (`tollway
serve`, or LiteLLM's proxy from its own virtual environment) that share one Redis. Their clients
call a model server that answers like OpenAI's API after a delay and bills $0.001. They call until
the budget is exhausted, and go on for a while. The spend is what was billed.
"""

import asyncio
import contextlib
import math
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import orjson
import uvicorn

from benchmarks.budgets_backend import PRICE_NANO, Backend
from tests.support.process import free_port
from tests.support.redis_server import RedisServer
from tollway.backends.money import to_usd
from tollway.gateway.budgets.stores.registry import open_ledger

LITELLM = "litellm[proxy]==1.106.2"
START_S = 300.0  # LiteLLM takes half a minute to start, or minutes on a busy machine
POOL = 50  # clients that share a connection pool, which searches all its connections for each call
REFUSED_PAUSE_S = 0.02  # refused clients retry soon, as impatient ones do
SLOW = 6  # LiteLLM's first call takes seconds, or a dozen on a busy machine
KILL_EVERY_S = 3.0  # a gateway needs a second or two to start
TOLLWAY = """
[server]
allow_anonymous = true
listen = "127.0.0.1:{port}"
[ledger]
url = "redis://127.0.0.1:{redis}/0"
[[backends]]
name = "llm"
kind = "gpu"
protocol = "openai"
url = "{upstream}"
timeout_s = 30
price = {{ per_request_usd = 0.001 }}
[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["llm"]
policy = "cheapest"
[[budgets]]
name = "budget"
limit_usd = {limit_usd}
"""
RIVAL = """
model_list:
  - model_name: m
    litellm_params:
      model: openai/m
      api_base: {upstream}/v1
      api_key: none
      input_cost_per_token: 0
      output_cost_per_token: 0.001
router_settings:
  redis_host: 127.0.0.1
  redis_port: {redis}
  num_retries: 0
  provider_budget_config:
    openai:
      budget_limit: {limit_usd}
      time_period: 1d
litellm_settings:
  telemetry: false
"""
REPLY = orjson.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "4"},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
)
ASKED = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "2+2?"}]}


@dataclass(frozen=True, slots=True)
class Given:
    """The parameters of a replica."""

    folder: Path
    upstream: str
    redis: int
    limit_usd: float


class Replica(Protocol):
    """A gateway process."""

    name: str
    url: str
    headers: dict[str, str]
    process: subprocess.Popen[bytes] | None

    async def start(self, given: Given) -> None:
        """Start it; return once it is ready."""
        ...


class Tollway:
    """`tollway serve`. The mutable state is its process."""

    name = "tollway"
    template = TOLLWAY
    url = ""
    headers: dict[str, str] = {}  # noqa: RUF012 - none, ever
    process: subprocess.Popen[bytes] | None = None

    async def start(self, given: Given) -> None:
        """Start it on a fresh port; a replacement of a killed replica gets its folder."""
        given.folder.mkdir(exist_ok=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = given.folder / "tollway.toml"
        config.write_text(
            self.template.format(
                port=port,
                redis=given.redis,
                upstream=given.upstream,
                limit_usd=self.configured(given.limit_usd),
            )
        )
        command = [sys.executable, "-m", "tollway", "serve", str(config)]
        self.process = _spawn(command, given.folder, {})
        await _ready(self.process, self.url + "/readyz")

    def configured(self, limit_usd: float) -> float:
        """Return the limit that stands in its configuration."""
        return limit_usd


class LiteLLM:
    """LiteLLM's proxy with a provider budget, which is in Redis and needs no database."""

    name = LITELLM.replace("[proxy]==", " ")
    url = ""
    key = f"sk-{secrets.token_hex(32)}"  # it does not start without
    headers: dict[str, str] = {"authorization": f"Bearer {key}"}  # noqa: RUF012
    process: subprocess.Popen[bytes] | None = None

    async def start(self, given: Given) -> None:
        """Start it on a fresh port."""
        given.folder.mkdir(exist_ok=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = given.folder / "litellm.yaml"
        config.write_text(
            RIVAL.format(redis=given.redis, upstream=given.upstream, limit_usd=given.limit_usd)
        )
        command = [str(await asyncio.to_thread(litellm)), "--config", str(config)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        offline["LITELLM_MASTER_KEY"] = self.key
        self.process = _spawn(command, given.folder, offline)
        await _ready(self.process, self.url + "/health/readiness")


def end(replica: Replica) -> None:
    """SIGKILL a replica, if it was started."""
    if replica.process is not None:
        replica.process.kill()
        replica.process.wait()


def litellm() -> Path:
    """Return LiteLLM's command; its own environment is created on first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tollway-benchmarks"
    command = cache / "litellm" / "bin" / "litellm"
    if not command.exists():
        python = command.with_name("python")
        if shutil.which("uv"):
            subprocess.run(["uv", "venv", "-q", str(python.parent.parent)], check=True)
            subprocess.run(["uv", "pip", "install", "-q", "--python", python, LITELLM], check=True)
        else:
            subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", LITELLM], check=True)
    return command


def _spawn(command: list[str], folder: Path, more: dict[str, str]) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[1]
    with (folder / "log").open("ab") as log:
        environ = {**os.environ, "PYTHONPATH": str(root), "NO_PROXY": "127.0.0.1", **more}
        return subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)


async def _ready(process: subprocess.Popen[bytes], url: str) -> None:
    async with asyncio.timeout(START_S), httpx.AsyncClient(trust_env=False) as client:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended while starting")
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).status_code == 200:
                    return
            await asyncio.sleep(0.1)


class Upstream:
    """The model server: an ASGI application over a backend that bills."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer after a delay; a started call is billed even if its client has left."""
        while (await receive()).get("more_body"):
            pass
        answered = asyncio.Event()
        self.backend.begin(answered.set)
        await answered.wait()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": REPLY})


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free port; yield its address."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        )
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


class HttpCell:
    """One cell of the table: its processes and clients, from start to end."""

    def __init__(
        self,
        folder: Path,
        make: Callable[[], Replica],
        upstream: "Upstream",
        asked: dict[str, Any] = ASKED,
        edit: Callable[["HttpCell"], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """`asked` is the request that clients send; `edit` runs while they do."""
        self.folder = folder
        self.make = make
        self.upstream = upstream
        self.backend = upstream.backend
        self.asked = asked
        self.edit = edit
        self.replicas: list[Replica] = []
        self.pairs: list[tuple[Replica, Given]] = []
        self.failed = 0

    async def run(self, c: int, replicas: int, kills: bool, quiet_s: float, most_s: float) -> float:
        """Spend the budget; return the spend in dollars by the gateways' own count."""
        redis = RedisServer(self.folder / "redis")
        try:
            async with served(self.upstream) as upstream:
                limit_usd = to_usd(self.backend.limit_nano)
                self.replicas = [self.make() for _ in range(replicas)]
                givens = [
                    Given(self.folder / str(number), upstream, redis.port, limit_usd)
                    for number in range(replicas)
                ]
                pairs = self.pairs = list(zip(self.replicas, givens, strict=True))
                await asyncio.gather(*(replica.start(given) for replica, given in pairs))
                async with contextlib.AsyncExitStack() as stack:
                    pools = [
                        await stack.enter_async_context(_pool()) for _ in range(math.ceil(c / POOL))
                    ]
                    tasks = [
                        asyncio.create_task(self.client(pools[number // POOL], replica))
                        for replica in self.replicas
                        for number in range(c)
                    ]
                    if kills:
                        tasks.append(asyncio.create_task(self.kill(pairs)))
                    if self.edit is not None:
                        tasks.append(asyncio.create_task(self.edit(self)))
                    await self.spent(quiet_s, most_s)
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    await asyncio.sleep(2 * self.backend.takes_s)
                    if kills:
                        await self.restore(pairs)
                    return await self.own(redis.port)
        finally:
            for replica in self.replicas:
                end(replica)
            redis.kill()

    async def spent(self, quiet_s: float, most_s: float) -> None:
        """Wait until no call has started for a while, or until the cell's time is over."""
        started_s = self.backend.last_s = time.monotonic()
        while time.monotonic() - started_s < most_s:
            await asyncio.sleep(0.1)
            idle_s = time.monotonic() - self.backend.last_s
            # A gateway that has not refused a call yet may only be slow.
            if idle_s > (quiet_s if self.backend.refused else SLOW * quiet_s):
                return

    async def client(self, http: httpx.AsyncClient, replica: Replica) -> None:
        while True:
            try:
                reply = await http.post(
                    f"{replica.url}/v1/chat/completions", json=self.asked, headers=replica.headers
                )
            except httpx.TransportError:  # it was killed
                self.failed += 1
                await asyncio.sleep(0.1)
                continue
            if reply.status_code == 200:
                continue
            if b"ledger_unreachable" in reply.content:
                self.backend.refused_down += 1
            elif b"budget" in reply.content.lower():
                self.backend.refusal()
            else:
                self.failed += 1
            await asyncio.sleep(REFUSED_PAUSE_S)

    async def kill(self, pairs: list[tuple[Replica, Given]]) -> None:
        """SIGKILL one replica after the other; each starts again in its folder."""
        while True:
            for replica, given in pairs:
                await asyncio.sleep(KILL_EVERY_S)
                end(replica)
                await replica.start(given)

    @staticmethod
    async def restore(pairs: list[tuple[Replica, Given]]) -> None:
        """Restart dead replicas, so that they report the calls that were open when killed."""
        for replica, given in pairs:
            end(replica)
            await replica.start(given)

    async def own(self, redis: int) -> float:
        """Return the spend by the gateways' count: Tollway's ledger, or LiteLLM's key in Redis."""
        if isinstance(self.replicas[0], LiteLLM):
            return await asyncio.to_thread(_get, redis, "provider_spend:openai:1d")
        ledger = open_ledger(f"redis://127.0.0.1:{redis}/0?timeout_ms=2000")
        await ledger.open()
        [account] = await ledger.accounts([("budget", 0)])
        await ledger.close()
        return to_usd(account.position.spent_nano)


def _pool() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None))


def _get(port: int, key: str) -> float:
    import redis  # noqa: PLC0415 - only with the extra

    with redis.Redis(port=port) as client:
        return float(client.get(key) or 0)  # type: ignore[arg-type]


REPLICAS: dict[str, Callable[[], Replica]] = {"tollway": Tollway, "litellm": LiteLLM}

assert PRICE_NANO == 1_000_000, "the configurations above say a tenth of a cent"
