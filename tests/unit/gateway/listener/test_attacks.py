"""Attacks: guessed keys, made-up label values, secrets in outputs, compression bombs."""

import gzip
import random
import re
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, running, serving
from tests.support.http_client import http_client
from tests.support.raw_client import Client
from tollway.gateway import settings as config
from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.listener import server as front
from tollway.gateway.observability.counters import TAGS_MAX, TAGS_SHARE
from tollway.gateway.security.keys import hash_key, new_key
from tollway.gateway.wiring import build

KEY = new_key()
ADMIN, VIEWER, PEPPER, HOOK = (f"canary-{name}-0123456789" for name in ("adm", "view", "pep", "ho"))
TENANT = f'[[tenants]]\nname = "acme"\nkey_hash = "{hash_key(KEY, PEPPER)}"\n'
SERVER = f'admin_key = "{ADMIN}"\nviewer_key_hash = "{hash_key(VIEWER, PEPPER)}"'

TOKENS = {
    "none": None,
    "empty": b"",
    "SQL": b"' OR '1'='1' --",
    "SQL, stacked": b"x'; DROP TABLE keys; --",
    "Lua": b"\"); redis.call('FLUSHALL') --",
    "a template": b"{{7*7}}${7*7}<%= 7*7 %>",
    "a path": b"../../../../etc/passwd",
    "JSON": b'{"$ne": null}',
    "the key, shorter": KEY[:-1].encode(),
    "half the key": KEY[: len(KEY) // 2].encode(),
    "its prefix": b"tw_",
    "the key, longer": KEY.encode() + b"0",
    "the key twice": KEY.encode() + b" " + KEY.encode(),
    "the key, swapped": KEY.swapcase().encode(),
    "the key in quotes": b'"%b"' % KEY.encode(),
    "its hash": hash_key(KEY, PEPPER).encode(),
    "its hash alone": hash_key(KEY, PEPPER).partition(":")[2].encode(),
    "another's key": new_key().encode(),
    "full width": "ｔｗ＿".encode() + KEY[3:].encode(),  # noqa: RUF001
    "Latin-1": b"\xe9\xe8\xff",
    "an emoji": "🔑".encode(),
    "8 KiB": b"x" * 8192,
    "a percent-encoded key": b"%74%77_" + KEY[3:].encode(),
}


@pytest.mark.integration
def test_guessing_keys_reveals_nothing_and_reaches_no_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every guess gets the same reply, however close it is."""

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            toml = two_backends(url, url, server=SERVER, more=TENANT)
            gateway = build(config.parse(toml, {"TOLLWAY_PEPPER": PEPPER}, folder=tmp_path))
            async with front.serving(gateway.app, drain_s=0.5) as address:
                client = Client(address)
                said = {name: await ask(client, token) for name, token in TOKENS.items()}
                assert {reply[0] for reply in said.values()} == {401}
                assert len(set(said.values())) == 1
                for odd in (b"a\r\nauthorization: Bearer " + KEY.encode(), b"a\x00", b"a\nb"):
                    assert (await ask(client, odd))[0] in (400, 401)
                assert (await ask(client, b"x" * 10_000_000))[0] == 431
                assert (await ask(client, KEY.encode(), scheme=b"Basic"))[0] == 401
                assert upstream.calls == 0
                assert (await ask(client, KEY.encode()))[0] == 200
        assert upstream.calls == 1

    uvloop.run(main())


async def ask(
    client: Client, token: bytes | None, scheme: bytes = b"Bearer"
) -> tuple[int, bytes, tuple[bytes, ...]]:
    """Return status, body and the fields that do not depend on the time."""
    import orjson

    body = orjson.dumps(inference())
    field = b"" if token is None else b"authorization: %b %b\r\n" % (scheme, token)
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\nconnection: close\r\n" + field
    try:
        reply = await client.say(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    except ConnectionError:  # it was refused while we still sent
        return 431, b"", ()
    top, _, rest = reply.partition(b"\r\n\r\n")
    lines = [line for line in top.split(b"\r\n")[1:] if not re.match(rb"(?i)date|server-t", line)]
    return int(top[9:12]), rest, tuple(lines)


def test_a_partly_right_key_takes_no_longer_to_refuse() -> None:
    """Keys are looked up by hash, so a right prefix makes no difference."""
    keys = Authenticator({hash_key(KEY): "acme"}, admin_hash=hash_key(ADMIN))
    rng = random.Random(0)
    shuffled = list(KEY[3:])
    rng.shuffle(shuffled)
    guesses = {"near": KEY[:-1] + chr(ord(KEY[-1]) ^ 1), "far": "tw_" + "".join(shuffled)}
    headers = {name: [(b"authorization", b"Bearer " + g.encode())] for name, g in guesses.items()}
    taken: dict[str, list[int]] = {name: [] for name in guesses}
    for _ in range(2000):
        for name in rng.sample(list(guesses), 2):
            start = time.perf_counter_ns()
            assert keys.tenant(headers[name]) is None
            assert not keys.is_admin(headers[name])
            taken[name].append(time.perf_counter_ns() - start)
    near, far = (statistics.median(taken[name]) for name in guesses)
    assert 0.5 < near / far < 2.0  # a comparison byte by byte is not seen at this scale; a skip is


@pytest.mark.integration
def test_no_client_value_becomes_a_metric_series(tmp_path: Path) -> None:
    """Paths, models, versions, keys, tags, fields, decisions: a thousand of each."""

    async def main() -> None:
        async with serving(Upstream()) as url:
            more = budget("all", "100", more='window = "lifetime"')
            async with running(two_backends(url, url, more=more), tmp_path) as tollway:
                app = tollway.gateway.app
                await made_up(app, 0, 50)
                before = await samples(tollway.client, tollway.url)
                assert await made_up(app, 50, 1050) == 1000
                after = await samples(tollway.client, tollway.url)
                tags = tollway.gateway.metrics.tags_nano()
                most = TAGS_MAX * TAGS_SHARE // (TAGS_SHARE + 1)  # of one tenant
                assert len(tags) == most + 1 + 1  # and the others
        fresh = {re.sub(r"(_created)?\{.*", "", line) for line in after - before}
        assert len(after) <= len(before) + 10, fresh
        assert not [line for line in after if "made-up" in line]

    run(main)


async def made_up(app: Any, start: int, stop: int) -> int:
    """Request existing and unknown paths; return how many a model answered."""
    answered = 0
    body = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[1,2,3,4]}]}'
    for n in range(start, stop):
        word = f"made-up-{n}"
        for path in (
            f"/{word}",
            f"/v2/models/{word}/infer",
            f"/v2/models/m/versions/{word}/infer",
            f"/_tollway/{word}",
            f"/_tollway/decisions/{n}.0.0000",
        ):
            named = [(b"x-tollway-tags", f"team={word},{word}=1".encode())]
            named += [(f"x-{word}".encode(), word.encode()), (b"user-agent", word.encode())]
            named += [(b"authorization", f"Bearer {word}".encode())]
            method = "POST" if "infer" in path else "GET"
            status = await asgi(app, method, path, named, body)
            answered += status == 200 and method == "POST"
    return answered


async def asgi(
    app: Any, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> int:
    """Call an application without a socket; return the status."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"},
        **{"method": method, "path": path, "raw_path": path.encode(), "query_string": b""},
        **{"root_path": "", "headers": headers, "client": ("127.0.0.1", 1), "server": ("a", 80)},
    }
    await app(scope, receive, send)
    return status


