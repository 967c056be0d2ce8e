"""Measures features from outside: tiers, the cost on the path, a herd, failing sources, the gain.

    python benchmarks/features.py                    # needs PostgreSQL and redis-server; 2 minutes
    python benchmarks/features.py --only tiers herd --json features.json

tiers   100,000 users in a real PostgreSQL, requests for Zipf-distributed ones through memory
        (20,000 entities), a real Redis and the pool, once 600,000 requests have come to other
        gateways and 100,000 to this one: the share of requests that each tier answers, and how long
        a request waits for its values, by tier, at 1,000 requests a second; and, to tell the
        machine from the gateway, how long bare clients of the same Redis and PostgreSQL wait
        beside it, and how late the event loop is
path    microseconds of a request whose entity is in memory, part by part
herd    10,000 requests at one expiry: queries that reach PostgreSQL
faults  requests at a whole gateway while its PostgreSQL is killed, hangs and comes back: how they
        ended, what they got, and how long until values are fresh again
gain    a whole gateway, two models, users who differ in how often the cheap one is right: the value
        of right answers minus cost with and without what a table knows of the users
"""

import argparse
import asyncio
import bisect
import contextlib
import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.support.configs import two_backends  # noqa: E402
from tests.support.feature_sources import USER, ScriptedSource, call, lookup, route  # noqa: E402
from tests.support.harness import Running, Upstream, running, serving  # noqa: E402
from tests.support.postgres_server import PostgresServer, postgres_server  # noqa: E402
from tests.support.redis_server import RedisServer, redis_server  # noqa: E402
from tollway.gateway.features.extractor import FeatureExtractor  # noqa: E402
from tollway.gateway.features.online.counts import COLD, MEMORY, WARM  # noqa: E402
from tollway.gateway.features.online.join import Joined, RouteFeatures  # noqa: E402
from tollway.gateway.features.online.lookup import FeatureLookup  # noqa: E402
from tollway.gateway.features.online.model import Feature, FeatureGroup  # noqa: E402
from tollway.gateway.features.sources.postgres import PostgresSource  # noqa: E402
from tollway.gateway.features.sources.redis import RedisTier  # noqa: E402
from tollway.gateway.features.sources.table import SourceTable  # noqa: E402

USERS = 100_000
ZIPF = 1.1  # exponent: the usual range for users of web services is 0.8 to 1.3
OTHERS, OWN = 600_000, 100_000  # requests before those that are measured
RATE = 1000.0  # requests a second, so that the event loop is not what is measured
GROUP = FeatureGroup(
    "user",
    (Feature("spend", "number", 0.0), Feature("tier", "category", "free")),
    version="v1",
    ttl_s=300.0,
    entries_max=20_000,
    concurrency=10,
)


class Zipf:
    """Draws users with probabilities that fall with their rank."""

    def __init__(self, count: int, exponent: float, rng: random.Random) -> None:
        self._cumulated = list(itertools.accumulate((n + 1) ** -exponent for n in range(count)))
        self._rng = rng

    def draw(self) -> str:
        at = self._rng.random() * self._cumulated[-1]
        return str(bisect.bisect_left(self._cumulated, at))


def quantiles_ms(seconds: list[float]) -> dict[str, float]:
    """Return the median and the two upper quantiles in milliseconds."""
    known = sorted(seconds)
    if not known:
        return {}
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        name: round(known[min(len(known) - 1, int(share * len(known)))] * 1000, 3)
        for name, share in shares.items()
    }


async def filled(postgres: PostgresServer) -> None:
    await postgres.execute(
        "DROP TABLE IF EXISTS users",
        "CREATE TABLE users (id bigint PRIMARY KEY, spend double precision, tier text)",
        f"INSERT INTO users SELECT n, n * 0.5, 't' || n % 3 FROM generate_series(0, {USERS}) AS n",
        "ANALYZE users",
    )


def source_of(postgres: PostgresServer) -> PostgresSource:
    table = SourceTable("users", "id", {"spend": "spend", "tier": "tier"}, integer_keys=True)
    return PostgresSource(postgres.url, table, connect_timeout_s=30.0, acquire_timeout_s=5.0)


