"""Credentials: which of a client's are forwarded, and which never are."""

import contextlib
import io
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.configs import two_backends
from tests.support.harness import Upstream, inference, run, running, serving
from tests.support.http_client import http_client
from tollway.gateway.cli.main import main as main_command
from tollway.gateway.security.credentials import Credential, refuses_key
from tollway.gateway.security.keys import hash_key, new_key
from tollway.gateway.security.secrets import FileSecret
from tollway.gateway.settings import ConfigError, load, parse
from tollway.gateway.wiring import build
from tollway.gateway.wiring.backends import check_health
from tollway.gateway.wiring.reload import Reloader

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


def test_no_credential_of_a_client_is_forwarded_by_default(tmp_path: Path) -> None:
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
def test_a_key_of_the_gateway_is_never_forwarded_even_if_the_route_names_its_field(
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
        ("connection", "is a connection field"),
        ("Proxy-Authorization", "is a connection field"),
        ("transfer-encoding", "is a connection field"),
        ("host", "is a connection field"),
        ("content-length", "is a connection field"),
        ("x-tollway-tags", "is reserved for the gateway"),
        ("", "is not a valid header field name"),
        ("author ization", "is not a valid header field name"),
        ("a: b\\r\\nc", "is not a valid header field name"),
    ],
)
def test_a_field_that_cannot_be_passed_on_is_refused(name: str, why: str) -> None:
    toml = two_backends("http://127.0.0.1:1", "http://127.0.0.1:2")
    with pytest.raises(ConfigError, match=why):
        parse(toml.replace("[[routes]]", f'[[routes]]\nforward_headers = ["{name}"]'), {})


# -- the gateway's own credential at a backend


def paid(url: str, dear: str, auth: str, *, more: str = "", route: str = "") -> str:
    """Return two backends of which the cheap one gets a credential."""
    toml = two_backends(url, dear, route=route, more=more)
    return toml.replace('name = "cheap"', f'name = "cheap"\nauth = {auth}', 1)


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ('{ bearer_env = "PROVIDER_KEY" }', b"authorization", b"Bearer sk-provider"),
        ('{ bearer_file = "key" }', b"authorization", b"Bearer sk-provider"),
        ('{ header = "Api-Key", value_env = "PROVIDER_KEY" }', b"api-key", b"sk-provider"),
        ('{ header = "x-api-key", value_file = "key" }', b"x-api-key", b"sk-provider"),
    ],
)
def test_a_backend_gets_its_key_and_its_fields_and_no_client_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str, name: bytes, value: bytes
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", " sk-provider\n")
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfsk-provider\r\n")
    forward = 'forward_headers = ["authorization", "api-key", "x-api-key"]'

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            toml = paid(url, url, f'{auth}\nheaders = {{ X-Version = "1" }}', route=forward)
            async with running(toml, tmp_path) as tollway:
                assert await post(tollway, {**OWN, "x-version": "client"}) == 200
        told = sent(upstream)
        assert told[name] == value
        assert told[b"x-version"] == b"1"
        others = {b"authorization", b"api-key", b"x-api-key"} - {name}
        assert all(b"client" in told[other] for other in others), "the route passes those on"

    run(main)


def test_health_checks_of_several_addresses_carry_the_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "sk-provider")

    async def main() -> None:
        a, b = Upstream(), Upstream()
        async with serving(a) as one, serving(b) as two:
            more = f'replicas = ["{two}"]\nhealth_path = "/health"'
            toml = paid(one, one, f'{{ bearer_env = "PROVIDER_KEY" }}\n{more}')
            async with running(toml, tmp_path) as tollway:
                await check_health(tollway.gateway.backends)
        for upstream in (a, b):
            assert sent(upstream)[b"authorization"] == b"Bearer sk-provider"

    run(main)


REFUSED = b'{"error": {"message": "Incorrect API key: sk-provider", "code": "invalid_api_key"}}'
NO_QUOTA = b'{"error": {"message": "You exceeded sk-provider", "code": "insufficient_quota"}}'