async def samples(client: httpx.AsyncClient, url: str) -> set[str]:
    """Return the names and labels of all series."""
    text = (await client.get(url + "/metrics")).text
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


CANARIES = (KEY, KEY[3:20], ADMIN, VIEWER, PEPPER, HOOK, "canary-body", "canary-cookie")
CANARIES += ("canary-query", hash_key(KEY, PEPPER), hash_key(VIEWER, PEPPER))


@pytest.mark.integration
def test_no_secret_appears_in_any_output(tmp_path: Path) -> None:
    """Answers of both planes, errors, metrics, the journal and the log, good requests and bad."""
    out, log = [], StringIO()

    async def main() -> None:
        async with serving(Upstream()) as good, serving(Upstream(status=500, body=b"no")) as bad:
            hook = f'[[webhooks]]\nname = "h"\nurl = "{good}/{HOOK}"\nsecret = "{HOOK}"\n'
            logged = '[log]\nformat = "json"\nrequests = "all"\n'
            more = TENANT + budget("all", "1", more='window = "lifetime"') + hook + logged
            toml = two_backends(bad, good, server=SERVER, more=more)
            settings = config.parse(toml, {"TOLLWAY_PEPPER": PEPPER}, folder=tmp_path)
            out.append(str(settings.effective()))
            gateway = build(settings)
            async with serving(gateway.app, lifespan="on") as url:
                await everything(url, out)

    with redirect_stderr(log):
        run(main)
    out.append(log.getvalue())
    out += [path.read_text(errors="replace") for path in tmp_path.rglob("journal-*")]
    everywhere = "\n".join(out)
    assert len(out) > 40
    assert "tollway_requests_total" in everywhere and '"kind":"attempt"' in everywhere
    assert not [canary for canary in CANARIES if canary in everywhere]


