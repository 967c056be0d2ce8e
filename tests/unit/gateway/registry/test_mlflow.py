"""Replies of a server that is not MLflow, or is ill; tests/integration/registry has a real one."""

import asyncio
from typing import Any

import pytest

from tests.support.harness import Upstream, run, serving
from tollway.backends.http.factory import open_transport
from tollway.gateway.registry.mlflow import MlflowRegistry
from tollway.gateway.registry.port import RegisteredModel, RegistryUnavailable


def asked(status: int, body: bytes) -> Any:
    """Return the model `m` of a server that always gives one reply."""
    found: list[Any] = []

    async def main() -> None:
        async with serving(Upstream(status=status, body=body)) as url:
            registry = MlflowRegistry(
                url + "/base",
                open_transport(url),
                timeout_s=5,
                credential=lambda: (b"authorization", b"Bearer k"),
            )
            try:
                found.append(await registry.model("m"))
            finally:
                await registry.aclose()

    run(main)
    return found[0]


def test_an_unknown_model_has_no_versions() -> None:
    assert asked(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}') == RegisteredModel()


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, b"<html>", "the reply is not JSON"),
        (200, b"[]", "the reply is not an object"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "403 PERMISSION_DENIED no"),
        (502, b"bad gateway", "502, and the reply is not JSON"),
    ],
)
def test_a_reply_that_is_none_is_told(status: int, body: bytes, why: str) -> None:
    with pytest.raises(RegistryUnavailable, match=why):
        asked(status, body)


def test_types_that_are_wrong_are_left_out() -> None:
    body = (
        b'{"registered_model": {"aliases": [3, {"alias": "champion", "version": 2}]},'
        b' "model_versions": [{"version": "2", "creation_timestamp": "x", "tags": 7}, null]}'
    )
    model = asked(200, body)
    assert model.aliases == {"champion": "2"}
    assert [(one.version, one.created_s, one.tags) for one in model.versions] == [("2", 0.0, {})]


def test_a_server_that_is_away_is_unavailable() -> None:
    async def main() -> None:
        url = "http://127.0.0.1:9"
        registry = MlflowRegistry(url, open_transport(url), timeout_s=1)
        with pytest.raises(RegistryUnavailable, match="registered-models/get"):
            await registry.model("m")
        await registry.aclose()

    asyncio.run(main())