@contextlib.asynccontextmanager
async def looked_up(
    postgres: PostgresServer, redis: RedisServer, group: FeatureGroup = GROUP
) -> AsyncIterator[FeatureLookup]:
    warm = RedisTier(redis.url)
    one = lookup(source_of(postgres), group, warm, random.Random(1))
    await one.source.fetch(["0"], 0.0)  # opens the pool
    try:
        yield one
    finally:
        await one.aclose()
        await warm.aclose()


async def tiers(postgres: PostgresServer, redis: RedisServer, seconds: float) -> dict[str, Any]:
    """Return hit rates and waits by tier, for requests that arrive at random times."""
    rng = random.Random(0)
    users, waits = Zipf(USERS, ZIPF, rng), dict[str, list[float]]()
    answered: Counter[str] = Counter()
    async with looked_up(postgres, redis) as one:
        joins = route(one, limit_s=1.0)
        loop = asyncio.get_running_loop()

        async def ask(user: str, counted: bool) -> None:
            began_s = time.perf_counter()
            found = joins.join(call(user), loop.time())
            tier = MEMORY
            if not isinstance(found, Joined):
                found = await found.joined(loop.time() + 1.0)
                entry = found.parts[0].entry
                tier = "none" if entry is None else entry.tier
            if counted:
                answered[tier] += 1
                waits.setdefault(tier, []).append(time.perf_counter() - began_s)
                waits.setdefault("all", []).append(time.perf_counter() - began_s)

        async def load(length_s: float, *, counted: bool) -> None:
            tasks, until_s, due_s = set[asyncio.Task[None]](), loop.time() + length_s, loop.time()
            while due_s < until_s:
                due_s += rng.expovariate(RATE)
                if due_s > loop.time():
                    await asyncio.sleep(due_s - loop.time())
                task = asyncio.create_task(ask(users.draw(), counted))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if tasks:
                await asyncio.wait(tasks)

        # Another gateway has been serving for a while: Redis knows what its requests asked for.
        await replayed(one, [users.draw() for _ in range(OTHERS)])
        one.memory = type(one.memory)(one.group)
        await replayed(one, [users.draw() for _ in range(OWN)])
        await load(1.0, counted=False)
        bare: dict[str, list[float]] = {}
        probing = asyncio.create_task(probed(postgres, redis, bare))
        await load(seconds, counted=True)
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        total = sum(answered.values())
        return {
            "requests": total,
            "hits": {tier: round(answered[tier] / total, 4) for tier in (MEMORY, WARM, COLD)},
            "waits_ms": {tier: quantiles_ms(waits.get(tier, [])) for tier in (*answered, "all")},
            "bare_ms": {name: quantiles_ms(taken) for name, taken in bare.items()},
            "pool": dict(one.source.gauges()),
        }


async def probed(
    postgres: PostgresServer, redis: RedisServer, found: dict[str, list[float]]
) -> None:
    """Time the same stores beside the load, without the gateway's code: what the machine takes.

    `loop`: how much later than asked for a task of this process goes on.
    """
    client, connection = Redis.from_url(redis.url), await asyncpg.connect(postgres.url)
    statement = await connection.prepare("SELECT spend, tier FROM users WHERE id = $1")
    try:
        while True:
            for name, work, due_s in (
                ("loop", asyncio.sleep(0.01), 0.01),
                ("redis", client.hget("tollway:feature:none", "v1"), 0.0),
                ("source", statement.fetch(17), 0.0),
            ):
                began_s = time.perf_counter()
                await work
                found.setdefault(name, []).append(time.perf_counter() - began_s - due_s)
    finally:
        await client.aclose()
        await connection.close()


async def replayed(one: FeatureLookup, users: list[str]) -> None:
    """Look up users in the order of requests, as fast as the stores go."""
    loop = asyncio.get_running_loop()
    flights = set[asyncio.Future[Any]]()
    for user in users:
        if one.peek(user, loop.time()) is None:
            got = one.want(user, "", loop.time())
            if isinstance(got, asyncio.Future):
                flights.add(got)
        if len(flights) >= 512:
            await asyncio.wait(flights)
            flights.clear()
    if flights:
        await asyncio.wait(flights)
    await asyncio.sleep(0.2)  # the last records reach the warm tier


