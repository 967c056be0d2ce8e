"""The Redis ledger: gateways on several machines share budgets.

One Lua script (`redis.lua`) implements the rules, using Redis' own clock. A batch is one pipeline
and therefore one round trip. Each exchange in it is atomic and, because it is numbered, applied at
most once. An error that leaves it unknown whether a command ran needs no special handling: the same
exchange is sent again.

By default redis-py retries a command ten times, which runs a script twice when a reply is lost.
This ledger never retries and gives up after tens of milliseconds.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Awaitable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from tollway.gateway.budgets.model import Budget
from tollway.gateway.budgets.protocol import (
    BatchReply,
    BudgetChange,
    BudgetPosition,
    ExchangeReply,
    LeaseExchange,
    LeaseView,
    LedgerUnavailable,
    RecoveryClaim,
    WindowStatement,
)

TIMEOUT_S = 0.05  # a healthy Redis answers in 0.2 ms; calls that wait longer are refused or leased
CONNECTIONS = 4  # one batch of exchanges is under way at a time, plus operators' requests
SCRIPT = Path(__file__).with_name("redis.lua")
KEY = "tollway"

Call = tuple[tuple[str, int], tuple[object, ...]]


class RedisLedger:
    """Stores windows in Redis 6.2 or later."""

    # The mutable state is the client, its turns, and the script's hash, once Redis has loaded it.

    may_forget = True

    def __init__(self, url: str, password: str | None = None) -> None:
        """Create a client from a redis-py URL, which may have four further query options.

        - `timeout_ms=50`: the timeout.
        - `replicas=1`: spend only what this many replicas have acknowledged, so that a failover
          loses no lease.
        - `sentinel=NAME`: the address is a Sentinel, which is asked for the primary of that name.
        - `cluster=1`: the address is one of a Redis Cluster's. A budget's keys share a hash tag, so
          each budget is on one shard, and budgets are spread over all.

        Raises ValueError for options that exclude each other.
        """
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        timeout_s = float(options.pop("timeout_ms", TIMEOUT_S * 1000)) / 1000
        self._replicas = int(options.pop("replicas", 0))
        sentinel = options.pop("sentinel", None)
        is_cluster = options.pop("cluster", "0") not in ("0", "false", "")
        if is_cluster and (sentinel or self._replicas):
            raise ValueError("cluster cannot be combined with sentinel or replicas")
        query = "&".join(f"{name}={quote(value)}" for name, value in options.items())
        self._wait_ms = max(1, int(timeout_s * 500))  # the reply must come before our own timeout
        self._timeouts: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": True,
        }
        if password is not None:
            self._timeouts["password"] = password
        self._sentinels: Sequence[Redis] = ()
        address = urlunsplit(parts._replace(query=query))
        self._redis = self._cluster(address) if is_cluster else self._client(address, sentinel)
        # A pool of one Redis lets callers wait for a connection; the client of a cluster refuses.
        self._in_turn = asyncio.Semaphore(CONNECTIONS) if is_cluster else contextlib.nullcontext()
        self._sha = ""

    def _client(self, url: str, sentinel: str | None) -> Redis:
        if sentinel is None:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=self._timeouts["socket_timeout"],
                **self._timeouts,
            )
            return Redis.from_pool(pool)
        parts = urlsplit(url)
        hosts = [host.rpartition(":") for host in parts.netloc.split(",")]
        asked = Sentinel(  # type: ignore[no-untyped-call]
            [(host, int(port)) for host, _, port in hosts],
            sentinel_kwargs={k: v for k, v in self._timeouts.items() if k != "password"},
            **self._timeouts,
        )
        self._sentinels = asked.sentinels
        return cast(Redis, asked.master_for(sentinel, db=int(parts.path.strip("/") or 0)))

    def _cluster(self, url: str) -> Redis:
        """Return a client of a Redis Cluster, which has the same commands."""
        client = RedisCluster.from_url(url, max_connections=CONNECTIONS, **self._timeouts)
        return cast(Redis, client)

    @property
    def client(self) -> Redis:
        """The client, for other state beside the ledger's."""
        return self._redis

    async def ask(self, answer: Awaitable[Any]) -> Any:
        """Await an answer of `client`; raises LedgerUnavailable if there is none."""
        return await self._ask(answer)

    async def open(self) -> None:
        """Load the script, into every shard of a cluster."""
        self._sha = str(await self._ask(self._redis.script_load(self.script())))

    def script(self) -> str:
        """Return the script."""
        return SCRIPT.read_text()

    async def close(self) -> None:
        """Close the connections."""
        for client in (self._redis, *self._sentinels):
            await client.aclose()

    async def server_options(self, *names: str) -> dict[str, str]:
        """Return options of the server by name; none if this user may not see them."""
        try:
            return {
                str(name): str(value)
                for one in names
                for name, value in (await self._redis.config_get(one)).items()
            }
        except exceptions.ResponseError:
            return {}
        except (exceptions.RedisError, OSError) as exc:
            raise LedgerUnavailable(str(exc)) from exc

    async def register(self, budgets: Sequence[Budget]) -> BatchReply:
        """Register budgets."""
        await self._ask(self._redis.set(f"{KEY}:id", secrets.token_hex(8), nx=True))
        ledger_id = str(await self._ask(self._redis.get(f"{KEY}:id")))
        calls: list[Call] = []
        for budget in budgets:
            why = "the configuration changed"
            change = BudgetChange(
                "limit", budget.name, budget.limit_nano, "config", why, at_s=time.time()
            )
            alerts = ",".join(map(repr, budget.alert_at))
            carries, change_json = int(budget.carry_overdraft), json.dumps(asdict(change))
            words = ("register", budget.limit_nano, alerts, carries, ledger_id, change_json)
            calls.append(((budget.name, 0), words))
        replies = await self._call(calls or [(("", 0), ("now",))])
        return BatchReply(float(replies[0]), ledger_id, ())

    async def exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        """Apply each exchange once. Return the replies in the same order."""
        replies = await self._call([(_place(asked), _words(asked)) for asked in exchanges])
        return BatchReply(float(replies[0][0]), replies[0][1], tuple(map(_reply, replies)))

    async def reconcile(self, claims: Sequence[RecoveryClaim]) -> int:
        """End dead holders' leases by their recovery files."""
        freed_nano = await self._call(
            [
                (
                    _place(claim),
                    (
                        "reconcile",
                        claim.key.lease,
                        claim.settled_nano,
                        claim.open_nano,
                        int(claim.acknowledged),
                    ),
                )
                for claim in claims
            ]
        )
        return sum(map(int, freed_nano))

    async def accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[WindowStatement, ...]:
        """Return statements."""
        replies = await self._call([(key, ("account",)) for key in keys])
        return tuple(_account(*key, words) for key, words in zip(keys, replies, strict=True))

    async def change(self, change: BudgetChange) -> BudgetPosition:
        """Apply an operator's change. Raises KeyError for an unknown budget or lease."""
        place = change.budget, change.window_start_s
        change_json = json.dumps(asdict(change))
        words = ("change", change.kind, change.amount_nano, change.lease, change_json)
        return BudgetPosition(*map(int, (await self._call([(place, words)]))[0]))

    async def changes(self, budget: str) -> tuple[BudgetChange, ...]:
        """Return a budget's changes, oldest first."""
        stored = await self._ask(cast(Any, self._redis.lrange(_keys(budget, 0)[2], 0, -1)))
        return tuple(BudgetChange(**json.loads(change)) for change in stored)

    # ------------------------------------------------------------------ calls

    async def _call(self, calls: Sequence[Call]) -> list[Any]:
        """Run the script for each window in one round trip; reload it if Redis has lost it."""
        replies = await self._run(calls)
        errors = [words for words in replies if isinstance(words, exceptions.RedisError)]
        if errors and all(isinstance(error, exceptions.NoScriptError) for error in errors):
            await self.open()  # Redis was restarted or its scripts were flushed
            replies = await self._run(calls)
        for words in replies:
            if isinstance(words, exceptions.RedisError):
                if str(words).startswith(("NOBUDGET", "NOLEASE")):
                    raise KeyError(str(words))
                raise LedgerUnavailable(str(words)) from words
        return replies

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for place, words in calls:
            # Not `evalsha`, which redis-py refuses in pipelines to a cluster. There is no reason
            # to: all keys of a call are in one slot, and a repeated call has no effect.
            pipe.execute_command("EVALSHA", self._sha, 3, *_keys(*place), *map(str, words))
        if self._replicas:
            pipe.execute_command("WAIT", self._replicas, self._wait_ms)
        replies: list[Any] = await self._ask(pipe.execute(raise_on_error=False))
        if self._replicas and replies.pop() not in range(self._replicas, 1000):
            raise LedgerUnavailable(f"fewer than {self._replicas} replicas acknowledged the write")
        return replies

    async def _ask(self, answer: Awaitable[Any]) -> Any:
        try:
            async with self._in_turn:
                return await answer
        except (exceptions.RedisError, OSError) as exc:
            raise LedgerUnavailable(f"{type(exc).__name__}: {exc}") from exc


