import asyncio
import sys

import pytest

from tests.support.harness import Upstream, run, serving
from tollway.gateway.registry.loading import Loader, LoadFailed
from tollway.gateway.settings.registry.model import LoadConfig
from tollway.gateway.settings.registry.template import Place, place


def at(url: str | None = None) -> Place:
    found = place("m", "2", url=None, model="m-v{version}", ports=None)
    return Place(url, found.model, found.fields)


def test_a_server_is_asked_to_load_by_the_repository_api_until_it_is_ready() -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            loader = Loader(LoadConfig(oip=True), url)
            await loader.load(at())
            await loader.unload(at())
        paths = [(method, path.decode()) for method, path, _, _ in upstream.requests]
        assert paths == [
            ("POST", "/v2/repository/models/m-v2/load"),
            ("GET", "/v2/models/m-v2/ready"),
            ("POST", "/v2/repository/models/m-v2/unload"),
        ]

    run(main)


def test_a_server_that_refuses_to_load_says_why() -> None:
    async def main() -> None:
        upstream = Upstream(status=400, body=b'{"error": "no such model"}')
        async with serving(upstream) as url:
            with pytest.raises(LoadFailed, match=r"answered with 400.*no such model"):
                await Loader(LoadConfig(oip=True), url).load(at())

    run(main)


def test_a_command_gets_the_version_and_not_the_gateways_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "secret")
    program = "import os, sys; sys.exit(str([*sys.argv[1:], os.environ.get('PROVIDER_KEY')]))"
    command = (sys.executable, "-c", program, "{model}", "{version}; rm -rf /")

    async def main() -> None:
        with pytest.raises(LoadFailed, match=r"\['m', '2; rm -rf /', None\]"):
            await Loader(LoadConfig(command=command), "").load(at())

    asyncio.run(main())


def test_a_command_that_cannot_be_run_is_named() -> None:
    async def main() -> None:
        with pytest.raises(LoadFailed, match="/no/such/program cannot be run"):
            await Loader(LoadConfig(command=("/no/such/program",)), "").load(at())

    asyncio.run(main())


def test_a_command_that_does_not_end_is_killed() -> None:
    program = "import signal; signal.pause()"

    async def main() -> None:
        load = LoadConfig(command=(sys.executable, "-c", program), timeout_s=0.05)
        with pytest.raises(LoadFailed, match=r"was not ready within 0\.05 s"):
            await Loader(load, "").load(at())

    asyncio.run(main())
