"""Checks that a budget pays for the same calls at any concurrency if each holds more than it costs.

This is `benchmarks/budgets.py --held`. Whole gateways (`tollway serve`) share one Redis. A model
server priced by tokens bills $0.01 for every reply; the hard budget is $0.40. 100 calls are sent at
a concurrency, each with a `max_tokens` that could cost more. `fits` is the number of calls that the
budget can pay for: the gateway lowers the limit if less is left. A call that gets 429 is repeated,
as SDKs do.
"""

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from benchmarks.budgets_http import TOLLWAY, Given, Tollway, end, served
from tests.support.redis_server import RedisServer

LIMIT_CENTS, CALLS = 40, 100
TAKES_S = 0.3
TRIES = 3
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
        "usage": {"prompt_tokens": 1, "completion_tokens": 1000, "total_tokens": 1001},
    }
)


class ByTokens(Tollway):
    """`tollway serve` before a model that is paid by the token."""

    template = TOLLWAY.replace(
        "per_request_usd = 0.001", "input_usd_per_mtok = 0, output_usd_per_mtok = 10.0"
    )


@dataclass
class HeldRow:
    """One cell of the table."""

    replicas: int
    c: int
    hold_usd: float
    fits: int
    answered: int = 0
    refused: int = 0
    held: int = 0
    failed: int = 0
    overshoot_usd: float = 0.0
    seconds: float = 0.0


class Upstream:
    """The model server; it counts its answers."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer after a delay; a started call is billed."""
        while (await receive()).get("more_body"):
            pass
        self.calls += 1
        await asyncio.sleep(TAKES_S)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": REPLY})


async def ask(http: httpx.AsyncClient, url: str, max_tokens: int) -> int:
    """Send a request, with an SDK's retries; return the last status."""
    asked = {"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "?"}]}
    for _ in range(TRIES):
        reply = await http.post(f"{url}/v1/chat/completions", json=asked)
        if reply.status_code != 429:
            break
    return reply.status_code


async def held_cell(replicas_count: int, c: int, cents: int) -> HeldRow:
    """Send 100 calls that each hold `cents` until the budget is spent."""
    row = HeldRow(replicas_count, c, cents / 100, LIMIT_CENTS)
    max_tokens = 1000 * cents
    upstream, started_s = Upstream(), time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = RedisServer(folder / "redis")
        stack.callback(redis.kill)
        async with (
            served(upstream) as at,
            httpx.AsyncClient(
                trust_env=False, timeout=60, limits=httpx.Limits(max_connections=None)
            ) as http,
        ):
            replicas = [ByTokens() for _ in range(row.replicas)]
            for number, replica in enumerate(replicas):
                stack.callback(end, replica)
                await replica.start(Given(folder / str(number), at, redis.port, LIMIT_CENTS / 100))
            gate = asyncio.Semaphore(row.c)

            async def one(number: int) -> int:
                async with gate:
                    return await ask(http, replicas[number % row.replicas].url, max_tokens)

            started_s = time.monotonic()
            seen = Counter(await asyncio.gather(*[one(number) for number in range(CALLS)]))
    row.answered, row.refused, row.held = seen[200], seen[402], seen[429]
    row.failed = CALLS - row.answered - row.refused - row.held
    row.overshoot_usd = max(0, upstream.calls - LIMIT_CENTS) / 100
    row.seconds = time.monotonic() - started_s
    return row