@pytest.mark.parametrize(
    ("status", "body"), [(401, REFUSED), (403, REFUSED), (402, b""), (429, NO_QUOTA)]
)
def test_a_refused_key_of_ours_fails_over_and_takes_the_backend_out_of_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "sk-provider")

    async def main() -> None:
        refuses, answers = Upstream(status=status, body=body), Upstream()
        async with serving(refuses) as a, serving(answers) as b:
            toml = paid(a, b, '{ bearer_env = "PROVIDER_KEY" }')
            async with running(toml, tmp_path) as tollway:
                for _ in range(3):
                    assert await post(tollway, {}) == 200
                assert (refuses.calls, answers.calls) == (1, 3)
                assert [e["kind"] for e in tollway.gateway.events.newest()] == [
                    "credential_rejected"
                ]
                told = await tollway.get("/_tollway/routes")
                up = {b["name"]: b["up"] for b in told["routes"][0]["backends"]}
                assert up == {"cheap": False, "dear": True}
                assert not tollway.gateway.backends["cheap"].breaker.is_open

    run(main)


def test_the_last_backend_s_refused_key_is_a_502_that_names_the_setting_and_not_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "sk-provider")

    async def main() -> None:
        async with serving(Upstream(status=401, body=REFUSED)) as url:
            toml = paid(url, url, '{ bearer_env = "PROVIDER_KEY" }').replace(
                'backends = ["cheap", "dear"]', 'backends = ["cheap"]'
            )
            async with running(toml, tmp_path) as tollway:
                replies = [await tollway.infer() for _ in range(3)]
        for reply in replies:
            assert reply.status_code == 502
            assert reply.headers["x-tollway-reason"] == "credential_rejected"
            assert reply.headers["x-should-retry"] == "false"
            assert '[[backends]] "cheap" auth.bearer_env' in reply.json()["detail"]
            assert "sk-provider" not in reply.text
            assert "Incorrect" not in reply.text

    run(main)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_where_the_gateway_attached_nothing_is_the_client_s_and_hurts_nobody(
    tmp_path: Path, status: int
) -> None:
    async def main() -> None:
        refuses, other = Upstream(status=status, body=b'{"error": "no"}'), Upstream()
        refuses.headers = [(b"www-authenticate", b"Bearer"), (b"set-cookie", b"a=1")]
        async with serving(refuses) as a, serving(other) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                for _ in range(30):
                    reply = await tollway.infer()
                    assert (reply.status_code, reply.content) == (status, b'{"error": "no"}')
                    assert reply.headers["www-authenticate"] == "Bearer"
                    assert reply.headers["set-cookie"] == "a=1"
                assert (refuses.calls, other.calls) == (30, 0)
                assert tollway.gateway.backends["cheap"].up

    run(main)


def test_a_session_of_our_account_or_its_key_in_a_field_is_no_client_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "sk-provider")

    async def main() -> None:
        fields = [(b"set-cookie", b"__cf_bm=ours"), (b"x-kept", b"1")]
        upstream = Upstream(headers=[*fields, (b"x-debug", b"got Bearer sk-provider")])
        async with serving(upstream) as url:
            toml = paid(url, url, '{ bearer_env = "PROVIDER_KEY" }')
            async with running(toml, tmp_path) as tollway:
                reply = await tollway.infer()
        assert "set-cookie" not in reply.headers
        assert reply.headers["x-kept"] == "1"
        assert reply.headers["x-debug"] == "got Bearer (hidden)"

    run(main)


