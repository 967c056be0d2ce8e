"""The recommended replicas of a backend: from calls to the metric, the API and the command."""

import asyncio
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving
from tollway.gateway.cli import main as cli
from tollway.gateway.security.keys import hash_key
from tollway.gateway.wiring.jobs import look

pytestmark = pytest.mark.integration

ADMIN, VIEWER = "tw_admin", "tw_viewer"
SCALING = '\n[[scaling]]\nname = "cheap"\nmin = 0\nmax = 3\ncalls_per_replica = 1\n'


def test_calls_become_a_recommendation_that_is_exported_and_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, more=SCALING), tmp_path) as tollway:
                gateway, path = tollway.gateway, "/_tollway/scaling/cheap"
                assert (await tollway.get(path))["replicas"] is None
                gateway.wall = lambda: 1000.0
                await look(gateway)
                for _ in range(3):
                    await tollway.infer()
                gateway.wall = lambda: 1060.0
                await look(gateway)
                told = await tollway.get(path)
                assert (told["replicas"], told["reason"]) == (1, "measured")
                assert told["rate_per_s"] == pytest.approx(3 / 60)
                text = (await tollway.client.get(tollway.url + "/metrics")).text
                assert 'tollway_backend_replicas_recommended{backend="cheap"} 1.0' in text
                missing = await tollway.client.get(tollway.url + "/_tollway/scaling/dear")
                assert missing.status_code == 404
                words = ["scale", "explain", "cheap", "--url", tollway.url]
                assert await asyncio.to_thread(cli.main, words, {}) == 0

    run(main)
    assert (
        "1 replica recommended, decided by the load of the last minute" in capsys.readouterr().out
    )


def test_the_explanation_needs_the_admin_key_or_the_viewer_key(tmp_path: Path) -> None:
    async def main() -> None:
        hashes = f'admin_key_hash = "{hash_key(ADMIN)}"\nviewer_key_hash = "{hash_key(VIEWER)}"'
        server = f"allow_anonymous = true\n{hashes}"
        async with serving(Upstream()) as a:
            async with running(
                two_backends(a, a, server=server, more=SCALING), tmp_path
            ) as tollway:
                page, statuses = f"{tollway.url}/_tollway/scaling/cheap", []
                for key in (ADMIN, VIEWER, "tw_other"):
                    headers = {"authorization": f"Bearer {key}"}
                    statuses.append((await tollway.client.get(page, headers=headers)).status_code)
                assert statuses == [200, 200, 401]

    run(main)
