"""Measures what a cache of answers costs and saves.

    python benchmarks/cache.py                       # times of a hit and a miss, and a herd
    python benchmarks/cache.py --data DIR            # also the saving on repeats of real prompts
    python benchmarks/cache.py --redis               # also a second tier that is killed

DIR holds tables of every arm's score and cost for every prompt (see `routing.py`). Their prompts
are asked again and again, with the frequencies of a Zipf law of the exponents `--zipf`, of a real
gateway with and without a cache; each answer is labelled with its score. A cached answer has the
score that its backend has in the table. Requests enter the application without sockets, and
backends answer from memory, so times are the gateway's own work on one core: compare only figures
of one run.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, ClassVar

import numpy as np
import orjson

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from choosing.tables import NotATable, Table, load  # noqa: E402

from tollway.backends.types import Call, Headers, HttpReply  # noqa: E402
from tollway.gateway import settings as config  # noqa: E402
from tollway.gateway.listener.client import Client  # noqa: E402
from tollway.gateway.listener.known_heads import KnownHead  # noqa: E402
from tollway.gateway.routing.request import InferenceRequest  # noqa: E402
from tollway.gateway.security.keys import hash_key  # noqa: E402
from tollway.gateway.wiring import Gateway, build  # noqa: E402

USD_PER_TOKEN = 1e-8  # so that a table's costs are whole numbers of tokens
PATH = "/v1/chat/completions"
LOOKUPS = 2000
HERD = 10_000


def configuration(arms: list[str], *, cache: str = "", more: str = "", budget: str = "") -> str:
    """Return the configuration of a route over some arms."""
    backends = "".join(
        f"""
[[backends]]
name = "{arm}"
kind = "api"
protocol = "openai"
url = "http://127.0.0.1:9"
concurrency = 20000
price = {{ input_usd_per_mtok = {USD_PER_TOKEN * 1e6}, output_usd_per_mtok = 0 }}
"""
        for arm in arms
    )
    return f"""
[server]
allow_anonymous = true
feedback_per_s = 1000000
max_in_flight = 20000
[ledger]
url = "memory://"
{more}
{backends}
[[routes]]
name = "r"
path = "{PATH}"
protocol = "openai"
backends = {json.dumps(arms)}
objective = "value"
value_per_correct_usd = 0.02
context = {{ text = ["messages[*].content"] }}
{cache}
{budget}
"""


class Upstream:
    """A backend in memory: what it answers, and how often it was asked."""

    def __init__(self, tokens: dict[str, int] | None = None) -> None:
        """`tokens` is what a prompt costs."""
        self.tokens = tokens or {}
        self.calls = 0

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Return an answer that says what it has used."""
        self.calls += 1
        prompt = call.payload.data["messages"][0]["content"]
        message = {"role": "assistant", "content": "an answer"}
        body = orjson.dumps(
            {
                "id": "c",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {
                    "prompt_tokens": self.tokens.get(prompt, 1000),
                    "completion_tokens": 0,
                },
            }
        )
        await asyncio.sleep(0)
        return HttpReply(200, [(b"content-type", b"application/json")], Once(body), body)

    async def aclose(self) -> None:
        """Do nothing."""


class Once:
    """A body of one chunk."""

    def __init__(self, body: bytes) -> None:
        self._chunks = iter((body,))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Do nothing."""


@asynccontextmanager
async def opened(text: str, upstreams: dict[str, Upstream]) -> AsyncIterator[Gateway]:
    """Open a gateway over backends in memory."""
    with tempfile.TemporaryDirectory() as folder:
        gateway = build(config.parse(text, {}, folder=Path(folder)), rng=Random(1))
        for name, upstream in upstreams.items():
            gateway.routes["r"].backends[name].transport = upstream
        await gateway.open()
        try:
            yield gateway
        finally:
            await gateway.close()


def scope_of(*more: tuple[bytes, bytes]) -> dict[str, Any]:
    """Return the ASGI scope of a request."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [(b"host", b"bench"), (b"content-type", b"application/json"), *more],
        "client": ("127.0.0.1", 1),
        "extensions": {},
    }