def test_a_key_in_a_file_is_replaced_without_a_restart_and_ends_a_refusal_at_once(
    tmp_path: Path,
) -> None:
    file = tmp_path / "key"
    file.write_text("sk-old")

    async def main() -> None:
        upstream, dear = Upstream(status=401, body=REFUSED), Upstream()
        async with serving(upstream) as a, serving(dear) as b:
            async with running(paid(a, b, '{ bearer_file = "key" }'), tmp_path) as tollway:
                await tollway.infer()
                await tollway.infer()
                assert upstream.calls == 1
                upstream.status, upstream.body = 200, None
                (tmp_path / "new").write_text("sk-new")
                (tmp_path / "new").replace(file)
                credential = tollway.gateway.backends["cheap"].credential
                assert credential is not None
                credential._look_at_s = 0.0  # a second later
                assert (await tollway.infer()).headers["x-tollway-backend"] == "cheap"
        assert sent(upstream)[b"authorization"] == b"Bearer sk-new"
        assert [e["kind"] for e in tollway.gateway.events.newest()][::-1] == [
            "credential_rejected",
            "credential_renewed",
            "credential_restored",
        ]

    run(main)


def test_a_reload_ends_a_refusal_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "sk-provider")

    async def main() -> None:
        upstream, dear = Upstream(status=401, body=REFUSED), Upstream()
        async with serving(upstream) as a, serving(dear) as b:
            toml = paid(a, b, '{ bearer_env = "PROVIDER_KEY" }')
            async with running(toml, tmp_path) as tollway:
                await tollway.infer()
                upstream.status, upstream.body = 200, None
                assert (await tollway.infer()).headers["x-tollway-backend"] == "dear"
                kept = tollway.gateway.backends["cheap"]
                await Reloader(tollway.gateway, lambda: parse(toml, {}, folder=tmp_path)).reload()
                assert tollway.gateway.backends["cheap"].credential is kept.credential
                assert (await tollway.infer()).headers["x-tollway-backend"] == "cheap"

    run(main)


CANARY = "canary-5f1c"


@pytest.mark.integration
def test_a_secret_is_seen_by_its_backend_and_nowhere_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log: io.StringIO,
) -> None:
    """check-config, journal, state, events, logs, traces, metrics, every page, every reply."""
    monkeypatch.setenv("PROVIDER_KEY", CANARY)
    exporter, told = InMemorySpanExporter(), []
    echo = b'{"error": {"message": "bad key ' + CANARY.encode() + b'"}}'

    async def main() -> None:
        upstreams = [
            Upstream(status=401, body=echo),
            Upstream(body=b'{"error": "' + CANARY.encode() + b'"}'),
            Upstream(status=500, body=echo),
            Upstream(status=422, body=echo),
        ]
        async with contextlib.AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(serving(one)) for one in upstreams]
            for first, second in itertools.permutations(urls, 2):
                toml = paid(
                    first,
                    second,
                    '{ bearer_env = "PROVIDER_KEY" }\nheaders = { x-account = "canary-5f1c" }',
                    more='[log]\nrequests = "all"\n[tracing]\nendpoint = "http://127.0.0.1:1"\n'
                    "sample = 1.0",
                )
                auth = 'auth = { header = "x-api-key", value_env = "PROVIDER_KEY" }'
                toml = toml.replace('name = "dear"', f'name = "dear"\n{auth}', 1)
                file = tmp_path / "tollway.toml"
                file.write_text(toml)
                for options in ([], ["--json"]):
                    assert main_command(["check-config", str(file), *options], os.environ) == 0
                settings = parse(toml, {}, folder=tmp_path)
                told.append(repr(settings))
                gateway = build(settings, trace=lambda _: SimpleSpanProcessor(exporter))
                async with serving(gateway.app, lifespan="on") as url:
                    await ask(url)
                told.append(repr(gateway.backends["cheap"]))
            keys = [
                (b"authorization", f"Bearer {CANARY}".encode()),
                (b"x-api-key", CANARY.encode()),
            ]
            seen = [request[2] for one in upstreams for request in one.requests]
            assert all(any(fields.get(name) == key for name, key in keys) for fields in seen)
            assert all(any(fields.get(name) == key for fields in seen) for name, key in keys)

    async def ask(url: str) -> None:
        async with http_client() as client:
            reply = await client.post(f"{url}/v2/models/m/infer", json=inference())
            told.append(reply.text + str(reply.headers))
            decision = reply.headers.get("x-tollway-decision", "none")
            for page in (
                *(f"/_tollway/{name}" for name in ("events", "routes", "spend", "overview")),
                f"/_tollway/decisions/{decision}",
                "/_tollway/budgets",
                "/metrics",
                "/v2/models/m",
            ):
                told.append((await client.get(url + page)).text)

    with contextlib.redirect_stderr(log):
        run(main)
    printed = capsys.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".toml"]
    assert any("journal" in str(path) for path in files)
    written = b"".join([path.read_bytes() for path in files])
    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert spans
    assert "credential_rejected" in log.getvalue()
    everything = [*told, printed.out, printed.err, log.getvalue(), spans, repr(written)]
    assert not [text for text in everything if CANARY in text]


