"""Attacks of one tenant on another's requests, records and money, as bytes on the wire."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.http import Address, Reply, ask, listening, send
from tests.support.configs import PRICE, budget, two_backends
from tests.support.harness import Upstream, inference, run, serving
from tollway.gateway.security.keys import hash_key, new_key
from tollway.gateway.storage.journal_format import ROW_BYTES_MAX

pytestmark = pytest.mark.integration

ADMIN, KEYS = new_key(), {name: new_key() for name in ("honest", "mallory")}
SERVER = f'admin_key_hash = "{hash_key(ADMIN)}"'
TENANTS = "".join(
    f'[[tenants]]\nname = "{name}"\nkey_hash = "{hash_key(key)}"\n' for name, key in KEYS.items()
)
CHAT = f"""
[[backends]]
name = "llm"
kind = "gpu"
protocol = "openai"
url = "URL"
price = {PRICE}

[[routes]]
name = "chat"
path = "/v1/*"
protocol = "openai"
backends = ["llm"]
models = "*"
"""
PATH = "/v2/models/m/infer"
BODY = json.dumps(inference()).encode()


class Poisoned(Upstream):
    """A model server that fails on some requests, as a bug of its own makes it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.status = 500 if (b"x-poison", b"1") in scope.get("headers", ()) else 200
        await super().__call__(scope, receive, send)


def as_(tenant: str, **fields: str) -> dict[str, str]:
    key = ADMIN if tenant == "admin" else KEYS[tenant]
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **named}


@contextlib.asynccontextmanager
async def attacked(folder: Path, upstream: Upstream) -> AsyncIterator[Address]:
    """Serve a gateway with two tenants."""
    async with serving(upstream) as url:
        more = TENANTS + CHAT.replace("URL", url) + budget("all", "1000")
        toml = two_backends(url, url, server=SERVER, more=more)
        toml = toml.replace("outputs[0].data[0]", "outputs[0].data")
        async with listening(toml, folder) as (_, address):
            yield address


def attack(
    folder: Path, work: Callable[[Address, Upstream], Awaitable[None]], upstream: Upstream
) -> None:
    async def main() -> None:
        async with attacked(folder, upstream) as address:
            await work(address, upstream)

    run(main)


async def decided(address: Address, tenant: str, **fields: str) -> tuple[Reply, str]:
    """Ask for an inference; return the reply and the id of its decision."""
    reply = await ask(address, PATH, BODY, as_(tenant, **fields))
    found = [line for line in reply.head.split(b"\r\n") if line.startswith(b"x-tollway-decision:")]
    return reply, found[0].partition(b": ")[2].decode() if found else ""


def written(folder: Path) -> list[bytes]:
    """Return the lines of all journals."""
    return [
        line
        for path in folder.rglob("journal-*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"x_poison": "1"},
        {"x_tollway_deadline_ms": "1"},
        {"x_tollway_max_cost_usd": "0"},
        {"x_tollway_min_accuracy": "1"},
    ],
    ids=["poison", "deadline", "cost", "accuracy"],
)
def test_requests_of_one_tenant_do_not_shut_a_backend_for_another(
    fields: dict[str, str], tmp_path: Path
) -> None:
    async def work(address: Address, upstream: Upstream) -> None:
        upstream.delay_s = 0.02
        for _ in range(20):
            await ask(address, PATH, BODY, as_("mallory", **fields))
        for _ in range(3):
            reply = await ask(address, PATH, BODY, as_("honest"))
            assert reply.status == 200
            assert b"x-tollway-backend: cheap\r\n" in reply.head

    attack(tmp_path, work, Poisoned())


def test_hanging_up_does_not_shut_a_backend_for_another(tmp_path: Path) -> None:
    async def work(address: Address, upstream: Upstream) -> None:
        upstream.delay_s = 0.05
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEYS['mallory']}\r\n"
        whole = head.encode() + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
        for cut in (len(head), len(whole) - 5, len(whole)):
            for _ in range(10):
                _, writer = await asyncio.open_connection(*address)
                writer.write(whole[:cut])
                await writer.drain()
                await asyncio.sleep(0.01)
                writer.close()
        reply = await ask(address, PATH, BODY, as_("honest"))
        assert reply.status == 200
        assert b"x-tollway-backend: cheap\r\n" in reply.head

    attack(tmp_path, work, Upstream())


def test_the_same_idempotency_key_of_two_tenants_is_two_requests(tmp_path: Path) -> None:
    async def work(address: Address, upstream: Upstream) -> None:
        first, one = await decided(address, "honest", idempotency_key="k")
        _, other = await decided(address, "mallory", idempotency_key="k")
        assert one != other
        assert upstream.calls == 2
        again, same = await decided(address, "honest", idempotency_key="k")
        assert (same, again.body) == (one, first.body)
        assert upstream.calls == 2

    attack(tmp_path, work, Upstream())


