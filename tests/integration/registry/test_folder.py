"""A folder as the registry: an alias that moves is what serves, moments later."""

import asyncio
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, inference, run, running, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tests.support.registered import Registered
from tests.support.until import until
from tollway.gateway.cli import main as cli
from tollway.gateway.registry.folder import FolderRegistry
from tollway.gateway.registry.port import CHALLENGER, CHAMPION

pytestmark = pytest.mark.integration

REGISTRY = """
[registry]
kind = "folder"
dir = "models"
poll_s = 3600

[[models]]
name = "m"
backend = "cheap"
model = "m-v{version}"
"""


def versions(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "models" / "m" / name).mkdir(parents=True)


def asked(upstream: Upstream) -> str:
    """Return the model that the last call asked for."""
    return upstream.requests[-1][1].decode().split("/")[3]


async def served(tollway: Running, upstream: Upstream) -> str:
    assert (await tollway.infer()).status_code == 200
    return asked(upstream)


def test_an_alias_that_moves_is_served_and_everything_is_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        versions(tmp_path, "1", "2")
        upstream = Upstream()
        async with serving(upstream) as url:
            text = two_backends(url, url, more=REGISTRY)
            async with running(text, tmp_path) as tollway:
                one = Registered(tollway, text, tmp_path)
                assert await served(tollway, upstream) == "small"  # what the configuration says
                registry = one.keeper.parts.registry
                await registry.set_alias("m", CHAMPION, "1")
                await one.look()
                assert await served(tollway, upstream) == "m-v1"
                words = ["models", "alias", "m", "champion", "2", "--who", "ann"]
                words += ["--why", "better", "--url", tollway.url]
                assert await asyncio.to_thread(cli.main, words, {}) == 0
                await until(lambda: one.keeper.parts.records.get("m").champion == "2")
                await one.keeper.settled()
                assert await served(tollway, upstream) == "m-v2"
                told = await one.model()
                assert (told["champion"], told["fault"]) == ("2", None)
                assert [(v["version"], v["stage"]) for v in told["versions"]] == [
                    ("2", "Production"),
                    ("1", "Archived"),
                ]
                assert await one.audited() == [
                    ("model served", "m 1", "the registry's alias champion"),
                    ("model alias", "m", "better"),
                    ("model served", "m 2", "the registry's alias champion"),
                ]
                acts = (await tollway.get("/_tollway/audit"))["acts"]
                (act,) = [act for act in acts if act["act"] == "model alias"]
                assert (act["who"], act["before"], act["after"]) == (
                    "ann",
                    {"champion": "1"},
                    {"champion": "2"},
                )
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                assert 'version_info{alias="champion",model="m",version="2"} 1.0' in metrics
                assert 'tollway_model_moves_total{model="m",move="serve"} 2.0' in metrics
                words = ["models", "show", "m", "--url", tollway.url]
                assert await asyncio.to_thread(cli.main, words, {}) == 0

    run(main)
    assert "backend cheap serves version 2" in capsys.readouterr().out


def test_a_gateway_that_starts_again_serves_what_it_served(tmp_path: Path) -> None:
    async def main() -> None:
        versions(tmp_path, "1")
        upstream = Upstream()
        async with serving(upstream) as url:
            text = two_backends(url, url, more=REGISTRY)
            async with running(text, tmp_path) as tollway:
                one = Registered(tollway, text, tmp_path)
                await one.keeper.parts.registry.set_alias("m", CHAMPION, "1")
                await one.look()
                again = one.read()
                assert again.backends[0].model == "m-v1"

    run(main)


def test_a_configuration_that_is_refused_leaves_the_former_version(tmp_path: Path) -> None:
    async def main() -> None:
        versions(tmp_path, "1")
        upstream = Upstream()
        async with serving(upstream) as url:
            text = two_backends(url, url, more=REGISTRY)
            async with running(text, tmp_path) as tollway:
                one = Registered(tollway, text, tmp_path)
                await one.keeper.parts.registry.set_alias("m", CHAMPION, "1")
                one.text = text.replace('"cheapest"', '"no such policy"')
                await one.look(times=3)
                assert one.keeper.parts.records.get("m").champion == ""
                assert "no such policy" in (await one.model())["fault"]
                assert await served(tollway, upstream) == "small"
                failed = [act for act in await one.audited() if act[0] == "model served"]
                assert len(failed) == 1  # not at every look

    run(main)