@pytest.mark.parametrize(
    ("auth", "key", "why"),
    [
        ('{ bearer_env = "UNSET_KEY" }', "auth.bearer_env", "variable UNSET_KEY is not set"),
        ('{ bearer_env = "EMPTY_KEY" }', "auth.bearer_env", "is empty; set it to the key"),
        ('{ bearer_env = "SPLIT_KEY" }', "auth.bearer_env", "contains a line break"),
        ('{ bearer_env = "EURO_KEY" }', "auth.bearer_env", "contains a line break or another"),
        ('{ bearer_env = "TOLLWAY_KEY" }', "auth.bearer_env", "begins with TOLLWAY_"),
        ('{ bearer_file = "absent" }', "auth.bearer_file", "cannot be read: No such file"),
        ('{ bearer_file = "." }', "auth.bearer_file", "cannot be read: Is a directory"),
        ('{ bearer_file = "empty" }', "auth.bearer_file", "is empty; write the path"),
        ('{ bearer_file = "binary" }', "auth.bearer_file", "is not UTF-8 text"),
        ('{ bearer_file = "nul" }', "auth.bearer_file", "contains a line break or another"),
        ('{ bearer_file = "large" }', "auth.bearer_file", "is larger than"),
        ("{ }", "auth", "needs exactly one of bearer_env, bearer_file"),
        ('{ bearer_env = "A", value_env = "B" }', "auth", "has bearer_env and value_env"),
        ('{ value_env = "SET_KEY" }', "auth.header", "is missing"),
        ('{ bearer_env = "SET_KEY", header = "api-key" }', "auth.header", "applies only to"),
        ('{ header = "host", value_env = "SET_KEY" }', "auth.header", "is a connection field"),
        ('{ header = "a b", value_env = "SET_KEY" }', "auth.header", "is not a valid header"),
        # A key that was pasted where its name belongs is a secret too.
        ('{ bearer_env = "canary-5f1c" }', "auth.bearer_env", "is not the name of an environment"),
        ('{ bearer_env = "canary_5f1c" }', "auth.bearer_env", "is not set"),
        ('{ bearer_file = "canary-5f1c" }', "auth.bearer_file", "cannot be read"),
        ('{ bearer = "canary-5f1c" }', "auth.bearer", "unknown key; did you mean 'bearer_env'?"),
        ('"canary-5f1c"', "auth", "valid dictionary"),
        ('{ bearer_env = ["canary-5f1c"] }', "auth.bearer_env", "valid string"),
        ('{ header = "canary-5f1c: x", value_env = "SET_KEY" }', "auth.header", "is not a valid"),
        ('{ bearer_env = "SET_KEY" }\nheaders = { authorization = "canary-5f1c" }', "headers",
         "carries a credential"),
        ('{ bearer_env = "SET_KEY" }\nheaders = { x = "canary-5f1c\\n" }', "headers.x", "contains"),
        ('{ bearer_env = "SET_KEY" }\nheaders = { x = ["canary-5f1c"] }', "headers.x", "string"),
        ('{ bearer_env = "SET_KEY" }\nheaders = { connection = "close" }', "headers", "is a conn"),
        ('{ bearer_env = "SET_KEY" }\nheaders = { x = "" }', "headers.x", "is empty"),
        ('{ bearer_env = "SET_KEY" }\nheaders = { x = "\u20ac" }', "headers.x", "contains"),
    ],
)  # fmt: skip
def test_a_credential_that_cannot_be_used_stops_the_start_and_names_its_key(
    tmp_path: Path, auth: str, key: str, why: str
) -> None:
    for name, content in (
        ("empty", b" \n"), ("binary", b"\xff\xfe\x00"), ("nul", b"a\x00b"), ("large", b"x" * 70_000)
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
    file = tmp_path / "tollway.toml"
    file.write_text(paid("http://127.0.0.1:1", "http://127.0.0.1:2", auth))
    environ = {"EMPTY_KEY": "  ", "SPLIT_KEY": "a\r\nb", "EURO_KEY": "\u20ac", "SET_KEY": "sk-1"}
    with pytest.raises(ConfigError) as refused:
        load(file, environ)
    assert f"backends[0].{key}" in str(refused.value)
    assert why in str(refused.value)
    assert CANARY not in str(refused.value)
    assert CANARY not in str([problem.document() for problem in refused.value.problems])


def test_a_disabled_backend_needs_no_secret(tmp_path: Path) -> None:
    auth = '{ bearer_env = "UNSET_KEY" }\nenabled = false'
    file = tmp_path / "tollway.toml"
    file.write_text(paid("http://127.0.0.1:1", "http://127.0.0.1:2", auth))
    assert load(file, {}).backends[0].auth is not None


# -- the standing of a credential


def credential(folder: Path) -> tuple[Credential, list[str]]:
    (folder / "key").write_text("sk-1")
    kinds: list[str] = []
    made = Credential(
        "b",
        "auth.bearer_file",
        FileSecret(folder / "key"),
        name=b"authorization",
        tell=lambda kind, about, text: kinds.append(kind),
    )
    return made, kinds


def test_a_refused_key_is_tried_again_after_a_minute_then_twice_as_long(tmp_path: Path) -> None:
    one, kinds = credential(tmp_path)
    one.refused(401, 0.0, 1.0)
    now_s, waits = 1.0, []
    for _ in range(6):
        begun_s = now_s
        while not one.allows(now_s):
            now_s += 1.0
        waits.append(now_s - begun_s)
        one.probe(now_s)
        assert not one.allows(now_s + 1.0), "one probe at a time"
        one.refused(401, now_s, now_s)
    assert waits == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]
    one.accepted(now_s + 700.0)
    assert one.allows(now_s)
    assert kinds == ["credential_rejected", "credential_restored"]


