"""Calls with a key stay on one replica, and go to another when it is gone."""

import contextlib
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving

pytestmark = pytest.mark.integration


def test_a_session_stays_on_its_replica_and_moves_when_that_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        replicas = [Upstream() for _ in range(3)]
        async with contextlib.AsyncExitStack() as stack:
            servers = [contextlib.AsyncExitStack() for _ in replicas]
            urls = []
            for server, replica in zip(servers, replicas, strict=True):
                await stack.enter_async_context(server)
                urls.append(await server.enter_async_context(serving(replica)))
            more = f'replicas = {urls[1:]}\naffinity = "header:x-session-id"'
            text = two_backends(urls[0], urls[0]).replace(
                "declared_accuracy = 0.8", f"declared_accuracy = 0.8\n{more}"
            )
            tollway = await stack.enter_async_context(running(text, tmp_path))
            for session in range(12):
                for _ in range(4):
                    reply = await tollway.infer(x_session_id=f"s{session}")
                    assert reply.status_code == 200
                calls = [replica.calls for replica in replicas]
                assert all(count % 4 == 0 for count in calls)  # all four to one of them
            assert all(calls)
            before = calls[2]
            await servers[2].aclose()
            for session in range(12):
                reply = await tollway.infer(x_session_id=f"s{session}")
                assert reply.status_code == 200
        assert replicas[2].calls == before
        assert sum(replica.calls for replica in replicas) == 12 * 5

    run(main)