@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        ({"alias": "champion", "version": "9"}, 422, "has no version '9'"),
        ({"alias": "latest", "version": "1"}, 422, "champion or challenger"),
        ({"alias": "champion", "version": "1", "more": "x"}, 422, "unknown key"),
        ({"alias": "champion", "version": "1", "why": ""}, 422, "why is missing"),
    ],
)
def test_a_move_that_cannot_be_made_says_why(
    tmp_path: Path, asked: dict[str, str], status: int, why: str
) -> None:
    async def main() -> None:
        versions(tmp_path, "1")
        async with serving(Upstream()) as url:
            async with running(two_backends(url, url, more=REGISTRY), tmp_path) as tollway:
                document = {"who": "ann", "why": "x", **asked}
                at = f"{tollway.url}/_tollway/models/m"
                reply = await tollway.client.post(at, json=document)
                assert (reply.status_code, why in reply.json()["detail"]) == (status, True)
                missing = await tollway.client.get(f"{tollway.url}/_tollway/models/x")
                assert missing.status_code == 404

    run(main)


@pytest.mark.timeout(400)
def test_workers_follow_an_alias_without_losing_a_request(tmp_path: Path) -> None:
    async def main() -> None:
        versions(tmp_path, "1", "2")
        upstream, registry = Upstream(), FolderRegistry(tmp_path / "models")
        await registry.set_alias("m", CHAMPION, "1")
        async with serving(upstream) as backend, http_client(timeout=30) as client:
            port = free_port()
            server = f'listen = "127.0.0.1:{port}"\nallow_anonymous = true\nworkers = 2'
            text = two_backends(
                backend,
                backend,
                server=server,
                ledger="sqlite:///tollway.db",
                more=REGISTRY.replace("poll_s = 3600", "poll_s = 0.2"),
            )
            (tmp_path / "tollway.toml").write_text(text)
            process, url = Process(tmp_path / "tollway.toml"), f"http://127.0.0.1:{port}"
            try:
                await process.ready(url)

                async def all_serve(version: str) -> bool:
                    """Ask over fresh connections, which reach both workers."""
                    seen = len(upstream.requests)
                    for _ in range(8):
                        async with http_client(timeout=30) as fresh:
                            at = f"{url}/v2/models/m/infer"
                            assert (await fresh.post(at, json=inference())).status_code == 200
                    paths = [path for _, path, _, _ in upstream.requests[seen:]]
                    return set(paths) == {f"/v2/models/m-v{version}/infer".encode()}

                for version in ("1", "2", "1"):
                    await registry.set_alias("m", CHAMPION, version)
                    await until(lambda version=version: all_serve(version), within_s=90)
                told = (await client.get(f"{url}/_tollway/models/m")).json()
                assert told["champion"] == "1"  # whichever worker answers
            finally:
                process.stop()

    run(main)


ROLLOUT = """
[[rollouts]]
name = "next"
backend = "cheap"
candidate = { registry = "m" }
steps = [{ setWeight = 50, pause = {} }]
criteria = [{ metric = "error_rate" }]
"""


@pytest.mark.timeout(400)
def test_workers_try_the_first_version_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        versions(tmp_path, "1", "2")
        upstream, registry = Upstream(), FolderRegistry(tmp_path / "models")
        await registry.set_alias("m", CHAMPION, "1")
        await registry.set_alias("m", CHALLENGER, "2")
        async with serving(upstream) as backend, http_client(timeout=30) as client:
            port = free_port()
            server = f'listen = "127.0.0.1:{port}"\nallow_anonymous = true\nworkers = 2'
            more = REGISTRY.replace("poll_s = 3600", "poll_s = 0.2") + ROLLOUT
            text = two_backends(
                backend, backend, server=server, ledger="sqlite:///tollway.db", more=more
            )
            (tmp_path / "tollway.toml").write_text(text)
            process, url = Process(tmp_path / "tollway.toml"), f"http://127.0.0.1:{port}"
            try:
                await process.ready(url)

                async def is_tried() -> bool:
                    found = (await client.get(f"{url}/_tollway/rollouts/next")).json()
                    return found.get("phase") in {"progressing", "paused"}  # paused a tick later

                await until(is_tried, within_s=90)

                async def both_answer() -> bool:
                    seen = len(upstream.requests)
                    for _ in range(16):
                        async with http_client(timeout=30) as fresh:
                            at = f"{url}/v2/models/m/infer"
                            assert (await fresh.post(at, json=inference())).status_code == 200
                    paths = {path for _, path, _, _ in upstream.requests[seen:]}
                    return paths == {b"/v2/models/m-v1/infer", b"/v2/models/m-v2/infer"}

                await until(both_answer, within_s=90)
                found = (await client.get(f"{url}/_tollway/events")).json()["events"]
                kinds = [one["kind"] for one in found]
                assert "rollout_started" in kinds
                assert "model_move_failed" not in kinds
            finally:
                process.stop()

    run(main)
