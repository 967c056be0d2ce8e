"""One route serves all paths and all models of its servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.harness import Running, running, serving
from tests.support.openai_calls import BILLED, FREE, outcome
from tests.support.scripted_api import BROKEN, ScriptedApi, document
from tollway.gateway.data_plane import server_models
from tollway.gateway.security.keys import hash_key, new_key

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

KEYS = {"all": new_key(), "some": new_key()}
TENANTS = (
    f'[[tenants]]\nname = "all"\nkey_hash = "{hash_key(KEYS["all"])}"\n'
    f'[[tenants]]\nname = "some"\nkey_hash = "{hash_key(KEYS["some"])}"\nroutes = ["named"]\n'
)


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 7, "owned_by": "them", **more}


LISTS = {
    "a": [entry("org/small", max_model_len=4096), entry("both", meta={"from": "a"})],
    "b": [entry("large", max_model_len=32768), entry("both", meta={"from": "b"})],
}


def config(urls: dict[str, str], more: str, tenants: str) -> str:
    backends = "".join(
        f"""
[[backends]]
name = "{name}"
kind = "gpu"
protocol = "openai"
url = "{url}/v1"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}
"""
        for name, url in urls.items()
    )
    return f"""
[server]
{"" if tenants else "allow_anonymous = true"}
[ledger]
url = "memory://"
{backends}
[[routes]]
name = "everything"
path = "/v1/*"
protocol = "openai"
models = "*"
backends = {list(urls)}
policy = "fixed"
policy_options = {{ arm = "b" }}
fallback = false
{more}{tenants}
"""


@asynccontextmanager
async def scene(
    folder: Path, more: str = "", tenants: str = "", broken: tuple[str, ...] = ()
) -> AsyncIterator[tuple[dict[str, ScriptedApi], Running, Any]]:
    """Yield two servers, a gateway, and what makes its clients; the `broken` list no models."""
    async with AsyncExitStack() as stack:
        apis = {name: ScriptedApi() for name in ("a", "b")}
        for name, api in apis.items():
            listed = document({"object": "list", "data": LISTS[name]})
            api.replies["GET", "models"] = (BROKEN, b"{}") if name in broken else listed
        urls = {name: await stack.enter_async_context(serving(api)) for name, api in apis.items()}
        gateway = await stack.enter_async_context(running(config(urls, more, tenants), folder))

        def client(key: str = "x", root: str = "/v1") -> openai.AsyncOpenAI:
            base_url = f"{gateway.url}{root}"
            made = openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0)
            stack.push_async_callback(made.close)
            return made

        yield apis, gateway, client


def asked(api: ScriptedApi) -> list[str]:
    """Return what a server was asked beside its models, and forget it."""
    found = [f"{one.method} {one.path}" for one in api.asked if one.path != "models"]
    api.asked.clear()
    return found


@pytest.mark.parametrize("root", ["/v1", "/v1/", "", "/v1/v1", "//v1"])
def test_every_call_of_the_client_goes_through_whatever_the_address(
    tmp_path: Path, root: str
) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (apis, gateway, client):
            through = client(root=root)
            for name, call in {**{n: c for n, (c, _) in BILLED.items()}, **FREE}.items():
                await outcome(through, call)
                (last,) = [one for one in apis["b"].asked if one.path != "models"][-1:]
                assert "v1" not in last.path, name
            assert gateway.gateway.recent

    asyncio.run(main())


def test_the_list_of_models_is_that_of_all_servers_with_what_they_say(tmp_path: Path) -> None:
    named = (
        '[[routes]]\nname = "named"\npath = "/v1/chat/completions"\nprotocol = "openai"\n'
        'models = ["both"]\nbackends = ["a"]\n'
    )

    async def main() -> None:
        async with scene(tmp_path, named) as (_, _, client):
            listed = {one.id: one.model_dump() async for one in client().models.list()}
            assert list(listed) == ["org/small", "both", "large"]
            assert listed["org/small"]["max_model_len"] == 4096
            assert listed["both"]["owned_by"] == "tollway"  # a name of our own comes first
            for name in ("org/small", "large"):
                assert (await client().models.retrieve(name)).id == name
            with pytest.raises(openai.NotFoundError):
                await client().models.retrieve("medium")

    asyncio.run(main())


def test_a_server_that_does_not_answer_fails_no_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with scene(tmp_path, broken=("a",)) as (apis, gateway, client):
            assert [one.id async for one in client().models.list()] == ["large", "both"]
            apis["b"].replies["GET", "models"] = (BROKEN, b"{}")
            await gateway.gateway.listed.refresh()
            assert [one.id async for one in client().models.list()] == ["large", "both"]
            monkeypatch.setattr(server_models, "MODELS_MAX", 1)
            apis["b"].replies["GET", "models"] = document({"data": LISTS["b"]})
            await gateway.gateway.listed.refresh()
            assert [one.id async for one in client().models.list()] == ["large"]

    asyncio.run(main())


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": [1, {"id": 5}, {"id": ""}]}'])
def test_a_list_that_is_none_lists_nothing(tmp_path: Path, body: bytes) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (apis, _, client):
            apis["a"].replies["GET", "models"] = (b"application/json", body)
            assert [one.id async for one in client().models.list()] == ["large", "both"]

    asyncio.run(main())


def test_a_model_is_asked_of_a_server_that_lists_it(tmp_path: Path) -> None:
    hello: Any = [{"role": "user", "content": "hello"}]

    async def main() -> None:
        async with scene(tmp_path) as (apis, gateway, client):
            await gateway.gateway.listed.refresh()
            for model in ("org/small", "large", "both", "unlisted"):
                await client().chat.completions.create(model=model, messages=hello)
            assert asked(apis["a"]) == ["POST chat/completions"]
            assert asked(apis["b"]) == ["POST chat/completions"] * 3

    asyncio.run(main())


def test_a_tenant_sees_and_calls_only_its_own_routes(tmp_path: Path) -> None:
    named = (
        '[[routes]]\nname = "named"\npath = "/v1/chat/completions"\nprotocol = "openai"\n'
        'backends = ["a"]\n'
    )

    async def main() -> None:
        async with scene(tmp_path, named, TENANTS) as (apis, _, client):
            some = client(KEYS["some"])
            assert [one.id async for one in some.models.list()] == ["named"]
            asked(apis["a"]), asked(apis["b"])
            for call in (
                lambda: some.embeddings.create(model="large", input="a"),
                some.files.list,
            ):
                with pytest.raises(openai.PermissionDeniedError):
                    await call()
            with pytest.raises(openai.NotFoundError):
                await some.models.retrieve("large")
            assert asked(apis["a"]) + asked(apis["b"]) == []

    asyncio.run(main())


REFUSED = (
    *(("POST", "/v1/batches"), ("POST", "/v1/fine_tuning/jobs"), ("POST", "/v1/threads/t/runs")),
    *(("POST", "/v1/vector_stores"), ("POST", "/v1/videos"), ("POST", "/v1/unheard_of")),
    *(("POST", "/batches"), ("POST", "/v1/batches/"), ("POST", "/v1/%62atches")),
    *(("DELETE", "/v1/models/large"), ("PUT", "/v1/files/file-1"), ("DELETE", "/v1/unheard_of")),
    *(("POST", "/v1/load_lora_adapter"), ("POST", "/v1/sleep"), ("GET", "/v1/slots")),
    *(("POST", "/v1/props"), ("POST", "/v1/api/pull"), ("DELETE", "/v1/api/delete")),
    *(("GET", "/v1/../slots"), ("GET", "/v1/%2e%2e/slots"), ("GET", "/v1/files/..%2F..%2Fslots")),
    *(("POST", "/v1/organization/admin_api_keys"), ("GET", "/v1/organization/admin_api_keys")),
    *(
        ("GET", "/v1/Organization/costs"),
        ("GET", "/v1/%6frganization/users"),
        ("GET", "/v1/vaults"),
    ),
)


def test_work_of_unknown_cost_and_administration_pass_no_wildcard(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (apis, gateway, _):
            host, port = gateway.url.removeprefix("http://").split(":")
            for method, path in REFUSED:
                # Over a plain connection: clients normalise such paths.
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(
                    f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                    "connection: close\r\ncontent-length: 2\r\n\r\n{}".encode()
                )
                reply = await reader.read()
                writer.close()
                assert reply.split(b" ", 2)[1] in (b"403", b"404", b"405"), (
                    method,
                    path,
                    reply[:80],
                )
            assert asked(apis["a"]) + asked(apis["b"]) == []

    asyncio.run(main())


def test_a_path_that_names_the_work_lets_it_pass(tmp_path: Path) -> None:
    named = (
        '[[backends]]\nname = "batches"\nkind = "api"\nprotocol = "openai"\nurl = "{url}/v1"\n'
        'price = {{ per_request_usd = 0.5 }}\n[[routes]]\nname = "batches"\n'
        'path = "/v1/batches/*"\nprotocol = "openai"\nbackends = ["batches"]\n'
        '[[routes]]\nname = "new"\npath = "/v1/batches"\nprotocol = "openai"\n'
        'backends = ["batches"]\n[[budgets]]\nname = "all"\nscope = {{}}\nlimit_usd = 0.7\n'
        'enforcement = "hard"\n'
    )

    async def main() -> None:
        api = ScriptedApi()
        async with serving(api) as url, scene(tmp_path, named.format(url=url)) as (_, it, client):
            made: Any = {"input_file_id": "file-1", "endpoint": "/v1/embeddings"}
            await client().batches.create(**made, completion_window="24h")
            await client().batches.retrieve("batch_1")
            assert asked(api) == ["POST batches", "GET batches/batch_1"]
            (budget,) = it.gateway.reservations.status()
            assert budget.spent_nano == 500_000_000
            with pytest.raises(openai.APIStatusError) as refused:
                await client().batches.create(**made, completion_window="24h")
            assert refused.value.status_code == 402

    asyncio.run(main())


def test_what_a_server_offers_to_read_is_free(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (apis, gateway, _):
            kind, text = b"text/plain", b"all is well"
            apis["b"].replies["GET", "health"] = kind, text
            async with httpx.AsyncClient(trust_env=False) as http:
                reply = await http.get(f"{gateway.url}/v1/health?verbose=1")
                assert (reply.status_code, reply.content) == (200, text)
                assert reply.headers["x-tollway-quote-usd"] == "0.000000000"
                head = await http.head(f"{gateway.url}/v1/health")
                assert head.content == b""

    asyncio.run(main())


def test_decisions_of_local_servers_are_charged_and_counts_are_free(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (apis, gateway, _):
            usage = {"input_tokens": 239, "output_tokens": 0}
            apis["b"].replies["POST", "systemone"] = document({"answers": {}, "usage": usage})
            apis["b"].replies["POST", "tokenize"] = document({"tokens": [1, 2]})
            apis["b"].replies["POST", "chat/completions/input_tokens"] = document({"n": 2})
            async with httpx.AsyncClient(trust_env=False) as http:
                decided = await http.post(f"{gateway.url}/v1/systemone", json={"state": "x"})
                assert decided.json() == {"answers": {}, "usage": usage}
                assert decided.headers["x-tollway-cost-usd"] == "0.000239000"
                # "large" is a model of b.
                counts = (
                    ("tokenize", {"tokens": [1, 2]}),
                    ("chat/completions/input_tokens", {"n": 2}),
                )
                for path, told in counts:
                    count = await http.post(f"{gateway.url}/v1/{path}", json={"model": "large"})
                    assert count.json() == told
                    assert count.headers["x-tollway-cost-usd"] == "0.000000000"
                assert [path for path, _ in counts] == [one.path for one in apis["b"].asked[-2:]]

    asyncio.run(main())
