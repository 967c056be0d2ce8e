"""The three ledgers with a clock that the test sets."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.redis_server import RedisServer
from tollway.gateway.budgets.model import Budget, LeaseKey, Scope
from tollway.gateway.budgets.protocol import ExchangeReply, LeaseExchange, Ledger, WindowStatement
from tollway.gateway.budgets.stores.memory import MemoryLedger
from tollway.gateway.budgets.stores.redis import RedisLedger
from tollway.gateway.budgets.stores.sqlite import SqliteLedger

STUCK_S = 60.0
START_S = 4_000_000_000.0  # ahead of the real clock, which expires keys in Redis


class ClockedRedis(RedisLedger):
    """Redis with the test's clock; everything else is as shipped."""

    def script(self) -> str:
        shipped = super().script()
        turned = shipped.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
        assert turned != shipped
        return turned

    async def turn(self, now_s: float) -> None:
        seconds, micros = divmod(round(now_s * 1e6), 10**6)
        await self._redis.delete("clock")
        await self._redis.rpush("clock", seconds, micros)  # type: ignore[misc]

    async def flush(self) -> None:
        await self._redis.flushall()


class ClockedCluster(ClockedRedis):
    """A Redis Cluster with the test's clock: a script may not read a key of another shard."""

    now_s = START_S

    def script(self) -> str:
        seconds, micros = divmod(round(self.now_s * 1e6), 10**6)
        shipped = RedisLedger.script(self)
        turned = shipped.replace("redis.call('TIME')", f"{{'{seconds}', '{micros}'}}")
        assert turned != shipped
        return turned

    async def turn(self, now_s: float) -> None:
        self.now_s = now_s
        await self.open()


@dataclass
class Bench:
    """One ledger, its clock, and a holder's shorthand."""

    ledger: Ledger
    now_s: float = START_S
    seqs: dict[str, int] = field(default_factory=dict)

    async def turn(self, now_s: float) -> None:
        self.now_s = now_s
        if isinstance(self.ledger, ClockedRedis):
            await self.ledger.turn(now_s)

    async def say(
        self,
        lease: str,
        *,
        budget: str = "b",
        window: tuple[int, int | None] = (0, None),
        seq: int | None = None,
        **figures: Any,
    ) -> ExchangeReply:
        """Make the lease's next exchange, or the one numbered `seq`."""
        number = self.seqs.get(lease, 0) + 1 if seq is None else seq
        self.seqs[lease] = max(number, self.seqs.get(lease, 0))
        key = LeaseKey(budget, *window, lease)
        return (await self.ledger.exchange([LeaseExchange(key, number, **figures)])).replies[0]

    async def lease(self, lease: str, amount_nano: int, **more: Any) -> ExchangeReply:
        return await self.say(lease, need_nano=amount_nano, due_nano=amount_nano, **more)

    async def account(self, budget: str = "b", start_s: int = 0) -> WindowStatement:
        account = (await self.ledger.accounts([(budget, start_s)]))[0]
        position = account.position
        assert position.limit_nano + position.overdraft_nano == (
            position.used_nano + position.leased_nano + position.free_nano
        )
        return account


@dataclass
class Implementation:
    """A factory of one kind of ledger."""

    name: str
    folder: Path
    redis: RedisServer | None = None

    def make(self, clock: Callable[[], float]) -> Ledger:
        if self.name == "memory":
            return MemoryLedger(clock)
        if self.name == "sqlite":
            return SqliteLedger(self.folder / "ledger.db", clock)
        assert self.redis is not None
        if self.name == "cluster":
            return ClockedCluster(f"redis://127.0.0.1:{self.redis.port}?cluster=1&timeout_ms=5000")
        return ClockedRedis(self.redis.url + "?timeout_ms=5000")

    def run(
        self,
        main: Callable[[Bench], Coroutine[Any, Any, None]],
        *budgets: Budget,
    ) -> None:
        """Run a test on a fresh ledger, with a budget `b` of 1000 unless others are given."""

        async def bounded() -> None:
            bench = Bench(self.make(lambda: bench.now_s))
            async with asyncio.timeout(STUCK_S):
                await bench.ledger.open()
                if isinstance(bench.ledger, ClockedRedis):
                    await bench.ledger.flush()
                    await bench.ledger.open()
                await bench.turn(START_S)
                await bench.ledger.register(budgets or [Budget("b", Scope(), 1000)])
                try:
                    await main(bench)
                finally:
                    await bench.ledger.close()

        asyncio.run(bounded())