def _keys(budget: str, start_s: int) -> tuple[str, str, str]:
    # An empty hash tag would be none (Redis Cluster specification), and no budget is called "-".
    base = f"{KEY}:{{{quote(budget, safe='') or '-'}}}"
    return base, f"{base}:{start_s}", f"{base}:changes"


def _place(asked: LeaseExchange | RecoveryClaim) -> tuple[str, int]:
    return asked.key.budget, asked.key.window_start_s


def _words(asked: LeaseExchange) -> tuple[object, ...]:
    end_s = asked.key.window_end_s
    return (
        "exchange",
        asked.key.lease,
        asked.seq,
        asked.settled_nano,
        asked.held_nano,
        asked.flushed_nano,
        asked.open_nano,
        asked.give_nano,
        asked.need_nano,
        asked.due_nano,
        asked.want_nano,
        int(asked.close),
        asked.key.window_start_s,
        "" if end_s is None else end_s,
    )


def _reply(words: list[Any]) -> ExchangeReply:
    _, _, grant, ended, short, stale, crossed, overdrawn, *position = words
    return ExchangeReply(
        int(grant),
        BudgetPosition(*map(int, position)),
        ended=bool(ended),
        short=bool(short),
        stale=stale == "1",
        crossed=tuple(map(float, crossed.split(","))) if crossed else (),
        overdrawn_nano=int(overdrawn),
    )


def _account(budget: str, start_s: int, words: list[Any]) -> WindowStatement:
    position, *leases = words
    views = [
        LeaseView(name, state, int(held), int(opened), int(settled), int(charged), float(until))
        for name, state, held, opened, settled, charged, until in sorted(leases)
    ]
    return WindowStatement(budget, start_s, BudgetPosition(*map(int, position)), tuple(views))
