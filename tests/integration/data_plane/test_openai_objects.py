"""Objects go back to the backend that holds them, and work in the background is paid at its end."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.harness import Running, running, serving
from tests.support.scripted_api import ScriptedApi, document, response, sse
from tests.support.until import until
from tollway.gateway.routing.objects import background
from tollway.gateway.security.keys import hash_key, new_key

pytestmark = pytest.mark.integration

KEYS = {"acme": new_key(), "rival": new_key()}
PRICE = "{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }"
COST = 7 * 1_000 + 3 * 10_000  # of what `response` reports
TENANTS = "".join(
    f'[[tenants]]\nname = "{name}"\nkey_hash = "{hash_key(key)}"\n' for name, key in KEYS.items()
)


def config(urls: dict[str, str], drawn: str, more: str, limit: float | None) -> str:
    backends = "".join(
        f"""
[[backends]]
name = "{name}"
kind = "gpu"
protocol = "openai"
url = "{url}/v1"
price = {PRICE}
max_output_tokens = 100
context_tokens = 1000
"""
        for name, url in urls.items()
    )
    routes = "".join(
        f"""
[[routes]]
name = "{name}"
path = "/v1/{path}"
protocol = "openai"
backends = {list(urls)}
fallback = false
policy = "fixed"
policy_options = {{ arm = "{drawn}" }}
"""
        for name, path in (
            *(("responses", "responses"), ("lifecycle", "responses/*")),
            *(("files", "files"), ("each-file", "files/*"), ("chat", "chat/completions")),
        )
    )
    budget = ""
    if limit is not None:
        scope = '[[budgets]]\nname = "all"\nscope = {}\nenforcement = "hard"\n'
        budget = f"{scope}limit_usd = {limit}\n"
    return f"""
