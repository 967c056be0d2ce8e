"""Every view of spend agrees to the nano-dollar, and with the backends' own bills.

Two gateways on one Redis; clients at once; a cascade, fallbacks, failures, timeouts of calls that
ran, clients that hang up, budgets that run out; one gateway is killed in mid-call and comes back.
"""

import asyncio
import contextlib
import random
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from pprint import pformat
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tests.support.redis_server import redis_server
from tests.support.until import until
from tollway.gateway.budgets.protocol import BudgetPosition
from tollway.gateway.budgets.stores.redis import RedisLedger
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows
from tollway.reports.commands import main as report

pytestmark = pytest.mark.integration

PRICES = {"cheap": 100_000, "dear": 1_000_000}
BUDGETS = ("all", "plain-route", "dear-calls", "few")
STUCK_S = 30.0
TIMEOUT_S = 1.0  # of a call to a backend

OK, BROKEN, BUSY, SLOW, HELD = range(5)
"""What a call's first number asks of a backend: an answer, a failure that ran, a refusal that did
not, an answer that comes too late, one that waits until the backend is told."""


@dataclass
class Biller:
    """A backend that bills each call that it ran, even if the caller is gone."""

    price_nano: int
    billed_nano: int = 0
    seen: Counter[int] = field(default_factory=Counter)
    arrived: dict[str, asyncio.Event] = field(default_factory=dict)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        document = orjson.loads((await receive())["body"])
        what = int(document["inputs"][0]["data"][0])
        self.seen[what] += 1
        if what != BUSY:
            self.billed_nano += self.price_nano
        if event := self.arrived.get(document["id"]):
            event.set()
        if what == SLOW:
            await asyncio.sleep(2 * TIMEOUT_S)
        if what == HELD:
            await self.go_on.wait()
        status = {BROKEN: 500, BUSY: 503}.get(what, 200)
        confidence = zlib.crc32(document["id"].encode()) % 100 / 100
        body = Upstream(label=1, confidence=confidence).answer(orjson.dumps(document))
        headers = [(b"content-type", b"application/json")]
        with contextlib.suppress(ConnectionError):  # the caller may be gone
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})


@dataclass
class Place:
    """One gateway: its folder, process and address, and the figures of killed predecessors."""

    folder: Path
    toml: str
    url: str = ""
    process: Process | None = None
    metered_nano: int = 0

    async def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.url = f"http://127.0.0.1:{free_port()}"
        config = self.folder / "tollway.toml"
        config.write_text(self.toml.replace("LISTEN", self.url.removeprefix("http://")))
        self.process = Process(config)
        await self.process.ready(self.url)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def attempts(self) -> list[dict[str, Any]]:
        """Return the attempts in its journal."""
        found = [
            row for path in segments(self.folder / ".tollway" / "journal") for row in rows(path)
        ]
        return [row for row in found if row["kind"] == "attempt"]


def configuration(cheap: str, dear: str, redis: str) -> str:
    slow = f"timeout_s = {TIMEOUT_S}"
    plain = two_backends(
        cheap,
        dear,
        policy="lagrangian",
        server='allow_anonymous = true\nlisten = "LISTEN"',
        backend=slow,
        ledger=redis,
    )
    return (
        plain
        + """
[[routes]]
name = "cascade"
path = "/v2/models/c/infer"
protocol = "oip"
backends = ["cheap", "dear"]
cascade = true
context = { numeric = ["inputs[0].data"] }
"""
        + budget("all", "100.0")
        + budget("plain-route", "50.0", {"route": "m"}, 'window = "month"')
        + budget("dear-calls", "50.0", {"backend": "dear"}, 'enforcement = "soft"')
        + '[[budgets]]\nname = "few"\nlimit_usd = 0.02\nscope = { tags = { team = "few" } }\n'
    )