async def everything(url: str, out: list[str]) -> None:
    """Send valid and invalid requests to every path; record every head and body."""

    async def heard(response: httpx.Response) -> None:
        await response.aread()
        out.append(f"{response.headers} {response.text}")

    hooks: dict[str, list[Callable[..., Awaitable[None]]]] = {"response": [heard]}
    async with http_client(event_hooks=hooks) as client:
        odd = {"id": "canary-body", "inputs": [{"name": "canary-body"}]}
        for key in (KEY, ADMIN, VIEWER, KEY + "x"):
            headers = {"authorization": f"Bearer {key}", "cookie": "canary-cookie"}
            infer = f"{url}/v2/models/m/infer?q=canary-query"
            reply = await client.post(infer, json=inference(), headers=headers)
            decision = reply.headers.get("x-tollway-decision", "0.0.0000")
            await client.post(infer, json=inference(), headers={**headers, "x-tollway-tags": "x"})
            await client.post(f"{url}/nowhere?q=canary-query", headers=headers)
            if key != KEY:
                await client.post(infer, json=odd, headers=headers)
            for path in (
                *("budgets", "budgets/all", "spend", "events", "routes", "overview", "reload"),
                *("openapi.json", "dashboard", f"decisions/{decision}", "feedback", "nothing"),
            ):
                await client.get(f"{url}/_tollway/{path}", headers=headers)
            told = {"decision": decision, "quality": 1.0}
            await client.post(f"{url}/_tollway/feedback", json=told, headers=headers)
            await client.post(f"{url}/_tollway/reload", headers=headers)
        for path in ("metrics", "livez", "readyz"):
            await client.get(f"{url}/{path}")


@pytest.mark.integration
@pytest.mark.parametrize("http2", ["false", "true"])
def test_decoding_of_a_bomb_from_a_backend_stops_early(tmp_path: Path, http2: str) -> None:
    """A reply that expands a thousand times is no answer, and takes little memory."""
    bomb = gzip.compress(bytes(64 << 20))

    async def main() -> None:
        packed = Upstream(body=bomb, headers=[(b"content-encoding", b"gzip")])
        async with serving(packed) as bad, serving(Upstream()) as good:
            toml = two_backends(bad, good, backend=f"http2 = {http2}")
            async with running(toml, tmp_path) as tollway:
                before = peak()
                reply = await tollway.infer()
                assert reply.status_code == 200
                assert reply.headers["x-tollway-reason"] == "fallback"
                assert reply.headers["x-tollway-cost-usd"] == "0.001100000"
                assert peak() - before < 16 << 10  # KiB
        asked = packed.requests[0][2]
        assert asked[b"accept-encoding"] == b"identity"

    run(main)


def peak() -> int:
    """Return the most memory that this process has had, in KiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
