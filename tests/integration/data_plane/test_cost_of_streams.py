"""Clients learn what a stream cost, and tenants what their decisions did."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.harness import run, running, serving
from tollway.gateway.security.keys import hash_key

pytestmark = pytest.mark.integration

KEYS = {"acme": "tw-acme-0123456789abcdef", "umbrella": "tw-umbrella-0123456789abcdef"}
TENANTS = "".join(
    f'\n[[tenants]]\nname = "{name}"\nkey_hash = "{hash_key(key)}"\n' for name, key in KEYS.items()
)
CONFIG = (
    """
[server]
admin_key = "an-admin-key-of-a-test"
{server}

[ledger]
url = "memory://"

[[backends]]
name = "up"
kind = "api"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[routes]]
name = "r"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["up"]
"""
    + TENANTS
)
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def event(document: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)


STREAM = (
    event({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]})
    + event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    + event({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
)


def model(end: bytes) -> Any:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        fields = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": STREAM + end})

    return answer


def bearer(tenant: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[tenant]}"}


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data: [DONE]\n", b"data: [DONE]"])
@pytest.mark.parametrize("how", ["off", "comment", "event"])
def test_the_cost_follows_the_last_event_of_a_stream(tmp_path: Path, end: bytes, how: str) -> None:
    async def main() -> None:
        config = CONFIG.format(url="{url}", server=f'stream_cost = "{how}"')
        async with (
            serving(model(end)) as url,
            running(config.replace("{url}", url), tmp_path) as tollway,
        ):
            reply = await tollway.client.post(
                f"{tollway.url}/v1/chat/completions",
                json={**ASK, "stream": True},
                headers=bearer("acme"),
            )
            body, decision = reply.content, reply.headers["x-tollway-decision"]
            before, done, after = body.partition(end)
            assert done
            assert b'"stop"' in before
            told = {
                "off": "",
                "comment": f": tollway decision={decision} cost_usd=0.000060000 provenance=usage",
                "event": 'event: tollway.cost\ndata: {"decision":"%s","cost_usd":0.000060000,'
                '"provenance":"usage"}'.replace("%s", decision),
            }[how]
            assert after.decode() == ("" if how == "off" else f"\n\n{told}\n\n") or (
                end.endswith(b"\n\n") and after.decode() == f"{told}\n\n"
            )

    run(main)


def test_a_tenant_reads_the_costs_of_its_own_decisions_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(model(b"data: [DONE]\n\n")) as url,
            running(CONFIG.format(url=url, server=""), tmp_path) as tollway,
        ):
            ask, client = {**ASK, "stream": True}, tollway.client
            chat = f"{tollway.url}/v1/chat/completions"
            reply = await client.post(chat, json=ask, headers=bearer("acme"))
            at = f"{tollway.url}/_tollway/decisions/{reply.headers['x-tollway-decision']}"
            own = await client.get(at, headers=bearer("acme"))
            assert own.status_code == 200
            told = own.json()
            assert (told["cost_nano"], told["tenant"], told["is_final"]) == (60_000, "acme", True)
            (attempt,) = told["attempts"]
            assert (attempt["backend"], attempt["output_tokens"]) == ("up", 5)
            assert not {"reserved_nano", "expected_nano", "answer"} & set(attempt)
            assert not {"stages", "story", "feedback"} & set(told)
            assert (await client.get(at, headers=bearer("umbrella"))).status_code == 404
            assert (await client.get(at)).status_code == 401
            wrong = {"authorization": "Bearer tw-unknown-0123456789"}
            assert (await client.get(at, headers=wrong)).status_code == 401
            admin = {"authorization": "Bearer an-admin-key-of-a-test"}
            assert "story" in (await client.get(at, headers=admin)).json()
            others = [client.get(at, headers=bearer("acme")) for _ in range(20)]
            assert {one.status_code for one in await asyncio.gather(*others)} == {200}

    run(main)


def test_hidden_amounts_are_hidden_from_tenants_here_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(model(b"data: [DONE]\n\n")) as url,
            running(CONFIG.format(url=url, server="hide_amounts = true"), tmp_path) as tollway,
        ):
            reply = await tollway.client.post(
                f"{tollway.url}/v1/chat/completions", json=ASK, headers=bearer("acme")
            )
            at = f"{tollway.url}/_tollway/decisions/{reply.headers['x-tollway-decision']}"
            told = await tollway.client.get(at, headers=bearer("acme"))
            assert told.status_code == 200
            assert b"nano" not in told.content
            assert b"usd" not in told.content

    run(main)
