"""A real MLflow server as the registry: versions, aliases, tags and webhooks."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.model_servers import INSTALLATION_S, Mlflow, mlflow_server
from tests.support.registered import Registered
from tests.support.until import until

# A server takes half a minute to start on a busy machine, and more the first time.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(INSTALLATION_S + 300)]

SECRET = "a secret of sixteen or more"


@pytest.fixture(scope="module")
def mlflow(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Mlflow]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


def registry(mlflow: Mlflow, name: str, more: str = "") -> str:
    return f"""
[registry]
kind = "mlflow"
url = "{mlflow.url}"
poll_s = 3600
timeout_s = 60
webhook_secret = "{SECRET}"

[[models]]
name = "{name}"
backend = "cheap"
model = "{name}-v{{version}}"
{more}
"""


async def served(tollway: Running, upstream: Upstream) -> str:
    """Return the model that a request is sent to."""
    assert (await tollway.infer()).status_code == 200
    return upstream.requests[-1][1].decode().split("/")[3]


def test_an_alias_of_mlflow_decides_what_serves(mlflow: Mlflow, tmp_path: Path) -> None:
    mlflow.create("a")
    first, second = mlflow.register("a"), mlflow.register("a")

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            text = two_backends(url, url, more=registry(mlflow, "a"))
            async with running(text, tmp_path) as tollway:
                one = Registered(tollway, text, tmp_path)
                await one.look()
                assert await served(tollway, upstream) == "small"  # no alias yet
                for version, stage in ((first, "Production"), (second, "Production")):
                    await asyncio.to_thread(mlflow.alias, "a", "champion", version)
                    await one.look()
                    assert await served(tollway, upstream) == f"a-v{version}"
                    tags = await asyncio.to_thread(mlflow.tags, "a", version)
                    assert tags["tollway.stage"] == stage
                tags = await asyncio.to_thread(mlflow.tags, "a", first)
                assert tags["tollway.stage"] == "Archived"
                assert await one.audited() == [
                    ("model served", "a 1", "the registry's alias champion"),
                    ("model served", "a 2", "the registry's alias champion"),
                ]
                told = await one.model("a")
                assert [v["aliases"] for v in told["versions"]] == [["champion"], []]

    run(main)


def test_a_webhook_of_mlflow_makes_the_gateway_look_at_once(mlflow: Mlflow, tmp_path: Path) -> None:
    mlflow.create("b")
    version = mlflow.register("b")

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            text = two_backends(url, url, more=registry(mlflow, "b"))
            async with running(text, tmp_path) as tollway:
                Registered(tollway, text, tmp_path)
                hook = {
                    "name": "tollway",
                    "url": f"{tollway.url}/_tollway/registry/webhook",
                    "events": [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}],
                    "secret": SECRET,
                }
                await asyncio.to_thread(mlflow.ask, "POST", "webhooks", hook)
                await asyncio.to_thread(mlflow.alias, "b", "champion", version)

                async def is_served() -> bool:
                    return await served(tollway, upstream) == "b-v1"

                await until(is_served, within_s=60, every_s=0.05)

    run(main)


def test_a_webhook_with_another_secret_is_refused(mlflow: Mlflow, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as url:
            text = two_backends(url, url, more=registry(mlflow, "c"))
            async with running(text, tmp_path) as tollway:
                at = f"{tollway.url}/_tollway/registry/webhook"
                reply = await tollway.client.post(at, json={})
                assert reply.status_code == 401

    run(main)


def test_a_registry_that_is_away_changes_nothing_and_is_reported(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            away = Mlflow("http://127.0.0.1:9")
            text = two_backends(url, url, more=registry(away, "a"))
            async with running(text, tmp_path) as tollway:
                one = Registered(tollway, text, tmp_path)
                await one.look(times=3)
                assert await served(tollway, upstream) == "small"
                events = [e for e in tollway.gateway.events.newest() if e["about"] == "a"]
                assert [e["kind"] for e in events] == ["model_move_failed"]
                reply = await tollway.client.get(f"{tollway.url}/_tollway/models")
                assert reply.status_code == 503
                text = (await tollway.client.get(tollway.url + "/metrics")).text
                assert 'tollway_model_followed{model="a"} 0.0' in text

    run(main)
