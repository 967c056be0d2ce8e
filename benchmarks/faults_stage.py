"""The setup of benchmarks/faults.py: real models, a Redis and a gateway, with faults in between."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.throughput.processes import descriptors
from examples.digits import processes
from examples.digits.client import connect
from examples.digits.data import Images, halves
from examples.digits.http1 import Http
from examples.digits.processes import Running
from tests.support.process import free_port
from tests.support.redis_server import RedisServer, sentinels
from tollway.gameday.proxy import FaultProxy
from tollway.gateway.budgets.stores.registry import open_ledger
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows

PRICES_NANO = {"large": 1_000_000, "cpu": 100_000}
PATIENCE_S = 10.0  # of clients
IDLE_S = 6.0  # connections to backends are kept for 4 s
CONFIG = """
[server]
listen = "127.0.0.1:{port}"
allow_anonymous = true
[ledger]
url = "{ledger}"
[[backends]]
name = "large"
kind = "cpu"
protocol = "oip"
url = "{large}"
model = "digits"
declared_accuracy = 0.99
price = {{ per_request_usd = 0.001 }}
[[backends]]
name = "cpu"
kind = "cpu"
protocol = "oip"
url = "{cpu}"
model = "digits"
declared_accuracy = 0.96
price = {{ per_request_usd = 0.0001 }}
[[backends]]
name = "rules"
kind = "rules"
rules = "{rules}"
declared_accuracy = 0.85
price = {{ free = true }}
[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["large", "cpu", "rules"]
fallbacks = ["cpu", "rules"]
policy = "most_accurate"
timeout_s = 2
response_schema = [{{ tensor = "label", datatype = "INT64", shape = [1], range = [0, 9] }}]
[[budgets]]
name = "all"
limit_usd = 1000
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's result: the backend that answered, else `refused` or `failed`. Times in s."""

    due_s: float
    done_s: float
    who: str


@dataclass(frozen=True, slots=True)
class Bill:
    """Spend by the ledger, the journal and the backends, in nano-dollars."""

    ledger_nano: int
    journal_nano: int
    backends_nano: int


class Models:
    """The model servers, shared by all rows, and the requests to them."""

    def __init__(self, folder: Path, models: Path) -> None:
        self._folder = folder
        self._models = models
        self.servers: dict[str, Running] = {}
        held_out = halves()[1]
        self.images: list[Images] = [held_out.images[n : n + 1] for n in range(100)]

    async def start(self) -> None:
        """Start them; the first start trains what they serve."""
        for name in PRICES_NANO:
            arguments = ["-m", "examples.digits.serve", "--model", name, "--dir", str(self._models)]
            log = self._folder / f"{name}.log"
            self.servers[name] = await processes.start(name, arguments, log)

    def stop(self) -> None:
        """Stop them."""
        for server in self.servers.values():
            server.stop()

    async def billed_nano(self) -> int:
        """Return the price of all their calls so far."""
        nano = 0
        for name, server in self.servers.items():
            async with connect(server.url) as client:
                nano += int((await client.get("/stats"))["calls"]) * PRICES_NANO[name]
        return nano


class Stage:
    """One gateway and the servers that it calls, for one row of the table."""

    def __init__(self, folder: Path, models: Models, *, sentinel: bool, workers: int) -> None:
        self.folder = folder
        self.models = models
        self.sentinel = sentinel
        self.workers = workers
        self.answers: list[Answer] = []
        self.restarting: asyncio.Task[None] | None = None
        self.rules = Path(__file__).parents[1] / "examples" / "digits" / "rules.toml"

    @contextlib.asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Start everything; stop it at the end."""
        async with contextlib.AsyncExitStack() as stack:
            self.redis = RedisServer(self.folder / "redis", "--repl-diskless-sync-delay", "0")
            stack.callback(self.redis.kill)
            stack.callback(self.redis.resume)
            self.to_redis = FaultProxy(("127.0.0.1", self.redis.port))
            ports = {
                name: int(server.url.rpartition(":")[2])
                for name, server in self.models.servers.items()
            }
            self.to_large = FaultProxy(("127.0.0.1", ports["large"]))
            self.to_cpu = FaultProxy(("127.0.0.1", ports["cpu"]))
            for proxy in (self.to_redis, self.to_large, self.to_cpu):
                await stack.enter_async_context(proxy)
            self.ledger_url = f"redis://127.0.0.1:{self.to_redis.address[1]}/0"
            if self.sentinel:
                self.ledger_url = stack.enter_context(sentinels(self.folder, self.redis))
            config = self.folder / "tollway.toml"
            config.write_text(
                CONFIG.format(
                    ledger=self.ledger_url,
                    large=self.to_large.url,
                    cpu=self.to_cpu.url,
                    port=free_port(),
                    rules=self.rules,
                )
            )
            await self.start_gateway()
            stack.push_async_callback(self.stop_gateway)
            self._billed_before_nano = await self.models.billed_nano()
            async with connect(self.gateway.url) as client:
                await client.ask("digits", self.models.images[0], 0)
            await asyncio.sleep(IDLE_S)
            self._descriptors = descriptors(self.gateway.pid)
            yield

    async def start_gateway(self) -> None:
        """Start the gateway."""
        arguments = ["-m", "tollway", "serve", str(self.folder / "tollway.toml")]
        arguments += ["--workers", str(self.workers)]
        self.gateway = await processes.start("gateway", arguments, self.folder / "gateway.log")

    async def stop_gateway(self) -> None:
        """Stop the gateway gracefully, so that all calls are settled."""
        if self.restarting is not None:
            await self.restarting
        self.gateway.stop()

    def kill_gateway(self) -> None:
        """Kill the gateway, and start another at once, as a supervisor would."""
        self.gateway.process.kill()
        self.gateway.process.wait()
        self.restarting = asyncio.create_task(self.start_gateway())

    async def left_open(self) -> int:
        """Return how many files and sockets the gateway has open more than before, once idle."""
        until_s = time.monotonic() + IDLE_S
        while (more := descriptors(self.gateway.pid) - self._descriptors) > 0:
            if time.monotonic() > until_s:
                break
            await asyncio.sleep(0.1)
        return more

    async def load(self, per_s: float, until: asyncio.Event) -> None:
        """Send requests at a constant rate, whatever their results, until told to end."""
        http = Http(self.gateway.url)
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            number = 0
            while not until.is_set():
                due_s = began_s + number / per_s
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                group.create_task(self._ask(http, number, due_s))
                number += 1
        await http.aclose()

    async def _ask(self, http: Http, number: int, due_s: float) -> None:
        image = self.models.images[number % len(self.models.images)]
        tensor = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": image[0].tolist()}
        try:
            async with asyncio.timeout(PATIENCE_S):
                reply = await http.post("/v2/models/digits/infer", {"inputs": [tensor]})
        except (OSError, EOFError, TimeoutError):
            who = "failed"
        else:
            who = "refused" if reply.status in (402, 429, 503) else "failed"
            if reply.status == 200:
                who = reply.headers["x-tollway-backend"]
        self.answers.append(Answer(due_s, time.monotonic(), who))

    async def bill(self) -> Bill:
        """Stop the gateway, so that all is settled, and return the spend by each source."""
        self.gateway.stop()
        ledger = open_ledger(
            self.ledger_url + ("&" if "?" in self.ledger_url else "?") + "timeout_ms=5000"
        )
        await ledger.open()
        [account] = await ledger.accounts([("all", 0)])
        await ledger.close()
        assert account.position.leased_nano == 0, "the gateway kept a lease"
        journal_nano = sum(
            row["cost_nano"]
            for path in segments(self.folder / ".tollway" / "journal")
            for row in rows(path)
            if row["kind"] == "attempt"
        )
        billed_nano = await self.models.billed_nano() - self._billed_before_nano
        return Bill(account.position.spent_nano, journal_nano, billed_nano)