[server]
{"" if more else "allow_anonymous = true"}
[ledger]
url = "memory://"
{backends}{routes}{more}{budget}
"""


class World:
    """Two servers, `a` and `b`, and a gateway; new objects are made at `b`."""

    def __init__(
        self, gateway: Running, apis: dict[str, ScriptedApi], stack: AsyncExitStack, toml: str
    ) -> None:
        self.gateway = gateway
        self.toml = toml
        self.apis = apis
        self._stack = stack

    async def client(self, key: str = "x", gateway: Running | None = None) -> openai.AsyncOpenAI:
        base_url = f"{(gateway or self.gateway).url}/v1"
        client = openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0)
        entered: openai.AsyncOpenAI = await self._stack.enter_async_context(client)
        return entered

    def asked(self, name: str) -> list[str]:
        """Return what a server was asked, and forget it."""
        asked = [f"{one.method} {one.path}" for one in self.apis[name].asked]
        self.apis[name].asked.clear()
        return asked

    @property
    def cost_nano(self) -> int:
        rows = self.gateway.journalled("attempt") + self.gateway.journalled("settlement")
        return sum(row["cost_nano"] for row in rows)

    @property
    def held_nano(self) -> int:
        (budget,) = self.gateway.gateway.reservations.status()
        return budget.limit_nano - budget.spent_nano - budget.free_nano


Fill = Callable[[str], dict[tuple[str, str], Any]]


def nothing(name: str) -> dict[tuple[str, str], Any]:
    return {}


@asynccontextmanager
async def world(
    folder: Path,
    fill: Fill = nothing,
    *,
    more: str = "",
    limit: float | None = None,
) -> AsyncIterator[World]:
    """Yield the world; `fill` returns the replies of a server, by its name."""
    async with AsyncExitStack() as stack:
        apis = {name: ScriptedApi(fill(name)) for name in ("a", "b")}
        urls = {name: await stack.enter_async_context(serving(api)) for name, api in apis.items()}
        toml = config(urls, "b", more, limit)
        gateway = await stack.enter_async_context(running(toml, folder))
        yield World(gateway, apis, stack, toml)


def only_at(holder: str) -> Fill:
    """Return what makes the other server know no object."""

    def fill(name: str) -> dict[tuple[str, str], Any]:
        missing = b"", b'{"error": {"message": "no such object"}}'
        paths = (
            "responses/resp_1",
            "responses/resp_1/cancel",
            "files/file-1",
            "responses/input_tokens",
        )
        methods = ("GET", "POST", "DELETE")
        if name == holder:
            return {}
        return {(method, path): missing for method in methods for path in paths}

    return fill


def test_a_retrieval_goes_to_the_backend_that_holds_the_object(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, only_at("b")) as scene:
            client = await scene.client()
            await client.responses.create(model="m", input="q")
            await client.responses.retrieve("resp_1")
            await client.responses.cancel("resp_1")
            await client.responses.input_items.list("resp_1")
            await client.responses.create(model="m", input="q", previous_response_id="resp_1")
            await client.responses.delete("resp_1")
            assert scene.asked("a") == []
            assert len(scene.asked("b")) == 6

    asyncio.run(main())


def test_an_object_that_is_not_known_is_looked_for_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, only_at("b")) as scene:
            client = await scene.client()
            await client.files.retrieve("file-1")
            await client.files.retrieve("file-1")
            assert scene.asked("a") == ["GET files/file-1"]
            assert scene.asked("b") == ["GET files/file-1"] * 2
            with pytest.raises(openai.NotFoundError, match="no GET files/file-2"):
                await client.files.retrieve("file-2")

    asyncio.run(main())


def test_a_request_with_a_file_goes_to_the_backend_that_holds_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, only_at("a")) as scene:
            client = await scene.client()
            await client.files.retrieve("file-1")
            scene.asked("b")
            part = {"type": "input_file", "file_id": "file-1"}
            given: Any = [{"role": "user", "content": [part]}]
            await client.responses.create(model="m", input=given)
            chat: Any = [{"role": "user", "content": [{"type": "file", "file": part}]}]
            await client.chat.completions.create(model="m", messages=chat)
            assert scene.asked("a") == [
                "GET files/file-1",
                "POST responses",
                "POST chat/completions",
            ]
            assert scene.asked("b") == []

    asyncio.run(main())


def has_row(folder: Path, name: str) -> bool:
    """Whether the file of objects, which is written soon after a reply, has this one."""
    for path in folder.rglob("objects.sqlite"):
        with contextlib.closing(sqlite3.connect(path)) as file, contextlib.suppress(sqlite3.Error):
            if file.execute("SELECT 1 FROM objects WHERE id = ?", (name,)).fetchone():
                return True
    return False


def test_a_restart_and_another_worker_know_where_an_object_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, only_at("b")) as scene:
            client = await scene.client()
            await client.responses.create(model="m", input="q")
            await client.responses.retrieve("resp_1")
            toml = scene.toml
            await until(lambda: has_row(tmp_path, "resp_1"))
            async with running(toml, tmp_path) as other:  # a worker beside it
                await (await scene.client(gateway=other)).responses.retrieve("resp_1")
            await scene.gateway.gateway.owners.close()
            async with running(toml, tmp_path) as later:
                await (await scene.client(gateway=later)).responses.retrieve("resp_1")
            assert scene.asked("a") == []

    asyncio.run(main())


def test_without_its_file_the_map_still_works_in_memory(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, only_at("b")) as scene:
            (tmp_path / ".tollway/state/objects.sqlite").mkdir(parents=True)
            client = await scene.client()
            await client.responses.create(model="m", input="q")
            await client.responses.retrieve("resp_1")
            assert scene.asked("a") == []

    asyncio.run(main())


def test_another_tenants_object_does_not_exist(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, only_at("b"), more=TENANTS) as scene:
            mine, theirs = [await scene.client(key) for key in KEYS.values()]
            await mine.responses.create(model="m", input="q")
            scene.asked("b")
            for attack in (
                lambda: theirs.responses.retrieve("resp_1"),
                lambda: theirs.responses.delete("resp_1"),
                lambda: theirs.responses.cancel("resp_1"),
                lambda: theirs.responses.create(
                    model="m", input="q", previous_response_id="resp_1"
                ),
            ):
                with pytest.raises(openai.NotFoundError, match="no object has the id"):
                    await attack()
            assert scene.asked("a") + scene.asked("b") == []
            assert (await mine.responses.retrieve("resp_1")).id == "resp_1"

    asyncio.run(main())


def file(name: str) -> dict[str, Any]:
    return {
        **{"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": name},
        **{"purpose": "batch", "status": "processed"},
    }


def test_a_list_has_the_objects_of_all_backends(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as scene:
            for name, api in scene.apis.items():
                api.files = [file(f"file-{name}{n}") for n in range(3)]
            client = await scene.client()
            listed = [one.id async for one in client.files.list()]
            assert listed == [f"file-{name}{n}" for name in "ab" for n in range(3)]

    asyncio.run(main())


def test_a_list_shows_a_tenant_only_what_it_made_itself(tmp_path: Path) -> None:
    def fill(name: str) -> dict[tuple[str, str], Any]:
        listed = {"object": "list", "data": [file("file-1"), file("file-old")], "has_more": False}
        return {("GET", "files"): document(listed)} if name == "b" else {}

    async def main() -> None:
        async with world(tmp_path, fill, more=TENANTS) as scene:
            mine, theirs = [await scene.client(key) for key in KEYS.values()]
            scene.apis["a"].replies["POST", "files"] = (b"", b"{}")
            await mine.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
            assert [one.id async for one in mine.files.list()] == ["file-1"]
            assert [one.id async for one in theirs.files.list()] == []

    asyncio.run(main())


def test_a_holder_that_is_down_is_no_proof_that_an_object_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, only_at("b")) as scene:
            client = await scene.client()
            for name in ("resp_1", "resp_unknown"):
                scene.apis["b"].replies["GET", f"responses/{name}"] = (b"broken", b"{}")
            await client.responses.create(model="m", input="q")
            for name in ("resp_1", "resp_unknown"):
                with pytest.raises(openai.InternalServerError):
                    await client.responses.retrieve(name)

    asyncio.run(main())


# -- work in the background


def begun(name: str) -> dict[tuple[str, str], Any]:
    return {
        ("POST", "responses"): document(response("queued")),
        ("GET", "responses/resp_1"): document(response("in_progress")),
    }


def finished(scene: World, **more: Any) -> None:
    scene.apis["b"].replies["GET", "responses/resp_1"] = document(response(**more))


async def begin(scene: World) -> openai.AsyncOpenAI:
    client = await scene.client()
    reply = await client.responses.with_raw_response.create(
        model="m", input="q", background=True, max_output_tokens=50
    )
    assert "x-tollway-quote-usd" in reply.headers
    assert (scene.cost_nano, scene.gateway.gateway.background.count) == (0, 1)
    assert scene.held_nano > 0
    return client


def test_work_in_the_background_is_held_and_settled_when_it_is_retrieved(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, begun, limit=1.0) as scene:
            client = await begin(scene)
            await client.responses.retrieve("resp_1")
            assert (scene.cost_nano, scene.gateway.gateway.background.count) == (0, 1)
            finished(scene)
            for _ in range(2):
                await client.responses.retrieve("resp_1")
            assert (scene.cost_nano, scene.gateway.gateway.background.count) == (COST, 0)
            (row,) = scene.gateway.journalled("settlement")
            assert (row["provenance"], row["answer"]) == ("usage", "hi")
            (budget,) = scene.gateway.gateway.reservations.status()
            assert budget.spent_nano == COST

    asyncio.run(main())


def test_work_that_no_client_retrieves_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FIRST_S", 0.0)

    async def main() -> None:
        async with world(tmp_path, begun, limit=1.0) as scene:
            await begin(scene)
            finished(scene)
            await scene.gateway.gateway.background.look()
            assert (scene.cost_nano, scene.gateway.gateway.background.count) == (COST, 0)

    asyncio.run(main())


@pytest.mark.parametrize("end", ["deleted", "stopped", "cancelled"])
def test_work_whose_usage_is_never_seen_is_charged_its_whole_reservation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(background, "FIRST_S", 0.0)

    async def main() -> None:
        async with world(tmp_path, begun, limit=1.0) as scene:
            client = await begin(scene)
            (row,) = scene.gateway.journalled("attempt")
            if end == "deleted":
                scene.apis["b"].replies["GET", "responses/resp_1"] = (b"", b"{}")
                await scene.gateway.gateway.background.look()
            elif end == "stopped":
                await scene.gateway.gateway.background.close()
            else:
                await client.responses.cancel("resp_1")
            assert scene.cost_nano == row["reserved_nano"]["all"]
            (settled,) = scene.gateway.journalled("settlement")
            assert settled["provenance"] == "estimated"

    asyncio.run(main())


def test_a_failure_in_the_background_that_reports_no_usage_is_free(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, begun, limit=1.0) as scene:
            client = await begin(scene)
            finished(scene, status="failed", error={"code": "server_error", "message": "no"})
            await client.responses.retrieve("resp_1")
            assert (scene.cost_nano, scene.held_nano >= 0) == (0, True)
            assert scene.gateway.gateway.background.count == 0

    asyncio.run(main())


def test_a_stream_of_background_work_that_breaks_off_is_paid_at_its_end(tmp_path: Path) -> None:
    cut = sse(
        {"type": "response.created", "response": response("in_progress"), "sequence_number": 0}
    )

    async def main() -> None:
        async with world(tmp_path, begun, limit=1.0) as scene:
            scene.apis["b"].cut["responses"] = cut
            client = await scene.client()
            with pytest.raises(openai.APIError):
                stream = await client.responses.create(
                    model="m", input="q", background=True, stream=True, max_output_tokens=50
                )
                async for _ in stream:
                    pass
            assert scene.gateway.gateway.background.count == 1
            finished(scene)
            await client.responses.retrieve("resp_1")
            assert scene.cost_nano == COST

    asyncio.run(main())


def test_no_more_is_pending_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PENDING_MAX", 0)

    async def main() -> None:
        async with world(tmp_path, begun, limit=1.0) as scene:
            client = await scene.client()
            await client.responses.create(model="m", input="q", background=True)
            (row,) = scene.gateway.journalled("attempt")
            assert row["cost_nano"] == row["reserved_nano"]["all"] > 0

    asyncio.run(main())
