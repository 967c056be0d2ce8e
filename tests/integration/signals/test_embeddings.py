"""Embeddings by a backend: paid, cached, bounded in time, and never a reason to fail."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.chat_servers import ChatServer, asking, chat_backend, chat_route
from tests.support.harness import Running, run, running, serving
from tests.support.reloading import File
from tests.support.until import until
from tollway.backends.http.connection import Connection, Exchange
from tollway.gateway.security import keys
from tollway.policies.types import EMBEDDING

pytestmark = pytest.mark.integration

URL = "/v1/chat/completions"
CONTEXT = (
    'context = { text = ["messages[*].content"], embedding_backend = "embedder", '
    "embedding_timeout_s = %s }"
)
MODEL = "{ input_usd_per_mtok = 1000.0, output_usd_per_mtok = 0 }"


class Embedder:
    """Embeds texts by their first letter; `reply` replaces what it says, `waits` never ends."""

    def __init__(self, reply: bytes | None = None, *, status: int = 200, waits: bool = False):
        self.asked: list[dict[str, Any]] = []
        self.reply, self.status, self.waits = reply, status, waits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = orjson.loads((await receive())["body"])
        self.asked.append({**asked, "path": scope["path"]})
        if self.waits:
            await asyncio.Event().wait()
        vector = [float(asked["input"].startswith(letter)) for letter in "abcdefgh"] + [0.5]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        body = {"object": "list", "data": data, "model": "m", "usage": usage}
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": self.status, "headers": head})
        said = orjson.dumps(body) if self.reply is None else self.reply
        await send({"type": "http.response.body", "body": said})


async def sent(tollway: Running, text: str, **headers: str) -> Any:
    reply = await tollway.client.post(tollway.url + URL, json=asking(text), headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


def configured(chat: str, embedder: str, limit_s: float = 60.0, more: str = "") -> str:
    toml = chat_route(["one", "two"], CONTEXT % limit_s)
    toml += chat_backend("one", chat) + chat_backend("two", chat)
    return toml + chat_backend("embedder", embedder, price=MODEL) + more


def embeddings(tollway: Running) -> list[tuple[float, ...]]:
    return [tuple(row["dense"][-EMBEDDING:]) for row in tollway.journalled("decision")]


def test_a_request_is_embedded_once_paid_and_explained(tmp_path: Path) -> None:
    budgets = '\n[[budgets]]\nname = "all"\nlimit_usd = 1.0\n'

    async def main() -> None:
        chat, embedder = ChatServer(lambda prompt: "ok"), Embedder()
        async with serving(chat) as a, serving(embedder) as b:
            async with running(configured(a, b, more=budgets), tmp_path) as tollway:
                first = await sent(tollway, "a first")
                for text in ("b second", "a first"):
                    await sent(tollway, text)
                explained = await tollway.get(
                    f"/_tollway/decisions/{first.headers['x-tollway-decision']}"
                )
                rows = tollway.journalled("attempt")
                found = embeddings(tollway)
                status = tollway.gateway.reservations.status()[0]
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
        paid = [row for row in rows if row.get("signal") == "embedding"]
        assert [one["input"] for one in embedder.asked] == ["a first", "b second"]
        assert embedder.asked[0]["path"] == "/v1/embeddings"
        assert embedder.asked[0]["model"] == "embedder-model"
        assert found[0] == found[2] != found[1]
        assert sum(number**2 for number in found[0]) == pytest.approx(4.0, abs=0.01)
        assert [row["cost_nano"] for row in paid] == [3_000_000] * 2
        assert status.spent_nano == sum(row["cost_nano"] for row in rows)
        assert len(rows) == 5
        assert [one["backend"] for one in explained["attempts"]][1:] == ["embedder"]
        assert 'tollway_audit_cost_usd_total{backend="embedder"' in metrics

    run(main)


VECTOR = b'{"data": [{"embedding": %b}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}'


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"nonsense", 200),
        (b"{}", 500),
        (VECTOR % b"[]", 200),
        (VECTOR % b'"AACAPw=="', 200),
        (VECTOR % b"[[1.0], [2.0]]", 200),
        (VECTOR % b'["a"]', 200),
        (VECTOR % b"[0.0, 0.0]", 200),
        (VECTOR % b"[1e308, 1e308]", 200),
        (VECTOR % (b"[" + b"1," * 10_000 + b"1]"), 200),
    ],
)
def test_what_is_no_embedding_leaves_a_request_without_one(
    reply: bytes, status: int, tmp_path: Path
) -> None:
    async def main() -> None:
        chat, embedder = ChatServer(lambda prompt: "ok"), Embedder(reply, status=status)
        async with serving(chat) as a, serving(embedder) as b:
            async with running(configured(a, b), tmp_path) as tollway:
                await sent(tollway, "a")
                rows = [row for row in tollway.journalled("attempt") if row.get("signal")]
                assert embeddings(tollway) == [(0.0,) * EMBEDDING]
        assert len(rows) == 1
        assert rows[0]["cost_nano"] > 0 or status == 500

    run(main)


def test_a_backend_that_never_answers_is_waited_for_within_the_limit_and_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_s = 20.0
    called: list[Connection] = []
    send = Connection.send

    def noted(connection: Connection, *args: Any) -> Exchange:
        called.append(connection)
        return send(connection, *args)

    monkeypatch.setattr(Connection, "send", noted)

    async def main() -> None:
        chat, embedder = ChatServer(lambda prompt: "ok"), Embedder(waits=True)
        async with serving(chat) as a, serving(embedder) as b:
            async with running(configured(a, b, limit_s), tmp_path) as tollway:
                asked = asyncio.create_task(sent(tollway, "a"))
                await until(lambda: embedder.asked)
                (connection,) = called
                assert connection._deadline_s <= asyncio.get_running_loop().time() + limit_s
                connection._deadline_s = 0.0  # the limit is over once the backend was asked
                connection._on_alarm()
                await asked
                rows = [row for row in tollway.journalled("attempt") if row.get("signal")]
                assert embeddings(tollway) == [(0.0,) * EMBEDDING]
                assert tollway.gateway.reservations.status() == []
        assert rows[0]["cost_nano"] > 0

    run(main)


def test_without_money_there_is_no_embedding_and_an_answer(tmp_path: Path) -> None:
    scope = '\n[[budgets]]\nname = "few"\nlimit_usd = 0.000001\nscope = { backend = "embedder" }\n'

    async def main() -> None:
        chat, embedder = ChatServer(lambda prompt: "ok"), Embedder()
        async with serving(chat) as a, serving(embedder) as b:
            async with running(configured(a, b, more=scope), tmp_path) as tollway:
                await sent(tollway, "a")
                assert embeddings(tollway) == [(0.0,) * EMBEDDING]
        assert embedder.asked == []

    run(main)


def test_no_tenant_can_tell_what_another_has_asked(tmp_path: Path) -> None:
    tokens = [keys.new_key(), keys.new_key()]
    tenants = "".join(
        f'\n[[tenants]]\nname = "t{number}"\nkey_hash = "{keys.hash_key(key)}"\n'
        for number, key in enumerate(tokens)
    )

    async def main() -> None:
        chat, embedder = ChatServer(lambda prompt: "ok"), Embedder()
        async with serving(chat) as a, serving(embedder) as b:
            async with running(configured(a, b, more=tenants), tmp_path) as tollway:
                for key in (*tokens, *tokens):
                    await sent(tollway, "a", authorization=f"Bearer {key}")
        assert len(embedder.asked) == 2

    run(main)


def test_a_warm_up_embeds_its_prompts_too(tmp_path: Path) -> None:
    async def main() -> None:
        chat, embedder = ChatServer(lambda prompt: "ok"), Embedder()
        async with serving(chat) as a, serving(embedder) as b:
            async with running(configured(a, b), tmp_path) as tollway:
                document = {"route": "chat", "request": asking("a")}
                done = await tollway.client.post(tollway.url + "/_tollway/warmup", json=document)
                assert done.status_code == 200, done.text
                known = {**document, "qualities": {"one": 1.0, "two": 0.0}}
                told = await tollway.client.post(tollway.url + "/_tollway/warmup", json=known)
                assert told.status_code == 200, told.text
                await sent(tollway, "a")
                found = embeddings(tollway)
        assert len(set(found)) == 1
        assert any(found[0])
        assert len(embedder.asked) == 1

    run(main)


def test_a_reload_takes_another_limit_and_keeps_what_is_learned(tmp_path: Path) -> None:
    async def main() -> None:
        chat, embedder = ChatServer(lambda prompt: "ok"), Embedder()
        async with serving(chat) as a, serving(embedder) as b:
            async with running(configured(a, b), tmp_path) as tollway:
                await sent(tollway, "a")
                policy = tollway.gateway.routes["chat"].policy
                features = tollway.gateway.routes["chat"].features
                await File(tollway, tmp_path).reload(configured(a, b, 30.0))
                await sent(tollway, "b")
                assert tollway.gateway.routes["chat"].features is features
                assert type(tollway.gateway.routes["chat"].policy) is type(policy)
        assert [one["input"] for one in embedder.asked] == ["a", "b"]

    run(main)