def test_calls_that_were_under_way_say_nothing_of_what_is_known_since(tmp_path: Path) -> None:
    one, kinds = credential(tmp_path)
    one.refused(401, 5.0, 6.0)
    for started_s in (1.0, 2.0, 5.5):
        one.refused(401, started_s, 7.0)
        one.accepted(started_s)
    assert one.allows(66.0)
    assert not one.allows(65.0)
    (tmp_path / "key").write_text("sk-2")
    assert one.allows(70.0)
    assert one.field == (b"authorization", b"sk-2")
    one.refused(401, 69.0, 71.0)
    assert one.allows(72.0), "that was the old key"
    assert kinds == ["credential_rejected", "credential_renewed", "credential_restored"]


def test_a_file_that_cannot_be_used_leaves_the_last_key_in_force(tmp_path: Path) -> None:
    one, kinds = credential(tmp_path)
    file = tmp_path / "key"
    for now_s in (2.0, 4.0, 6.0):
        file.write_text("")
        assert one.allows(now_s)
    assert kinds == ["credential_unreadable"] * len(kinds)
    file.unlink()
    assert one.allows(8.0)
    assert one.field[1] == b"sk-1"
    file.write_text("sk-2")
    assert one.allows(10.0)
    assert one.field[1] == b"sk-2"