class Clients:
    """Clients of several gateways that behave at random."""

    def __init__(self, places: list[Place], billers: list[Biller], http: httpx.AsyncClient) -> None:
        self.places = places
        self.billers = billers
        self.http = http
        self.outcomes: Counter[int] = Counter()

    async def ask(self, place: Place, rng: random.Random) -> None:
        what = rng.choices((OK, BROKEN, BUSY, SLOW), (50, 2, 2, 1))[0]
        document = inference(float(what))
        document["id"] = str(rng.random())
        path = rng.choice(("/v2/models/m/infer", "/v2/models/c/infer"))
        headers = {"x-tollway-tags": "team=few"} if rng.random() < 0.3 else {}
        asked = self.http.post(place.url + path, json=document, headers=headers)
        # A refusal that nobody waited for may have been an answer, and would be charged as one.
        if rng.random() < 0.05 and not headers and what != BUSY:
            await self.hang_up(asyncio.ensure_future(asked), document["id"])
            return
        self.outcomes[(await asked).status_code] += 1

    async def hang_up(self, asked: "asyncio.Future[httpx.Response]", name: str) -> None:
        """Leave as soon as a backend has the call, or when there is an answer."""
        events = [biller.arrived.setdefault(name, asyncio.Event()) for biller in self.billers]
        seen = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait([asked, *seen], return_when=asyncio.FIRST_COMPLETED)
        for task in (asked, *seen):
            task.cancel()
        await asyncio.gather(asked, *seen, return_exceptions=True)
        self.outcomes[0] += 1

    async def traffic(self, count: int, seed: int) -> None:
        async def one(number: int) -> None:
            rng = random.Random(1000 * seed + number)
            for _ in range(count):
                await self.ask(self.places[number % len(self.places)], rng)

        await asyncio.gather(*(one(number) for number in range(16)))

    async def hold(self, place: Place, count: int) -> list["asyncio.Future[httpx.Response]"]:
        """Start calls at a backend and leave them open."""
        names = [f"held-{number}" for number in range(count)]
        asked = []
        for name in names:
            document = {**inference(float(HELD)), "id": name}
            for biller in self.billers:
                biller.arrived[name] = asyncio.Event()
            post = self.http.post(f"{place.url}/v2/models/m/infer", json=document)
            asked.append(asyncio.ensure_future(post))
            waits = [asyncio.ensure_future(b.arrived[name].wait()) for b in self.billers]
            await asyncio.wait([asked[-1], *waits], return_when=asyncio.FIRST_COMPLETED)
            assert not asked[-1].done(), asked[-1].result().text
            for wait in waits:
                wait.cancel()
        return asked

    async def get(self, place: Place, path: str) -> Any:
        return (await self.http.get(place.url + path)).json()

    async def metered(self, place: Place) -> int:
        """Return the sum of a gateway's own counters; the API's spend must be the same."""
        text = (await self.http.get(f"{place.url}/metrics")).text
        nano = sum(
            round(sample.value * 1e9)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "tollway_cost_usd_total"
        )
        assert (await self.get(place, "/_tollway/spend"))["cost_nano"] == nano
        return nano

    async def paged(self, place: Place) -> int:
        """Return the dashboard's figure, plus that of a killed gateway."""
        told = await self.get(place, "/_tollway/overview")
        return int(told["since_start_nano"]) + place.metered_nano

    async def told(self, place: Place) -> dict[str, int]:
        budgets = (await self.get(place, "/_tollway/budgets"))["budgets"]
        return {one["name"]: one["spent_nano"] for one in budgets}


async def positions(url: str, starts: dict[str, int]) -> dict[str, BudgetPosition]:
    """Return what the ledger itself says."""
    ledger = RedisLedger(f"{url}?timeout_ms=5000")
    await ledger.open()
    try:
        found = await ledger.accounts(list(starts.items()))
    finally:
        await ledger.close()
    return {account.budget: account.position for account in found}


def lost_nano(biller: Biller) -> int:
    """Return what a backend bills for the calls that were open when their gateway was killed."""
    return biller.seen[HELD] * biller.price_nano


