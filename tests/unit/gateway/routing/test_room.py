"""Limits before a language model: long replies are not mistaken for a queue."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from tests.support.configs import one_model
from tests.support.harness import run, running, serving


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """A model that takes a millisecond for each token it may write, whatever else it is asked."""
    document = orjson.loads((await receive())["body"])
    await asyncio.sleep(document["max_tokens"] / 1000)
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "ok"}}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps({"choices": [choice]})})


@pytest.mark.integration
def test_forty_clients_with_replies_of_any_length_are_all_served(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(slow) as url,
            running(one_model(url, price="{ per_request_usd = 0.0001 }"), tmp_path) as tollway,
        ):

            async def ask(tokens: int) -> int:
                said = [{"role": "user", "content": "hello"}]
                document = {"model": "m", "messages": said, "max_tokens": tokens}
                path = tollway.url + "/v1/chat/completions"
                return (await tollway.client.post(path, json=document)).status_code

            async def client(number: int) -> set[int]:
                rng = Random(number)
                return {await ask(rng.choice([10, 50, 300, 1500])) for _ in range(8)}

            assert {await ask(1) for _ in range(12)} == {200}  # health checks
            met = await asyncio.gather(*[client(number) for number in range(40)])
            assert set.union(*met) == {200}

    run(main)