async def ask(gateway: Gateway, body: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Ask a gateway; return the status and the header fields of the reply."""
    began, *_ = await told_by(gateway.app, scope_of(), body)
    return began["status"], dict(began["headers"])


async def told_by(app: Any, scope: dict[str, Any], body: bytes) -> list[dict[str, Any]]:
    """Return the messages of an ASGI application in reply to a request."""
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    await app(scope, receive, send)
    return told


def request(prompt: str) -> bytes:
    """Return the body of a request that does not sample."""
    messages = [{"role": "user", "content": prompt}]
    return orjson.dumps({"model": "m", "messages": messages, "temperature": 0})


TENANT = f"""
[[tenants]]
name = "bench"
key_hash = "{hash_key("bench")}"
"""
CACHE = "cache = { ttl_s = 86400, early = 0, fresh_share = 0.01 }"


# -- times


async def times(rounds: int, count: int) -> dict[str, float]:
    """Return microseconds of CPU per request: without a cache, of a hit, a miss, a look-up."""
    arms, found = ["small", "large"], {}
    texts = {"without": configuration(arms), "with": configuration(arms, cache=CACHE)}
    names = ("no cache", "miss", "hit", "hit, once parsed", "hit, same bytes", "look-up")
    taken: dict[str, list[float]] = {name: [] for name in names}
    async with (
        opened(texts["without"], {arm: Upstream() for arm in arms}) as plain,
        opened(texts["with"], {arm: Upstream() for arm in arms}) as caching,
        opened(
            configuration(arms, cache=CACHE.replace("0.01", "0"), more=TENANT),
            {arm: Upstream() for arm in arms},
        ) as same,
    ):
        hot = [request(f"how much is {number} times {number}?") for number in range(64)]
        for body in hot:
            await ask(caching, body)
        serial = 0
        for _ in range(rounds):
            fresh = [request(f"what is {serial + number}?") for number in range(count)]
            serial += count
            for name, gateway, bodies in (
                ("no cache", plain, fresh),
                ("miss", caching, fresh),
                ("hit", caching, [hot[number % 64] for number in range(count)]),
            ):
                began = time.process_time()
                for number, body in enumerate(bodies):
                    await ask(gateway, body)
                    if number % 32 == 0:
                        await asyncio.sleep(0)
                taken[name].append((time.process_time() - began) / count * 1e6)
            taken["hit, once parsed"].append(await parsed_hits(caching, hot, count))
            taken["hit, same bytes"].append(await same_bytes(same, hot, count))
            taken["look-up"].append(look_ups(caching, hot))
        found = {name: median(values) for name, values in taken.items()}
    return found


async def parsed_hits(gateway: Gateway, bodies: list[bytes], count: int) -> float:
    """Return the microseconds from a parsed request to the end of its decision and its rows."""
    route = gateway.routes["r"]
    asked = []
    for body in bodies:
        call = Call(b"POST", PATH.encode(), [(b"content-type", b"application/json")], body)
        call.payload = route.protocol.parse(call)
        asked.append(call)
    began = time.process_time()
    for number in range(count):
        now_s = asyncio.get_running_loop().time()
        one = InferenceRequest(route, "anonymous", asked[number % 64], now_s, now_s + 60.0)
        state = await gateway.caching.answer(one)
        assert state.held is not None
        if number % 32 == 0:
            await asyncio.sleep(0)
    return (time.process_time() - began) / count * 1e6


class Whole:
    """A request that has come in one read, with a head that was judged before."""

    waited = False
    tasks: ClassVar[set[Any]] = set()

    def __init__(self, known: KnownHead, body: bytes) -> None:
        self.known, self.body = known, body
        self.scope = self.head = known.scope
        self.data = b""
        self.app: Any = None

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        """Refuse: the shell sends hits as they are."""
        return False

    def reply_as_is(self, data: bytes) -> bool:
        """Take the reply."""
        self.data = data
        return True

    def hand_over(self, app: Any) -> None:
        """Note the coroutine that goes on."""
        self.app = app


async def same_bytes(gateway: Gateway, bodies: list[bytes], count: int) -> float:
    """Return the microseconds of a request whose head and body came before, in the shell."""
    scope = scope_of((b"authorization", b"Bearer bench"))
    known, client, handed = KnownHead(scope), Client(), 0

    async def begin(body: bytes) -> None:
        nonlocal handed
        whole = Whole(known, body)
        assert gateway.app.begin(client, whole)
        if whole.app is not None:
            handed += 1
            await told_by(whole.app, scope, body)
        else:
            assert b"x-tollway-cache: hit" in whole.data

    for body in [one for one in bodies for _ in range(3)]:
        await begin(body)
    handed = 0
    began = time.process_time()
    for number in range(count):
        await begin(bodies[number % len(bodies)])
        if number % 32 == 0:
            await asyncio.sleep(0)
    taken_us = (time.process_time() - began) / count * 1e6
    assert handed <= count // 50, f"{handed} of {count} were not answered at once"
    return taken_us


def look_ups(gateway: Gateway, bodies: list[bytes]) -> float:
    """Return the microseconds from a parsed request to the kept answer that is offered for it."""
    from tollway.gateway.routing.cached.arm import arm_of  # noqa: PLC0415

    route = gateway.routes["r"]
    caching, plan = gateway.caching, route.cache
    assert plan is not None
    calls = []
    for body in bodies:
        call = Call(b"POST", PATH.encode(), [(b"content-type", b"application/json")], body)
        call.payload = route.protocol.parse(call)
        calls.append(call)
    rng, hits = Random(1), 0
    began = time.process_time()
    for number in range(LOOKUPS):
        key = caching.keys.of(plan, calls[number % 64], "anonymous")
        assert key is not None
        entry = caching.memory.get(key)
        if entry is not None and entry.state(time.time(), plan.early, rng) == "fresh":
            hits += arm_of(entry, route) is not None
    taken_us = (time.process_time() - began) / LOOKUPS * 1e6
    assert hits == LOOKUPS
    return taken_us


async def herd() -> dict[str, int]:
    """Return what many requests for one expired answer do: calls, and how they were answered."""
    upstream = Upstream()
    text = configuration(["small"], cache="cache = { ttl_s = 60, stale_s = 60, fresh_share = 0 }")
    async with opened(text, {"small": upstream}) as gateway:
        now_s = 1e9
        gateway.caching.wall = lambda: now_s
        cold = await asyncio.gather(*[ask(gateway, request("hot")) for _ in range(HERD)])
        calls_cold = upstream.calls
        now_s += 61.0
        stale = await asyncio.gather(*[ask(gateway, request("hot")) for _ in range(HERD)])
        while not gateway.caching.is_quiet:  # noqa: ASYNC110 - a benchmark may look again
            await asyncio.sleep(0.01)
    return {
        "requests": HERD,
        "calls_cold": calls_cold,
        "calls_at_expiry": upstream.calls - calls_cold,
        "not_200": sum(status != 200 for status, _ in (*cold, *stale)),
    }


# -- savings


@dataclass
class Saving:
    """What a stream of repeats costs with and without a cache."""

    table: str
    zipf: float
    requests: int
    distinct: int
    hit_rate: float
    calls: int
    usd_without: float
    usd_with: float
    told_saved_usd: float
    quality_without: float
    quality_with: float

    @property
    def saved(self) -> float:
        """The share of the cost that the cache saves."""
        return 1.0 - self.usd_with / self.usd_without


async def spent(table: Table, stream: list[int], cache: str) -> tuple[float, float, int, Gateway]:
    """Return dollars, mean quality and calls of a stream of rows of a table."""
    assert table.texts is not None
    upstreams = {}
    for column, arm in enumerate(table.arms):
        costs = table.cost[:, column] / USD_PER_TOKEN
        upstreams[arm] = Upstream(
            dict(zip(table.texts, costs.round().astype(int).tolist(), strict=True))
        )
    quality = 0.0
    bodies = [request(text) for text in table.texts]
    async with opened(configuration(table.arms, cache=cache), upstreams) as gateway:
        for number, row in enumerate(stream):
            status, fields = await ask(gateway, bodies[row])
            assert status == 200, fields
            arm = fields[b"x-tollway-backend"].decode().removeprefix("cache:")
            score = float(table.quality[row, table.arms.index(arm)])
            quality += score
            await asyncio.sleep(0)
            item = {"decision": fields[b"x-tollway-decision"].decode(), "quality": score}
            (told,) = await gateway.learner.teach([item], None)
            assert told["result"] == "learned", told
            if number % 25 == 0 and gateway.routes["r"].policy.resolve_due():
                gateway.routes["r"].policy.resolve()
        cost_nano = sum(sum(tally.cost_nano.values()) for tally in gateway.metrics.tallies.values())
        calls = sum(upstream.calls for upstream in upstreams.values())
        return cost_nano / 1e9, quality / len(stream), calls, gateway


async def saving(table: Table, zipf: float, count: int) -> Saving:
    """Return what a cache saves on `count` requests with repeats."""
    assert table.texts is not None
    rng = np.random.default_rng(7)
    ranks = rng.permutation(len(table))
    weights = 1.0 / np.arange(1, len(table) + 1) ** zipf
    stream = ranks[rng.choice(len(table), size=count, p=weights / weights.sum())].tolist()
    without = await spent(table, stream, "")
    kept = await spent(table, stream, CACHE)
    plan = kept[3].routes["r"].cache
    assert plan is not None
    return Saving(
        table.name,
        zipf,
        count,
        len({table.texts[row] for row in stream}),
        plan.counts.lookups["hit"] / count,
        kept[2],
        without[0],
        kept[0],
        plan.counts.saved_nano / 1e9,
        without[1],
        kept[1],
    )


def tables(folder: Path, wanted: list[str]) -> list[Table]:
    """Return the tables with prompts below a folder whose paths have one of the words."""
    found = []
    for path in sorted(folder.rglob("*.jsonl")):
        if any(word in str(path.relative_to(folder)) for word in wanted):
            try:
                table = load(path)
            except NotATable:
                continue
            if table.texts is not None:
                table.arms = [arm.rpartition("/")[2] for arm in table.arms]
                found.append(table)
    return found


# -- a second tier that is killed


async def killed() -> dict[str, int]:
    """Return how many requests fail when the Redis of the cache is killed under them."""
    from tests.support.redis_server import redis_server  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as redis:
        more = f'[cache]\nurl = "{redis.url}"\n'
        text = configuration(["small"], cache=CACHE, more=more)
        failed = answered = 0
        async with opened(text, {"small": Upstream()}) as gateway:
            for number in range(3000):
                if number == 1000:
                    redis.kill()
                if number == 2000:
                    redis.start()
                status, _ = await ask(gateway, request(f"what is {number % 400}?"))
                answered += status == 200
                failed += status != 200
            remote = gateway.caching.remote
            assert remote is not None
            return {"requests": 3000, "failed": failed, "errors_of_redis": remote.errors}


async def shared_herd() -> dict[str, int]:
    """Return what a herd at two gateways with one Redis does when an answer is not there."""
    from tests.support.redis_server import redis_server  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as redis:
        upstream = Upstream()
        more = f'[cache]\nurl = "{redis.url}?timeout_ms=10000"\n'
        text = configuration(["small"], cache=CACHE.replace("0.01", "0"), more=more)
        async with (
            opened(text, {"small": upstream}) as one,
            opened(text, {"small": upstream}) as other,
        ):
            gateways = (one, other) * (HERD // 2)
            replies = await asyncio.gather(*[ask(each, request("hot")) for each in gateways])
            return {
                "requests": HERD,
                "gateways": 2,
                "calls": upstream.calls,
                "not_200": sum(status != 200 for status, _ in replies),
            }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of tables of prompts")
    parser.add_argument(
        "--tables", nargs="+", default=["paretobandit/test"], help="words in their paths"
    )
    parser.add_argument("--zipf", nargs="+", type=float, default=[0.8, 1.0, 1.2])
    parser.add_argument("--requests", type=int, default=6000, help="of each stream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--redis", action="store_true", help="kill a Redis under the cache")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    document: dict[str, Any] = {}
    document["us"] = told = asyncio.run(times(arguments.rounds, 1000))
    print("CPU per request, us (no sockets; backends in memory)")
    for name, microseconds in told.items():
        print(f"  {name:16} {microseconds:7.1f}")
    document["herd"] = asyncio.run(herd())
    print("herd", document["herd"])
    if arguments.redis:
        if shutil.which("redis-server") is None:
            parser.error("--redis needs redis-server; apt install redis-server")
        document["killed"] = asyncio.run(killed())
        print("Redis killed and started again", document["killed"])
        document["shared_herd"] = asyncio.run(shared_herd())
        print("herd at two gateways", document["shared_herd"])
    if arguments.data is not None:
        rows = []
        found = tables(arguments.data, arguments.tables)
        if not found:
            parser.error(f"no table with prompts in {arguments.data} matches {arguments.tables}")
        print(
            f"{'table':12} {'zipf':>5} {'requests':>9} {'distinct':>9} {'hits':>6} {'calls':>7} "
            f"{'$ without':>10} {'$ with':>10} {'saved':>7} {'quality without, with':>22}"
        )
        for table in found:
            for zipf in arguments.zipf:
                one = asyncio.run(saving(table, zipf, arguments.requests))
                rows.append({**asdict(one), "saved": one.saved})
                print(
                    f"{one.table:12} {one.zipf:5.1f} {one.requests:9,} {one.distinct:9,} "
                    f"{one.hit_rate:6.1%} {one.calls:7,} {one.usd_without:10.4f} "
                    f"{one.usd_with:10.4f} {one.saved:7.1%} "
                    f"{one.quality_without:14.4f}, {one.quality_with:.4f}"
                )
        document["savings"] = rows
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