async def path() -> dict[str, float]:
    """Return what a hot request costs, in us; the best of twenty rounds."""
    values = {"spend": 1.5, "tier": "gold"}
    group = replace(USER, features=USER.features[:2])
    one = lookup(ScriptedSource({f"u{n}": values for n in range(1000)}), group)
    joins: RouteFeatures = route(one, limit_s=1.0)
    asked = call("u1")
    asked.headers = [(b"host", b"x"), (b"accept", b"*/*"), (b"user-agent", b"x"), *asked.headers]
    now_s = asyncio.get_running_loop().time()
    waiting = joins.join(asked, now_s)
    assert not isinstance(waiting, Joined)
    await waiting.joined(now_s + 5.0)
    found = joins.join(asked, now_s)
    assert isinstance(found, Joined)
    without, with_ = FeatureExtractor(), FeatureExtractor(joined=1)
    context = best_us(lambda: with_(asked, found)) - best_us(lambda: without(asked))
    return {
        "look_up": best_us(lambda: one.peek("u1", now_s)),
        "hot_hit": best_us(lambda: joins.join(asked, now_s)),
        "context": round(context, 2),
        "journal": best_us(found.row),
    }


def best_us(work: Callable[[], Any], count: int = 3000, rounds: int = 20) -> float:
    best_s = float("inf")
    for _ in range(rounds):
        began_s = time.perf_counter()
        for _ in range(count):
            work()
        best_s = min(best_s, (time.perf_counter() - began_s) / count)
    return round(best_s * 1e6, 2)


async def herd(postgres: PostgresServer, redis: RedisServer) -> dict[str, Any]:
    """Return the queries of 10,000 requests at one expiry."""
    async with looked_up(postgres, redis, replace(GROUP, ttl_s=0.5)) as one:
        joins, loop = route(one, limit_s=30.0), asyncio.get_running_loop()

        async def ask() -> str:
            found = joins.join(call("7"), loop.time())
            if not isinstance(found, Joined):
                found = await found.joined(loop.time() + 30.0)
            return found.parts[0].mark

        await ask()
        await asyncio.sleep(0.6)
        before = one.counts.queries
        marks = Counter(await asyncio.gather(*(ask() for _ in range(10_000))))
        return {"requests": 10_000, "queries": one.counts.queries - before, "marks": dict(marks)}


FEATURES = """
[[features]]
name = "user"
entity = "$headers.x-user-id"
source = "{url}"
table = "users"
keys = "integer"
values = [{{ name = "spend" }}, {{ name = "tier", type = "category", default = "none" }}]
ttl_s = 0.5
timeout_s = 0.3
"""


async def faults(postgres: PostgresServer, folder: Path) -> list[dict[str, Any]]:
    """Return how requests fared in each phase."""
    phases: list[tuple[str, Callable[[], None]]] = [
        ("as usual", lambda: None),
        ("killed", postgres.stop),
        ("started again", postgres.start),
        ("hangs", postgres.pause),
        ("goes on", postgres.resume),
    ]
    found = []
    async with serving(Upstream()) as url:
        more = FEATURES.format(url=postgres.url)
        toml = two_backends(url, url, route='features = ["user"]\nfeatures_ms = 20', more=more)
        async with running(toml, folder) as one:
            await one.infer(x_user_id="1")
            for name, act in phases:
                await asyncio.to_thread(act)
                found.append({"phase": name, **await served(one, 6.0)})
    return found


async def served(one: Running, seconds: float) -> dict[str, Any]:
    """Send requests one after another; the marks are those that the gateway counted."""
    counts = one.gateway.features.lookups["user"].counts
    before, statuses, waits = counts.marks.copy(), Counter[int](), list[float]()
    began_s = time.perf_counter()
    fresh_s = 0.0
    while time.perf_counter() - began_s < seconds:
        known = counts.marks.copy()
        began_one_s = time.perf_counter()
        reply = await one.infer(x_user_id="1")
        waits.append(time.perf_counter() - began_one_s)
        statuses[reply.status_code] += 1
        if (counts.marks - known).keys() - {"fresh"}:
            fresh_s = time.perf_counter() - began_s
        await asyncio.sleep(0.01)
    failed = sum(count for status, count in statuses.items() if status != 200)
    return {
        "requests": len(waits),
        "failed": failed,
        "marks": dict(counts.marks - before),
        "last_not_fresh_s": round(fresh_s, 2),
        "longest_ms": round(max(waits) * 1000, 1),
    }


WORTH_USD, CHEAP_USD, DEAR_USD = 0.003, 0.0001, 0.001
CHEAP_RIGHT, DEAR_RIGHT = {"expert": 0.45, "casual": 0.93}, 0.95


