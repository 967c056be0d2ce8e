"""Callers without a key may not use the gateway's provider key from elsewhere: no open relay."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, running, serving
from tollway.gateway.security.loopback import trouble
from tollway.gateway.settings import ConfigError, parse

PAID = 'allow_anonymous = true\nadmin_key = "0123456789abcdef"'
STRANGERS = [
    {"host": "evil.example"},
    {"host": "localhost.evil.example:8080"},
    {"host": "127.0.0.1.evil.example"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "chrome-extension://abc"},
    {"sec-fetch-site": "cross-site"},
    {"x-forwarded-for": "203.0.113.7"},
    {"x-forwarded-for": "127.0.0.1"},
    {"forwarded": "for=203.0.113.7"},
    {"x-real-ip": "203.0.113.7"},
]


def scope(
    client: tuple[str, int] | None = ("127.0.0.1", 1),
    server: Any = ("127.0.0.1", 8080),
    **headers: str,
) -> dict[str, Any]:
    fields = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return {"client": client, "server": server, "headers": fields}


@pytest.mark.parametrize(
    "local",
    [
        scope(),
        scope(host="localhost:8080"),
        scope(host="127.0.0.1:8080", origin="http://localhost:3000"),
        scope(host="[::1]:8080", client=("::1", 1)),
        scope(client=("::ffff:127.0.0.1", 1), host="LOCALHOST"),
        scope(client=None, server=("/run/tollway.sock", None), host="localhost"),
        scope(host="app.localhost", sec_fetch_site="same-origin"),
    ],
)
def test_a_program_of_this_machine_is_local(local: dict[str, Any]) -> None:
    assert trouble(local) == ""


@pytest.mark.parametrize(
    "foreign",
    [
        scope(client=("10.0.0.7", 1)),
        scope(client=("::ffff:10.0.0.7", 1)),
        scope(client=None),
        scope(client=None, server=None),
        scope(host=""),
        scope(host="["),
        scope(host="2130706433.evil.example"),
        *[scope(**{name.replace("-", "_"): text for name, text in h.items()}) for h in STRANGERS],
    ],
)
def test_a_caller_that_is_not_certainly_on_this_machine_is_not_local(
    foreign: dict[str, Any],
) -> None:
    assert trouble(foreign)


def paid(url: str, *, route: str = "", more: str = "", server: str = PAID) -> str:
    toml = two_backends(url, url, route=route, more=more, server=server)
    return toml.replace('name = "cheap"', 'name = "cheap"\nauth = { bearer_env = "KEY" }', 1)


def test_calls_without_a_key_use_the_gateways_key_only_from_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "sk-provider")

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url, running(paid(url), tmp_path) as tollway:
            there = tollway.url + "/v2/models/m/infer"
            sdk = {"authorization": "Bearer sk-any"}
            for headers in STRANGERS:
                for more in ({}, sdk):
                    reply = await tollway.client.post(
                        there, json=inference(), headers={**headers, **more}
                    )
                    assert reply.status_code == 403, headers
                    assert "send a key of this gateway" in reply.text
                metadata = await tollway.client.get(tollway.url + "/v2/models/m", headers=headers)
                assert metadata.status_code == 403
            assert upstream.calls == 0
            reply = await tollway.client.post(there, json=inference(), headers=sdk)
            assert reply.status_code == 200

    run(main)


def test_a_hard_budget_opens_a_route_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "sk-provider")

    async def main() -> None:
        async with serving(Upstream()) as url:
            toml = paid(url, more=budget("b", "0.00015", {"tenant": "anonymous"}))
            toml = toml.replace('backends = ["cheap", "dear"]', 'backends = ["cheap"]')
            async with running(toml, tmp_path) as tollway:
                for wanted in (200, 402):
                    reply = await tollway.infer(x_forwarded_for="203.0.113.7")
                    assert reply.status_code == wanted

    run(main)


def test_free_routes_accept_callers_from_anywhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as url, running(two_backends(url, url), tmp_path) as tollway:
            assert (await tollway.infer(x_forwarded_for="203.0.113.7")).status_code == 200

    run(main)


@pytest.mark.parametrize("headers", STRANGERS)
def test_a_control_plane_without_a_key_is_for_this_machine_alone(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as url, running(two_backends(url, url), tmp_path) as tollway:
            page = tollway.url + "/_tollway/budgets"
            assert (await tollway.client.get(page)).status_code == 200
            reply = await tollway.client.get(page, headers=headers)
            assert reply.status_code == 403
            assert "admin_key_hash" in reply.text

    run(main)


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ("", True),
        (budget("b", "1"), False),
        (budget("b", "1", {"tenant": "anonymous"}), False),
        (budget("b", "1", {"route": "m"}), False),
        (budget("b", "1", {"backend": "cheap"}), False),
        (budget("b", "1", {"backend": "dear"}), True),
        (budget("b", "1", {"tenant": "acme"}), True),
        (budget("b", "1", more='enforcement = "soft"'), True),
        (budget("b", "1", more='enforcement = "expected"'), True),
        (budget("b", "1").replace("scope = {  }", 'scope = { tags = { a = "b" } }'), True),
    ],
)
def test_an_open_relay_to_a_paid_key_is_refused(more: str, refused: bool) -> None:
    key = "sha256:" + "0" * 64
    more += f'[[tenants]]\nname = "acme"\nkey_hash = "{key}"\n'
    toml = paid("http://127.0.0.1:1", more=more, server=f'{PAID}\nlisten = "0.0.0.0:8080"')
    toml = toml.replace('url = "http://127.0.0.1:1"\nmodel = "large"', 'url = "http://127.0.0.1:2"')
    if not refused:
        parse(toml, {})
        return
    with pytest.raises(ConfigError) as found:
        parse(toml, {})
    assert "server.allow_anonymous" in str(found.value)
    assert "spend on the key of backend 'cheap' over route 'm'" in str(found.value)
    parse(toml.replace("allow_anonymous = true", "allow_anonymous = false"), {})
    parse(toml.replace("0.0.0.0", "127.0.0.1"), {})
    parse(toml.replace('auth = { bearer_env = "KEY" }', ""), {})
