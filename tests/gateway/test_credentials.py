"""Credentials: what of a client's own goes on to a backend, and what never does."""

from pathlib import Path
from typing import Any

import pytest

from gateway.auth import hash_key, new_key
from gateway.settings import ConfigError, parse
from tests.gateway.configs import two_backends
from tests.gateway.harness import Upstream, inference, run, running, serving

OWN = {
    "authorization": "Bearer sk-client",
    "x-api-key": "sk-ant-client",
    "api-key": "azure-client",
    "x-goog-api-key": "AIza-client",
    "cookie": "session=client",
    "proxy-authorization": "Basic client",
}


def sent(upstream: Upstream) -> dict[bytes, bytes]:
    return upstream.requests[-1][2]


async def post(tollway: Any, headers: dict[str, str]) -> int:
    url = tollway.url + "/v2/models/m/infer"
    reply = await tollway.client.post(url, json=inference(), headers=headers)
    return int(reply.status_code)


def test_no_credential_of_a_client_goes_on_by_default(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url, running(two_backends(url, url), tmp_path) as tollway:
            assert await post(tollway, {**OWN, "x-kept": "yes"}) == 200
        assert not any(b"client" in value for value in sent(upstream).values())
        assert sent(upstream)[b"x-kept"] == b"yes"

    run(main)


def test_a_route_passes_on_the_credentials_that_it_names_and_no_others(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            config = two_backends(
                url, url, route='forward_headers = ["Authorization", "cookie", "x-absent"]'
            )
            async with running(config, tmp_path) as tollway:
                assert await post(tollway, OWN) == 200
                assert {
                    name: value for name, value in sent(upstream).items() if b"client" in value
                } == {b"authorization": b"Bearer sk-client", b"cookie": b"session=client"}
                # What Connection names is a matter of that connection alone.
                assert await post(tollway, {**OWN, "connection": "cookie"}) == 200
                assert b"cookie" not in sent(upstream)

    run(main)


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
def test_a_key_of_ours_never_goes_on_even_where_the_route_says_so(
    tmp_path: Path, name: str
) -> None:
    key, old = new_key(), "an-older-form-of-key"
    tenants = "".join(
        f'[[tenants]]\nname = "t{n}"\nkey_hash = "{hash_key(one)}"\n'
        for n, one in enumerate((key, old))
    )

    async def main() -> None:
        upstream = Upstream()
        forward = 'forward_headers = ["authorization", "x-api-key", "api-key", "x-goog-api-key"]'
        async with serving(upstream) as url:
            config = two_backends(url, url, route=forward, server="", more=tenants)
            async with running(config, tmp_path) as tollway:
                for one in (key, old):
                    scheme = "Bearer " if name == "authorization" else ""
                    assert await post(tollway, {name: scheme + one}) == 200
                    assert not any(one.encode() in value for value in sent(upstream).values())
                other = "x-api-key" if name == "authorization" else "authorization"
                own = {name: scheme + key, other: "sk-client"}
                assert await post(tollway, own) == 200
                assert sent(upstream)[other.encode()] == b"sk-client"
                assert name.encode() not in sent(upstream)

    run(main)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("connection", "is a field of the connection"),
        ("Proxy-Authorization", "is a field of the connection"),
        ("transfer-encoding", "is a field of the connection"),
        ("host", "is a field of the connection"),
        ("content-length", "is a field of the connection"),
        ("x-tollway-tags", "is a field of the gateway's own"),
        ("", "is no name of a header field"),
        ("author ization", "is no name of a header field"),
        ("a: b\\r\\nc", "is no name of a header field"),
    ],
)
def test_a_field_that_cannot_be_passed_on_is_refused(name: str, why: str) -> None:
    toml = two_backends("http://127.0.0.1:1", "http://127.0.0.1:2")
    with pytest.raises(ConfigError, match=why):
        parse(toml.replace("[[routes]]", f'[[routes]]\nforward_headers = ["{name}"]'), {})