async def gain(folder: Path, requests: int, *, joined: bool, seed: int) -> dict[str, float]:
    """Return the value of right answers minus cost a request, in the second half."""
    rng = random.Random(seed)
    kinds = {str(n): "expert" if rng.random() < 0.5 else "casual" for n in range(500)}
    users = Zipf(len(kinds), 0.8, rng)
    right: dict[str, bool] = {}

    def label(of: str) -> Callable[[Any], int]:
        return lambda document: int(right[of])

    more = """
[[features]]
name = "user"
entity = "$headers.x-user-id"
source = "sqlite:///features.db"
values = [{ name = "spend" }, { name = "kind", type = "category" }]
"""
    declared = f'objective = "value"\nvalue_per_correct_usd = {WORTH_USD}\n'
    declared += 'features = ["user"]\nfeatures_ms = 1000\n' if joined else ""
    async with serving(Upstream(label("cheap"))) as a, serving(Upstream(label("dear"))) as b:
        toml = two_backends(a, b, policy="lagrangian", route=declared, more=more)
        toml = toml.replace("declared_accuracy = 0.8", "").replace("declared_accuracy = 0.99", "")
        async with running(toml, folder, seed=seed) as one:
            for user, kind in kinds.items():
                spend = rng.gauss(60.0 if kind == "expert" else 40.0, 8.0)
                values = {"spend": spend, "kind": rng.choice(("a", "b"))}
                await one.gateway.features.put("user", user, values)
            total = 0.0
            for n in range(requests):
                user = users.draw()
                right["cheap"] = rng.random() < CHEAP_RIGHT[kinds[user]]
                right["dear"] = rng.random() < DEAR_RIGHT
                reply = await one.infer(rng.random(), x_user_id=user)
                backend = reply.headers["x-tollway-backend"]
                decision = reply.headers["x-tollway-decision"]
                await one.feedback({"decision": decision, "correct": right[backend]})
                if n >= requests // 2:
                    cost = CHEAP_USD if backend == "cheap" else DEAR_USD
                    total += WORTH_USD * right[backend] - cost
            return {"net_usd_per_1000": round(total / (requests - requests // 2) * 1000, 3)}


def known_gain() -> dict[str, float]:
    """Return the net value of the best fixed model, and of whoever knows each user's kind."""
    nets = [
        (WORTH_USD * cheap - CHEAP_USD, WORTH_USD * DEAR_RIGHT - DEAR_USD)
        for cheap in CHEAP_RIGHT.values()
    ]
    fixed = max(sum(pair[at] for pair in nets) / len(nets) for at in (0, 1))
    known = sum(map(max, nets)) / len(nets)
    return {"best_fixed": round(fixed * 1000, 3), "kind_known": round(known * 1000, 3)}


PARTS = ("tiers", "path", "herd", "faults", "gain")


async def measured(parts: list[str], options: argparse.Namespace, work: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        if {"tiers", "herd", "faults"} & set(parts):
            postgres = stack.enter_context(postgres_server())
            redis = stack.enter_context(redis_server(work / "redis", "--appendonly", "no"))
            await filled(postgres)
        if "tiers" in parts:
            found["tiers"] = await tiers(postgres, redis, options.seconds)
        if "path" in parts:
            found["path_us"] = await path()
        if "herd" in parts:
            found["herd"] = await herd(postgres, redis)
        if "faults" in parts:
            found["faults"] = await faults(postgres, folder(work, "faults"))
        if "gain" in parts:
            found["gain"] = known_gain() | {"without": [], "with": []}
            for seed in range(options.seeds):
                for name, joined in (("without", False), ("with", True)):
                    own = folder(work, f"{name}-{seed}")
                    net = await gain(own, options.requests, joined=joined, seed=seed)
                    found["gain"][name].append(net["net_usd_per_1000"])
    return found


def folder(work: Path, name: str) -> Path:
    made = work / name
    made.mkdir()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of the load (%(default)s)")
    parser.add_argument("--requests", type=int, default=3000, help="of the gain (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of the gain (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = asyncio.run(measured(options.only, options, Path(work)))
    for name, figures in found.items():
        print(name)
        for line in figures if isinstance(figures, list) else [figures]:
            print("  ", json.dumps(line))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
