"""Attacks on backends through a wildcard: their administration, and calls disguised as free."""

from pathlib import Path

import pytest

from tests.attacks.http import ask, listening
from tests.support.configs import one_model
from tests.support.harness import Upstream, run, serving

pytestmark = pytest.mark.integration

ADMINISTRATION = [
    *("POST /v1/load_lora_adapter", "POST /v1/unload_lora_adapter", "POST /sleep?level=2"),
    *("POST /%73leep", "POST //sleep", "POST /SLEEP", "POST /v1/../sleep", "POST /v1/%2e%2e/sleep"),
    *("POST /v1/%252e%252e/sleep", "POST /v1/..%2fsleep", "POST /v1/..;/sleep", "POST /sleep;a"),
    *("POST /wake_up", "GET /slots", "GET /%73lots", "POST /slots/0?action=erase", "POST /props"),
    *(
        "DELETE /api/delete",
        "POST /api/pull",
        "POST /api/push",
        "POST /api/copy",
        "POST /api/create",
    ),
    *("POST /v2/repository/models/m/load", "POST /v2/repository/models/m/unload"),
    *("PUT /v1/anything", "PATCH /v1/anything", "DELETE /v1/anything", "DELETE /models/m"),
    *("GET /%6detrics", "GET /METRICS", "GET /%5Ftollway/budgets", "GET //_tollway/budgets"),
]
DISGUISED = [
    *(
        "/v1/threads/t%2Fruns",
        "/v1/threads/t%5Cruns",
        "/v1/threads/runs;x",
        "/v1/files/../threads/runs",
    ),
    *("/v1/files/%2e%2e/chat/completions", "/v1/files/..%2Fchat%2Fcompletions"),
]
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
JSON = {"Content-Type": "application/json"}


def test_no_servers_administration_is_reached_through_a_wildcard(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            async with listening(one_model(url, path="/*"), tmp_path) as (_, address):
                for line in ADMINISTRATION:
                    method, target = line.split(" ")
                    body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
                    reply = await ask(address, target, body, JSON, method=method)
                    assert reply.status in (403, 404, 405), line
                assert upstream.calls == 0
                assert (await ask(address, "/props")).status == 200
                assert upstream.calls == 1

    run(main)


def test_no_call_is_disguised_as_a_free_one(tmp_path: Path) -> None:
    """A backend that decodes, or cuts at `;`, would run what the gateway takes for a free read."""

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            async with listening(one_model(url, path="/v1/*"), tmp_path) as (_, address):
                for target in DISGUISED:
                    assert (await ask(address, target, BODY, JSON)).status in (403, 404), target
                assert upstream.calls == 0
                assert (await ask(address, "/v1/threads/t", b"{}", JSON)).status == 200

    run(main)