NO_CREDIT = (
    b'{"type": "error", "error": {"type": "invalid_request_error", '
    b'"message": "Your credit balance is too low to access the Anthropic API."}}'
)


@pytest.mark.parametrize(
    ("status", "body", "ours"),
    [
        (401, b"", True),
        (402, b"", True),
        (403, b"<html>", True),
        (403, b'{"error": {"code": 403, "metadata": {"reasons": ["violence"]}}}', False),
        (429, b'{"error": {"code": "rate_limit_exceeded"}}', False),
        (429, b'{"error": {"type": "insufficient_quota", "code": null}}', True),
        (429, b'{"error": {"message": "insufficient_quota"}}', False),
        (429, b"insufficient_quota", False),
        (429, b'{"error": "insufficient_quota"}', False),
        (400, b'[{"error": {"details": [{"reason": "API_KEY_INVALID"}]}}]', True),
        (400, b'{"error": {"message": "API_KEY_INVALID"}}', False),
        (400, b'{"error": {"code": "insufficient_quota"}}', False),
        (400, NO_CREDIT, True),
        (400, NO_CREDIT.replace(b"Your", b"messages: Your"), False),
        (400, NO_CREDIT.replace(b'"type": "error", ', b""), False),
        (400, b"[%b]" % NO_CREDIT, False),
        (404, b"", False),
        (500, b"", False),
        (200, b'{"error": {"code": "insufficient_quota"}}', False),
    ],
)
def test_what_is_about_the_key_and_what_about_the_request(
    status: int, body: bytes, ours: bool
) -> None:
    assert refuses_key(status, body) is ours


# -- the credentials of proxies


def test_a_proxy_s_password_is_shown_nowhere(tmp_path: Path) -> None:
    auth = f'{{ bearer_env = "SET_KEY" }}\nproxy = "http://user:{CANARY}@proxy:3128"'
    file = tmp_path / "tollway.toml"
    file.write_text(paid("https://a.example", "https://b.example", auth))
    settings = load(file, {"SET_KEY": "sk-1", "HTTPS_PROXY": "http://proxy:3128"})
    assert settings.backends[0].proxy_setting == f"http://user:{CANARY}@proxy:3128"
    assert CANARY not in str(settings.effective())
    assert CANARY not in repr(settings)


@pytest.mark.parametrize(
    ("proxy", "environ", "place"),
    [
        (f'"socks5://{CANARY}@proxy:1"', {}, "backends[0].proxy"),
        (f'["http://{CANARY}"]', {}, "backends[0].proxy"),
        ('"none"', {"HTTPS_PROXY": f"socks5://user:{CANARY}@proxy:1"}, "HTTPS_PROXY"),
    ],
)
def test_a_proxy_that_cannot_be_used_stops_the_start_without_its_password(
    tmp_path: Path, proxy: str, environ: dict[str, str], place: str
) -> None:
    file = tmp_path / "tollway.toml"
    auth = f'{{ bearer_env = "SET_KEY" }}\nproxy = {proxy}'
    file.write_text(paid("https://a.example", "https://b.example", auth))
    with pytest.raises(ConfigError) as refused:
        load(file, {"SET_KEY": "sk-1", **environ})
    assert place in str(refused.value)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("setting", [True, False])
def test_a_backend_is_reached_through_its_proxy_or_the_environment_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: bool
) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as proxy:
            monkeypatch.setenv("http_proxy", "http://127.0.0.1:1" if setting else proxy)
            toml = two_backends("http://a.invalid", "http://b.invalid")
            if setting:
                toml = toml.replace('name = "cheap"', f'name = "cheap"\nproxy = "{proxy}"')
            async with running(toml, tmp_path) as tollway:
                assert (await tollway.infer()).headers["x-tollway-backend"] == "cheap"
        assert sent(upstream)[b"host"] == b"a.invalid"

    run(main)