async def views(clients: Clients, redis: str) -> dict[str, Any]:
    """Return the spend in each view."""
    cheap_nano, dear_nano = map(lost_nano, clients.billers)
    unaccounted_nano = cheap_nano + dear_nano
    attempts = [row for place in clients.places for row in place.attempts()]
    journal = {
        name: sum(row["cost_nano"] for row in attempts if name in row["reserved_nano"])
        for name in BUDGETS
    }
    for name in ("all", "plain-route"):  # whom the calls bind that were open at the kill
        journal[name] += unaccounted_nano
    journal["dear-calls"] += dear_nano
    budgets = (await clients.get(clients.places[0], "/_tollway/budgets"))["budgets"]
    starts = {one["name"]: one["window_start"] for one in budgets}
    metered = [await clients.metered(place) + place.metered_nano for place in clients.places]
    return {
        "journal": journal,
        "ledger": {n: p.spent_nano for n, p in (await positions(redis, starts)).items()},
        **{f"API of {place.folder.name}": await clients.told(place) for place in clients.places},
        "metrics": sum(metered) + unaccounted_nano,
        "pages": sum([await clients.paged(place) for place in clients.places]) + unaccounted_nano,
        "report": reported(clients.places) + unaccounted_nano,
        "backends": sum(biller.billed_nano for biller in clients.billers),
    }


def reported(places: list[Place]) -> int:
    """Return the first table of `tollway report` on the gateways' journals."""
    folder = places[0].folder
    out = folder / "report.json"
    assert report(["daily", *(str(p.folder) for p in places), "--out", str(out)], {}) == 0
    return sum(day["cost_nano"] for day in orjson.loads(out.read_bytes())["Spend by day"])


def agreed(found: dict[str, Any]) -> bool:
    """Return whether all views agree."""
    journal, total = found["journal"], found["journal"]["all"]
    return all(view == (journal if isinstance(view, dict) else total) for view in found.values())


async def agree(clients: Clients, redis: str) -> None:
    """Wait until all views of every budget agree with each other and with the bills."""
    found: dict[str, Any] = {}

    async def agree() -> bool:
        nonlocal found
        found = await views(clients, redis)
        return agreed(found)

    try:
        await until(agree, within_s=STUCK_S, every_s=0.2)
    except AssertionError:
        assert agreed(found), pformat(found)
        raise
    assert found["ledger"]["few"] <= 20_000_000


def test_journal_ledger_metrics_api_and_backends_agree_to_the_nano_dollar(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Biller(PRICES["cheap"]), Biller(PRICES["dear"])
        with contextlib.ExitStack() as stack:
            redis = stack.enter_context(redis_server(tmp_path / "redis"))
            async with serving(cheap) as a, serving(dear) as b:
                toml = configuration(a, b, redis.url)
                places = [Place(tmp_path / name, toml) for name in ("east", "west")]
                stack.callback(lambda: [place.kill() for place in places])
                await asyncio.gather(*(place.start() for place in places))
                limits = httpx.Limits(max_connections=None)
                async with http_client(timeout=30, limits=limits) as http:
                    clients = Clients(places, [cheap, dear], http)
                    await clients.traffic(25, seed=1)
                    await agree(clients, redis.url)

                    held = await clients.hold(places[0], 5)
                    places[0].metered_nano = await clients.metered(places[0])
                    places[0].kill()
                    cheap.go_on.set()
                    dear.go_on.set()
                    await asyncio.gather(*held, return_exceptions=True)
                    await places[0].start()
                    await clients.traffic(15, seed=2)
                    await agree(clients, redis.url)
        attempts = [row for place in places for row in place.attempts()]
        assert clients.outcomes.keys() >= {0, 200, 402, 502}
        assert all(biller.seen[what] for biller in (cheap, dear) for what in (OK, BROKEN, SLOW))
        assert cheap.seen[BUSY] + dear.seen[BUSY] > 0
        assert any(row["fallback"] for row in attempts)
        assert any(row["attempt"] == 1 and row["route"] == "cascade" for row in attempts)
        assert {row["provenance"] for row in attempts} == {"usage", "estimated", "void"}

    run(main)
