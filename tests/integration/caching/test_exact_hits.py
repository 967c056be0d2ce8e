"""Hits that are answered in the callback that brings them: still drawn, logged and given up."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, inference, run, serving
from tests.support.http_client import http_client
from tollway.gateway import settings as config
from tollway.gateway.listener import server as front
from tollway.gateway.security.keys import hash_key
from tollway.gateway.wiring import build

pytestmark = pytest.mark.integration

CACHE = "cache = {{ ttl_s = 3600, early = 0, fresh_share = {share} }}"
TENANTS = "".join(
    f'\n[[tenants]]\nname = "{name}"\nkey_hash = "{hash_key(name)}"\n' for name in ("acme", "poor")
)


@asynccontextmanager
async def listening(
    folder: Path, share: float = 0.0, more: str = "", route: str = ""
) -> AsyncIterator[Running]:
    """Serve a route with a cache behind the gateway's own listener."""
    async with serving(Upstream(label=1)) as a, serving(Upstream(label=2)) as b:
        text = two_backends(
            a,
            b,
            policy="most_accurate",
            route=CACHE.format(share=share) + route,
            more=TENANTS + more,
        )
        gateway = build(config.parse(text, {}, folder=folder), rng=random.Random(0))
        gateway.caching.clock = lambda: 1000.0  # no remembered draw grows old
        gateway.caching.rng = gateway.caching.hits.rng = random.Random(3)
        async with front.serving(gateway.app) as (host, port), http_client(timeout=30) as client:
            yield Running(gateway, f"http://{host}:{port}", client)


class Reply:
    """A reply as the tests look at it."""

    def __init__(self, head: bytes, content: bytes) -> None:
        lines = head.decode().split("\r\n")
        self.status_code = int(lines[0].split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        self.content = content


async def ask(one: Running, value: float = 1.0, key: str = "acme", **fields: str) -> Reply:
    """Send a request in one write, as clients do whose requests the shell answers at once."""
    body = json.dumps(inference(value)).encode()
    more = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
    reader, writer = await asyncio.open_connection(*one.url.removeprefix("http://").split(":"))
    writer.write(
        f"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n{more}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    head = await reader.readuntil(b"\r\n\r\n")
    found = Reply(
        head,
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])),
    )
    writer.close()
    return found


def repeated(one: Running) -> Counter[str]:
    """Count from now on what exact hits come to."""
    found: Counter[str] = Counter()
    hits = one.gateway.caching.hits
    answer = hits.answer

    def counted(*args: Any) -> Any:
        state = answer(*args)
        found["fresh" if state is True else "drawn" if state else "usual"] += 1
        return state

    hits.answer = counted  # type: ignore[method-assign]
    return found


def test_fresh_answers_are_as_frequent_as_is_logged(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path, share=0.2) as one:
            kinds = repeated(one)
            replies = [await ask(one) for _ in range(601)]
            rows = one.journalled("decision")[1:]
            attempts = one.journalled("attempt")[1:]
        results = Counter(reply.headers["x-tollway-cache"] for reply in replies[1:])
        assert set(results) == {"hit", "fresh"}
        assert 0.15 <= results["fresh"] / 600 <= 0.25
        assert kinds["drawn"] > 300 and kinds["fresh"] > 50
        assert [row["arm"] for row in rows] == [row["backend"] for row in attempts]
        ids = [reply.headers["x-tollway-decision"] for reply in replies[1:]]
        assert [row["id"] for row in rows] == ids
        for row in rows:
            hit = row["arm"] == "cache:dear"
            assert row["propensity"] == pytest.approx(0.8 if hit else 0.2)

    run(main)


def test_another_tenant_head_or_body_is_another_request(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as one:
            kinds = repeated(one)
            for _ in range(5):
                assert (await ask(one)).status_code == 200
            assert kinds["drawn"] >= 2
            before = kinds["drawn"]
            assert (await ask(one, key="poor")).headers["x-tollway-cache"] == "miss"
            assert (await ask(one, 2.0)).headers["x-tollway-cache"] == "miss"
            bypass = {"cache-control": "no-store"}
            assert (await ask(one, **bypass)).headers["x-tollway-cache"] == "bypass"
            own = {"x-tollway-cache": "refresh"}
            assert (await ask(one, **own)).headers["x-tollway-cache"] == "bypass"
            floor = {"x-tollway-min-accuracy": "1"}
            assert (await ask(one, **floor)).headers["x-tollway-cache"] in {"hit", "fresh"}
            assert kinds["drawn"] == before
            assert (await ask(one, key="nobody")).headers["x-tollway-cache"] == "miss"

    run(main)


def test_an_answer_that_is_gone_or_a_label_sends_requests_the_usual_way(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as one:
            kinds = repeated(one)
            replies = [await ask(one) for _ in range(5)]
            assert kinds["drawn"] >= 2
            decision = replies[-1].headers["x-tollway-decision"]
            await one.feedback({"decision": decision, "quality": 1.0})
            assert one.gateway.routes["m"].policy.version == 1
            kinds.clear()
            assert (await ask(one)).headers["x-tollway-cache"] == "hit"
            assert kinds == {"usual": 1}
            one.gateway.caching.memory.clear()
            assert (await ask(one)).headers["x-tollway-cache"] == "miss"
            assert kinds == {"usual": 2}

    run(main)


def test_many_clients_at_once_get_one_answer_each(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as one:
            await ask(one)
            replies = await asyncio.gather(*[ask(one) for _ in range(200)])
            assert {reply.headers["x-tollway-cache"] for reply in replies} == {"hit"}
            assert len({reply.headers["x-tollway-decision"] for reply in replies}) == 200
            assert {reply.content for reply in replies} == {replies[0].content}
            assert one.gateway.in_flight.count == 0

    run(main)
