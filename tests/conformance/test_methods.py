"""405 with Allow for what a path does not support (RFC 9110, 15.5.6), in the protocol's errors."""

from pathlib import Path

import pytest

from tests.support.harness import Upstream, run, running, serving
from tollway.gateway.security.keys import hash_key, new_key

pytestmark = pytest.mark.integration

CONFIG = """
[ledger]
url = "memory://"

[[backends]]
name = "odd"
kind = "cpu"
protocol = "mlflow"
url = "{url}"
price = {{ per_request_usd = 0.001 }}

[[backends]]
name = "digits"
kind = "cpu"
protocol = "oip"
url = "{url}"
price = {{ per_request_usd = 0.001 }}

[[routes]]
name = "odd"
path = "/odd/invocations"
protocol = "mlflow"
backends = ["odd"]

[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["digits"]

[[tenants]]
name = "wide"
key_hash = "{wide}"

[[tenants]]
name = "narrow"
key_hash = "{narrow}"
routes = ["digits"]
"""
KEYS = {"wide": new_key(), "narrow": new_key(), "nobody": "tw_nobody"}


ODD = (405, "GET, HEAD", "error_code")  # the member is of MLflow's errors
DIGITS = (405, "GET, HEAD, POST", "error")
UNKNOWN = (404, None, "error")


@pytest.mark.parametrize(
    ("line", "key", "told"),
    [
        ("POST /odd/ping", "wide", ODD),
        ("DELETE /odd/version", "wide", ODD),
        ("PUT /v2/health/ready", "wide", DIGITS),
        ("PUT /v2/health/ready", "narrow", DIGITS),
        # Unknown paths, and those of routes that the caller may not use, are alike.
        ("POST /odd/pong", "wide", UNKNOWN),
        ("POST /odd/ping", "narrow", UNKNOWN),
        ("POST /odd/ping", "nobody", UNKNOWN),
        ("POST /v2/repository/models/digits/load", "wide", (403, None, "error")),
    ],
)
def test_a_wrong_method_gets_405_with_those_that_the_path_has(
    line: str, key: str, told: tuple[int, str | None, str], tmp_path: Path
) -> None:
    method, path = line.split(" ")

    async def main() -> None:
        upstream = Upstream()
        hashes = {name: hash_key(KEYS[name]) for name in ("wide", "narrow")}
        async with serving(upstream) as url:
            async with running(CONFIG.format(url=url, **hashes), tmp_path) as tollway:
                reply = await tollway.client.request(
                    method, tollway.url + path, headers={"authorization": f"Bearer {KEYS[key]}"}
                )
        status, allow, member = told
        assert (reply.status_code, reply.headers.get("allow")) == (status, allow)
        assert member in reply.json()
        if told == UNKNOWN:
            assert reply.json()["error"] == (
                f"no route has the path {path!r}; see [[routes]] in the configuration"
            )
        assert upstream.calls == 0

    run(main)
