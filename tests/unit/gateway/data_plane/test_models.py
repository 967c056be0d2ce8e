"""The list of models: a key sees the routes that it may call, in OpenAI's shape."""

from pathlib import Path

import pytest

from tests.support.harness import Upstream, run, running, serving
from tests.support.parrot import Parrot
from tollway.gateway.data_plane.models.listing import listed_at
from tollway.gateway.security.keys import hash_key, new_key

CONFIG = """
[server]

[ledger]
url = "memory://"

[[backends]]
name = "one"
kind = "gpu"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[backends]]
name = "all"
kind = "gpu"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[backends]]
name = "digits"
kind = "cpu"
protocol = "oip"
url = "{url}"
price = {{ per_request_usd = 0.1 }}

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["one"]

[[routes]]
name = "embed"
path = "/v1/embeddings"
protocol = "openai"
backends = ["one"]

[[routes]]
name = "rest"
path = "/team/v1/*"
protocol = "openai"
backends = ["all"]

[[routes]]
name = "digits"
path = "/v1/digits"
protocol = "oip"
backends = ["digits"]

[[routes]]
name = "smart"
path = "/shared/v1/chat/completions"
protocol = "openai"
models = ["smart", "gpt-5"]
backends = ["one"]

[[routes]]
name = "plain"
path = "/shared/v1/chat/completions"
protocol = "openai"
backends = ["all"]

[[tenants]]
name = "acme"
key_hash = "{acme}"

[[tenants]]
name = "narrow"
key_hash = "{narrow}"
routes = ["embed", "plain"]
"""


@pytest.mark.parametrize(
    ("path", "at"),
    [
        ("/v1/chat/completions", "/v1/models"),
        ("/v1/completions", "/v1/models"),
        ("/v1/responses", "/v1/models"),
        ("/team/v1/*", "/team/v1/models"),
        ("/embeddings", "/models"),
        ("/v1/digits", None),
    ],
)
def test_models_are_listed_beside_the_calls(path: str, at: str | None) -> None:
    assert listed_at("openai", path) == at


@pytest.mark.integration
def test_a_key_sees_the_routes_that_it_may_call_and_no_other(tmp_path: Path) -> None:
    keys = {name: new_key() for name in ("acme", "narrow")}

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            hashes = {name: hash_key(key) for name, key in keys.items()}
            async with running(CONFIG.format(url=url, **hashes), tmp_path) as tollway:

                async def ask(path: str, name: str, method: str = "GET") -> tuple[int, dict]:
                    headers = {"authorization": f"Bearer {keys.get(name, name)}"}
                    reply = await tollway.client.request(
                        method, tollway.url + path, headers=headers
                    )
                    return reply.status_code, reply.json()

                def listed(told: tuple[int, dict]) -> list[str]:
                    assert told[0] == 200
                    assert told[1]["object"] == "list"
                    return [model["id"] for model in told[1]["data"]]

                assert listed(await ask("/v1/models", "acme")) == ["chat", "embed"]
                assert listed(await ask("/v1/models", "narrow")) == ["embed"]
                assert listed(await ask("/team/v1/models", "acme")) == ["rest"]
                status, model = await ask("/v1/models/embed", "narrow")
                assert (status, model["id"], model["object"]) == (200, "embed", "model")
                status, refused = await ask("/v1/models/ch%61t", "narrow")
                assert (status, refused["error"]["code"]) == (404, "model_not_found")
                assert refused["error"]["type"] == "invalid_request_error"
                assert (await ask("/v1/models/rest", "acme"))[0] == 404
                assert (await ask("/v1/models", "tw_nobody"))[0] == 401
                assert (await ask("/v1/models/embed", "acme", "DELETE"))[0] == 405
        assert upstream.calls == 0

    run(main)


@pytest.mark.integration
def test_routes_of_one_path_are_chosen_by_model_and_only_those_that_a_key_may_call(
    tmp_path: Path,
) -> None:
    keys = {name: new_key() for name in ("acme", "narrow")}

    async def main() -> None:
        upstream = Parrot()
        async with serving(upstream) as url:
            hashes = {name: hash_key(key) for name, key in keys.items()}
            async with running(CONFIG.format(url=url, **hashes), tmp_path) as tollway:

                async def ask(model: str, name: str) -> tuple[int, str]:
                    reply = await tollway.client.post(
                        f"{tollway.url}/shared/v1/chat/completions",
                        json={"model": model, "messages": [{"role": "user", "content": "hi"}]},
                        headers={"authorization": f"Bearer {keys.get(name, name)}"},
                    )
                    told = reply.json()
                    code = told["error"]["code"] if "error" in told else ""
                    return reply.status_code, reply.headers.get("x-tollway-backend", code)

                assert await ask("gpt-5", "acme") == (200, "one")
                assert await ask("smart", "acme") == (200, "one")
                assert await ask("anything", "acme") == (200, "all")
                assert await ask("anything", "narrow") == (200, "all")
                assert await ask("gpt-5", "narrow") == (404, "model_not_found")
                assert (await ask("gpt-5", "tw_nobody"))[0] == 401
                headers = {"authorization": f"Bearer {keys['acme']}"}
                listed = await tollway.client.get(
                    f"{tollway.url}/shared/v1/models", headers=headers
                )
                ids = [model["id"] for model in listed.json()["data"]]
                assert ids == ["smart", "gpt-5", "plain"]

    run(main)
