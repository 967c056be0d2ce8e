"""The control plane does what its OpenAPI document says, for requests generated from it."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS
from starlette.routing import Route

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.http_client import PLAIN
from tollway.gateway.control_plane import openapi
from tollway.gateway.wiring import Gateway
from tollway.gateway.wiring.reload import Reloader

pytestmark = pytest.mark.integration

ADMIN = "0123456789abcdef"
HEALTH = list(HealthCheck)
NAMES = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
]


def test_every_path_is_described_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            async with running(two_backends(a, a), tmp_path) as tollway:
                gateway: Gateway = tollway.gateway
                served = {
                    (route.path, method.lower())
                    for route in gateway.control.app().routes
                    if isinstance(route, Route)
                    for method in route.methods or ()
                    if method != "HEAD"
                }
        told = {
            (path, method)
            for path, item in openapi.document()["paths"].items()
            for method in item
            if method in {"get", "post", "put", "delete"}
        }
        assert told == served

    run(main)


@pytest.mark.filterwarnings("ignore")
def test_requests_made_from_the_document_are_answered_as_it_says(tmp_path: Path) -> None:
    async def main() -> None:
        server = f'allow_anonymous = true\nadmin_key = "{ADMIN}"'
        async with serving(Upstream()) as a:
            config = two_backends(a, a, server=server, more=budget("all", "1.0"))
            async with running(config, tmp_path) as tollway:
                gateway = tollway.gateway
                gateway.control.reload = Reloader(gateway, lambda: gateway.settings).reload
                await asyncio.to_thread(ask, tollway.url)

    run(main)


def ask(url: str) -> None:
    document = openapi.document()
    del document["paths"]["/_tollway/live"]  # it has no end
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    headers = {"authorization": f"Bearer {ADMIN}"}
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=15, database=None, suppress_health_check=HEALTH)
        @given(case=operation.as_strategy())
        def one(case: Any) -> None:
            nonlocal asked
            asked += 1
            reply = case.call(headers=headers)
            case.validate_response(reply, checks=CHECKS.get_by_names(NAMES))

        one()
    assert asked > 100
    assert httpx.get(url + "/livez", **PLAIN).status_code == 200
