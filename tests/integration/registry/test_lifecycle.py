"""A model's life with a real MLflow server: registered, tried, promoted or withdrawn."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.model_servers import INSTALLATION_S, Mlflow, mlflow_server
from tests.support.registered import Registered
from tollway.gateway.registry.records import Record

# A server takes half a minute to start on a busy machine, and more the first time.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(INSTALLATION_S + 300)]

REQUESTS_MAX = 2000  # before a step must be decided


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


class Server(Upstream):
    """A model server with several models, some of which fail."""

    bad: set[str]
    loaded: list[str]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("raw_path", b"").decode()
        if path.startswith("/v2/repository/"):
            self.loaded.append("/".join(path.split("/")[-2:]))
        self.status = 500 if any(f"/{model}/infer" in path for model in self.bad) else 200
        await super().__call__(scope, receive, send)


def config(mlflow: Mlflow, url: str) -> str:
    return two_backends(
        url,
        url,
        more=f"""
[registry]
kind = "mlflow"
url = "{mlflow.url}"
poll_s = 3600
timeout_s = 60

[[models]]
name = "digits"
backend = "cheap"
model = "digits-v{{version}}"
load = {{ oip = true, keep_s = 3600 }}
requires = {{ accuracy = 0.85 }}

[[rollouts]]
name = "digits-next"
backend = "cheap"
candidate = {{ registry = "digits" }}
steps = [{{ setWeight = 50 }}, {{ setWeight = 100 }}]
criteria = [{{ metric = "error_rate", tolerance = 0.05, margin = 0.3 }}]
min_samples = 5
keep_s = 0
""",
    )


async def until_phase(one: Registered, *phases: str) -> dict[str, Any]:
    """Send requests until the rollout is in one of the phases, and return its status."""
    gateway = one.tollway.gateway
    for _ in range(REQUESTS_MAX // 10):
        await asyncio.gather(*(one.tollway.infer() for _ in range(10)))
        await gateway.rollouts.tick()
        status = await gateway.rollouts.status("digits-next")
        if status["phase"] in phases:
            return status
    raise AssertionError(f"still {status['phase']}: {status['waiting']}")


async def until_settled(one: Registered, version: str) -> None:
    """Send requests until the former champion is given up and the backend serves a version."""
    for _ in range(REQUESTS_MAX // 10):
        if one.keeper.parts.records.get("digits") == Record(champion=version, newest=version):
            return
        await asyncio.gather(*(one.tollway.infer() for _ in range(10)))
        await one.tollway.gateway.rollouts.tick()
        await one.look()
    raise AssertionError(f"{version} does not serve: {await one.model('digits')}")


def served(upstream: Upstream, count: int) -> set[str]:
    """Return the models that the last inferences asked for."""
    paths = [path.decode() for _, path, _, _ in upstream.requests if path.endswith(b"/infer")]
    return {path.split("/")[3] for path in paths[-count:]}


async def ask(tollway: Running, count: int) -> None:
    for _ in range(count):
        assert (await tollway.infer()).status_code == 200


def test_a_version_is_registered_tried_promoted_and_the_next_is_withdrawn(
    mlflow: Mlflow, tmp_path: Path
) -> None:
    async def main() -> None:
        await asyncio.to_thread(mlflow.create, "digits")
        first = await asyncio.to_thread(mlflow.register, "digits", {"accuracy": 0.9})
        await asyncio.to_thread(mlflow.alias, "digits", "champion", first)
        upstream = Server()
        upstream.bad, upstream.loaded = set(), []
        async with serving(upstream) as url:
            text = config(mlflow, url)
            async with running(text, tmp_path) as tollway:
                await tollway.gateway.scheduler.stop()  # the test says when a rollout moves
                one = Registered(tollway, text, tmp_path)
                await one.look()
                await ask(tollway, 5)
                assert served(upstream, 5) == {"digits-v1"}
                assert upstream.loaded == ["digits-v1/load"]
                await promoted(one, upstream)
                await withdrawn(one, upstream)
                await refused(one, upstream)

    async def promoted(one: Registered, upstream: Server) -> None:
        """Version 2 is good."""
        await asyncio.to_thread(mlflow.register, "digits", {"accuracy": 0.93})
        await one.look()
        found = await asyncio.to_thread(mlflow.aliases, "digits")
        assert found == {"champion": "1", "challenger": "2"}
        assert upstream.loaded[-1] == "digits-v2/load"
        await until_phase(one, "promoted", "retired")
        await one.look()
        assert await asyncio.to_thread(mlflow.aliases, "digits") == {"champion": "2"}
        await until_settled(one, "2")
        await ask(one.tollway, 5)
        assert served(upstream, 5) == {"digits-v2"}
        tags = await asyncio.to_thread(mlflow.tags, "digits", "2")
        assert (tags["tollway.outcome"], tags["tollway.stage"]) == ("promoted", "Production")
        assert "observations" in tags["tollway.error_rate"]
        tags = await asyncio.to_thread(mlflow.tags, "digits", "1")
        assert tags["tollway.stage"] == "Archived"

    async def withdrawn(one: Registered, upstream: Server) -> None:
        """Version 3 fails."""
        upstream.bad.add("digits-v3")
        await asyncio.to_thread(mlflow.register, "digits", {"accuracy": 0.95})
        await one.look()
        status = await until_phase(one, "rolled_back")
        assert status["weight"] == 0.0
        await one.look()
        assert await asyncio.to_thread(mlflow.aliases, "digits") == {"champion": "2"}
        tags = await asyncio.to_thread(mlflow.tags, "digits", "3")
        assert (tags["tollway.outcome"], tags["tollway.stage"]) == ("withdrawn", "None")
        await ask(one.tollway, 20)
        assert served(upstream, 20) == {"digits-v2"}
        await one.look(2)  # it is not tried again
        assert await asyncio.to_thread(mlflow.aliases, "digits") == {"champion": "2"}

    async def refused(one: Registered, upstream: Server) -> None:
        """Version 4 has not reached what is required."""
        await asyncio.to_thread(mlflow.register, "digits", {"accuracy": 0.8})
        await one.look()
        tags = await asyncio.to_thread(mlflow.tags, "digits", "4")
        assert tags["tollway.outcome"] == "refused"
        acts = [(act, about.split()[-1]) for act, about, _ in await one.audited()]
        assert acts == [
            ("model served", "1"),
            ("model tried", "2"),
            ("model promoted", "2"),
            ("model settled", "2"),
            ("model tried", "3"),
            ("model withdrawn", "3"),
            ("model tried", "4"),
        ]
        told = await one.model("digits")
        stages = [(v["version"], v["stage"]) for v in told["versions"]]
        assert stages == [("4", "None"), ("3", "None"), ("2", "Production"), ("1", "Archived")]
        assert told["versions"][0]["metrics"] == {"accuracy": 0.8}

    run(main)