def test_a_tenant_neither_reads_nor_labels_anothers_decisions(tmp_path: Path) -> None:
    async def work(address: Address, upstream: Upstream) -> None:
        _, mine = await decided(address, "honest")
        _, theirs = await decided(address, "mallory")
        for target in (f"/_tollway/decisions/{mine}", "/_tollway/spend", "/_tollway/budgets"):
            assert (await ask(address, target, headers=as_("mallory"))).status in (401, 403, 404)
        label = {"decision": mine, "quality": 0.0}
        own = {"decision": theirs, "quality": 1.0}
        for body in (label, [own, label], {"decision": mine, "label": 1}):
            reply = await ask(
                address, "/_tollway/feedback", json.dumps(body).encode(), as_("mallory")
            )
            told = reply.document["results"] if isinstance(body, list) else [reply.document]
            assert told[-1]["result"] == "unknown"
        story = await ask(address, f"/_tollway/decisions/{mine}", headers=as_("admin"))
        assert story.status == 200
        assert b"mallory" not in story.body
        assert not story.document.get("feedback")

    attack(tmp_path, work, Upstream())


def test_a_huge_answer_of_one_tenant_leaves_room_in_the_journal(tmp_path: Path) -> None:
    async def work(address: Address, upstream: Upstream) -> None:
        numbers = [n / 7 for n in range(60_000)]
        output = {"name": "label", "shape": [1, 60_000], "datatype": "FP64", "data": numbers}
        huge = json.dumps({"model_name": "m", "outputs": [output]})
        for n in range(6):
            upstream.body = huge.encode() if n % 2 else None
            _, made = await decided(address, "mallory" if n % 2 else "honest")
        label = json.dumps({"decision": made, "label": 1}).encode()
        reply = await ask(address, "/_tollway/feedback", label, as_("mallory"))
        assert reply.status == 422
        assert b"no answer was recorded" in reply.body
        quality = json.dumps({"decision": made, "quality": 1.0}).encode()
        reply = await ask(address, "/_tollway/feedback", quality, as_("mallory"))
        assert reply.document["result"] == "learned"
        lines = written(tmp_path)
        assert len(lines) >= 12
        assert max(map(len, lines)) < ROW_BYTES_MAX

    attack(tmp_path, work, Upstream())


def test_made_up_models_tags_and_paths_make_no_metrics(tmp_path: Path) -> None:
    async def work(address: Address, upstream: Upstream) -> None:
        async def series() -> int:
            text = (await ask(address, "/metrics")).body
            return sum(not line.startswith(b"#") for line in text.splitlines())

        async def made_up(n: int) -> None:
            chat = {"model": f"made-up-{n}", "messages": [{"role": "user", "content": "hi"}]}
            for target, body in (
                ("/v1/chat/completions", json.dumps(chat).encode()),
                (f"/v1/made-up-{n}", b"{}"),
                (f"/v2/models/made-up-{n}/infer", BODY),
                (PATH, BODY),
            ):
                await ask(
                    address, target, body, as_("mallory", user_agent=f"u{n}", traceparent=f"00-{n}")
                )

        await made_up(0)
        await asyncio.sleep(0)
        before = await series()
        for n in range(1, 40):
            await made_up(n)
        assert await series() <= before + 2

    attack(tmp_path, work, Upstream())


@pytest.mark.parametrize("model", ["*", "", "%2a", "m\u0000", "../m", "m" * 10_000])
def test_no_name_of_a_model_stands_for_others(model: str, tmp_path: Path) -> None:
    async def work(address: Address, upstream: Upstream) -> None:
        target = f"/v2/models/{model.encode('unicode_escape').decode()}/infer"
        reply = await ask(address, target, BODY, as_("mallory"))
        assert 400 <= reply.status < 500
        assert upstream.calls == 0

    attack(tmp_path, work, Upstream())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("x-tollway-tags", ",".join(f"k{n}=v" for n in range(5000))),
        ("x-tollway-tags", "k=" + "v" * 20_000),
        ("x-other", "v" * 200_000),
        ("idempotency-key", "k" * 20_000),
        ("x-forwarded-for", ",".join(["127.0.0.1"] * 5000)),
    ],
    ids=["many tags", "long tag", "long field", "long key", "many addresses"],
)
def test_large_fields_are_refused_and_reach_no_backend(
    field: str, value: str, tmp_path: Path
) -> None:
    async def work(address: Address, upstream: Upstream) -> None:
        reply = await ask(address, PATH, BODY, {**as_("mallory"), field: value})
        assert 400 <= reply.status < 500
        assert upstream.calls == 0
        fields = [f"x-{n}: v" for n in range(5000)]
        head = [f"POST {PATH} HTTP/1.1", "Host: x", *fields, "", ""]
        assert 400 <= (await send(address, "\r\n".join(head).encode())).status < 500
        assert (await ask(address, PATH, BODY, as_("honest"))).status == 200

    attack(tmp_path, work, Upstream())


def test_every_byte_of_a_body_is_what_its_backend_gets(tmp_path: Path) -> None:
    async def work(address: Address, upstream: Upstream) -> None:
        odd = (
            b'{ "z": 1, "parameters": {"x": 92233720368547758079, "y": 1e300, "\\u0061": 1},'
            + (BODY[1:])
        )
        assert (await ask(address, PATH, odd, as_("honest"))).status == 200
        assert upstream.requests[-1][3] == odd

    attack(tmp_path, work, Upstream())
