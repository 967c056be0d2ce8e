"""Attacks on the control plane: spellings of its paths, web pages, proxies and stolen files."""

import asyncio
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.http import Address, Reply, ask, listening, send
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, serving
from tests.support.nginx import nginx
from tests.support.process import Process, free_port
from tests.support.until import until
from tollway.gateway.security import admin_key
from tollway.gateway.security.keys import hash_key, new_key

pytestmark = pytest.mark.integration

ADMIN = new_key()
KEYED = f'allow_anonymous = true\nadmin_key_hash = "{hash_key(ADMIN)}"'
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}
TENANT = f'[[tenants]]\nname = "a"\nkey_hash = "{hash_key(new_key())}"\n'
CAP = budget("cap", "5", more='window = "lifetime"')
JSON = {"Content-Type": "application/json"}
CHANGE = json.dumps({"action": "limit", "limit_usd": "999", "who": "x", "why": "y"}).encode()

Attack = Callable[[Address, Upstream], Awaitable[None]]


def attacked(folder: Path, attack: Attack, toml: str = "", **parts: str) -> None:
    """Run an attack on a gateway with a budget `cap` of $5."""

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url:
            document = toml or two_backends(url, url, more=CAP, **parts)
            async with listening(document.replace("UPSTREAM", url), folder) as (_, address):
                await attack(address, upstream)

    run(main)


def limit_of(reply: Reply) -> float:
    assert reply.status == 200, reply.body
    return float(reply.document["limit_usd"])


# -- spellings of paths

SPELLINGS = [
    *(
        "/%6detrics",
        "/METRICS",
        "//metrics",
        "/./metrics",
        "/metrics/",
        "/metrics;x",
        "/a/../metrics",
    ),
    *(
        "/metrics%20",
        "/metrics%00",
        "/%2Fmetrics",
        "\\metrics",
        "/metrics%3Fx",
        "/livez/",
        "/%6civez",
    ),
    *("/%5Ftollway/budgets", "/_TOLLWAY/budgets", "//_tollway/budgets", "/./_tollway/budgets"),
    *("/x/../_tollway/budgets", "/_tollway%2Fbudgets", "/_tollway;x/budgets", "/_tollway"),
    *("/_tollway/", "/_tollway//budgets", "/_tollway/./budgets", "/_tollway/budgets/"),
    *("/_tollway/budgets;x", "/_tollway/Budgets", "/_tollway/%62udgets", "/_tollway/x/../budgets"),
    *("/_tollway/dashboard/", "/_tollway/openapi%2Ejson", "/readyz%0a", "/_tollway/budgets%2Fcap"),
]


def test_a_control_path_has_one_spelling(tmp_path: Path) -> None:
    """Every other one is unknown: not served, not redirected, and sent to no backend."""

    async def attack(address: Address, upstream: Upstream) -> None:
        for target in SPELLINGS:
            reply = await ask(address, target, headers=AS_ADMIN)
            assert reply.status in (400, 404), (target, reply.head)
            assert b"location:" not in reply.head.lower(), target
        for target in (
            "/metrics",
            "/livez",
            "/healthz",
            "/readyz",
            "/metrics?x",
            "/_tollway/budgets",
        ):
            assert (await ask(address, target, headers=AS_ADMIN)).status == 200, target
        assert upstream.calls == 0

    attacked(tmp_path, attack, server=KEYED)


def test_an_absolute_target_is_judged_by_its_own_host(tmp_path: Path) -> None:
    async def attack(address: Address, upstream: Upstream) -> None:
        here = f"{address[0]}:{address[1]}"
        assert (await ask(address, f"http://{here}/_tollway/budgets")).status == 200
        assert (await ask(address, f"http://{here}/metrics")).status == 200
        assert (await ask(address, f"http://{here}/%6detrics")).status == 404
        for host in ("evil.example", f"evil.example:{address[1]}"):
            # Its Host field is ours, but the host of the target replaces it.
            assert (await ask(address, f"http://{host}/_tollway/budgets")).status == 403
            assert (
                await ask(address, f"http://{here}/_tollway/budgets", b"", {"Host": host})
            ).status == 200

    attacked(tmp_path, attack)


def test_names_in_paths_are_decoded_once(tmp_path: Path) -> None:
    async def attack(address: Address, upstream: Upstream) -> None:
        assert limit_of(await ask(address, "/_tollway/budgets/c%61p")) == 5
        for name in ("c%2561p", "..%2Fcap", "cap%2F", "cap%00", "%E2%80%AEpac"):
            reply = await ask(address, f"/_tollway/budgets/{name}")
            assert reply.status == 404, name
            assert "limit_usd" not in reply.document

    attacked(tmp_path, attack)


# -- without a key

FORWARDED = [
    *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"),
    *("X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Anything", "X-Real-IP", "X-Client-IP"),
    *("X-Cluster-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP"),
    *("X-Original-Host", "X-Envoy-External-Address"),
]
FOREIGN: list[dict[str, str]] = [
    *({name: "127.0.0.1"} for name in FORWARDED),
    {"Host": "evil.example"},
    {"Host": "evil.example:PORT"},
    {"Host": "localhost.evil.example:PORT"},
    {"Host": "127.0.0.1.evil.example:PORT"},
    {"Host": "127.0.0.1"},
    {"Host": "127.0.0.1:1"},
    {"Host": "0.0.0.0:PORT"},
    {"Host": "[::]:PORT"},
    {"Host": "127.1:PORT"},
    {"Host": "2130706433:PORT"},
    {"Host": "localhost.:PORT"},
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost:PORT"},  # Host is 127.0.0.1: another origin
    {"Origin": "http://127.0.0.1:PORT.evil.example"},
    {"Origin": "http://127.0.0.1:PORT@evil.example"},
    {"Origin": "file://"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
LOCAL: list[dict[str, str]] = [
    {},
    {"Host": "localhost:PORT"},
    {"Host": "LOCALHOST:PORT"},
    {"Host": "app.localhost:PORT"},
    {"Host": "[::1]:PORT"},
    {"Origin": "http://127.0.0.1:PORT", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Authorization": "Bearer of something else"},
]


def at(headers: dict[str, str], address: Address) -> dict[str, str]:
    return {name: text.replace("PORT", str(address[1])) for name, text in headers.items()}


def test_without_a_key_only_this_machines_programs_are_operators(tmp_path: Path) -> None:
    async def attack(address: Address, upstream: Upstream) -> None:
        for foreign in FOREIGN:
            headers = at(foreign, address)
            for target in ("/_tollway/budgets", "/_tollway/overview", "/_tollway/events"):
                reply = await ask(address, target, headers=headers)
                assert reply.status == 403, (foreign, reply.body)
            reply = await ask(address, "/_tollway/budgets/cap", CHANGE, JSON | headers)
            assert reply.status == 403, foreign
            reply = await ask(address, "/_tollway/reload", headers=headers, method="POST")
            assert reply.status == 403, foreign
            for health in ("/livez", "/readyz", "/healthz", "/metrics"):  # not control calls
                assert (await ask(address, health, headers=headers)).status == 200
        assert limit_of(await ask(address, "/_tollway/budgets/cap")) == 5
        for local in LOCAL:
            assert (
                await ask(address, "/_tollway/budgets", headers=at(local, address))
            ).status == 200

    attacked(tmp_path, attack)


def test_http_1_0_is_a_proxys(tmp_path: Path) -> None:
    async def attack(address: Address, upstream: Upstream) -> None:
        assert (await ask(address, "/_tollway/budgets", version="1.0")).status == 403
        assert (await ask(address, "/livez", version="1.0")).status == 200

    attacked(tmp_path, attack)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_without_a_key_a_body_must_be_json(tmp_path: Path, kind: str) -> None:
    """Pages may send these types to any address without asking; and old browsers send no Origin."""

    async def attack(address: Address, upstream: Upstream) -> None:
        for headers in ({"Content-Type": kind}, {"Content-Type": f"{kind}; a=application/json"}):
            reply = await ask(address, "/_tollway/budgets/cap", CHANGE, headers)
            assert reply.status == 403
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHANGE), CHANGE)
        head = f"POST /_tollway/budgets/cap HTTP/1.1\r\nHost: 127.0.0.1:{address[1]}\r\n"
        head += f"Transfer-Encoding: chunked\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
        assert (await send(address, head.encode() + chunks)).status == 403
        assert limit_of(await ask(address, "/_tollway/budgets/cap")) == 5
        reply = await ask(address, "/_tollway/budgets/cap", CHANGE, JSON)
        assert limit_of(reply) == 999

    attacked(tmp_path, attack)


def test_with_the_key_the_control_plane_is_open_from_anywhere(tmp_path: Path) -> None:
    async def attack(address: Address, upstream: Upstream) -> None:
        for foreign in FOREIGN:
            headers = at(foreign, address)
            assert (await ask(address, "/_tollway/budgets", headers=headers)).status == 401
            assert (
                await ask(address, "/_tollway/budgets", headers=headers | AS_ADMIN)
            ).status == 200
        for near in (ADMIN[:-1], f"{ADMIN} ", f"{ADMIN}0", ADMIN.lower(), "Bearer", ""):
            reply = await ask(
                address, "/_tollway/budgets", headers={"Authorization": f"Bearer {near}"}
            )
            assert reply.status == (200 if near.strip() == ADMIN else 401), near
        both = {"Authorization": f"Bearer {ADMIN}, Bearer {ADMIN}"}
        assert (await ask(address, "/_tollway/budgets", headers=both)).status == 401
        for place in (f"?key={ADMIN}", f"?token={ADMIN}", f"?access_token={ADMIN}"):
            assert (await ask(address, f"/_tollway/budgets{place}")).status == 401
        cookie = {"Cookie": f"key={ADMIN}; token={ADMIN}"}
        assert (await ask(address, "/_tollway/budgets", headers=cookie)).status == 401

    attacked(tmp_path, attack, server=KEYED)


def test_a_page_gives_no_feedback_in_a_visitors_name(tmp_path: Path) -> None:
    async def attack(address: Address, upstream: Upstream) -> None:
        told = json.dumps({"decision": "1.2.abcd", "quality": 0.0}).encode()
        for foreign in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            text = {**foreign, "Content-Type": "text/plain"}
            assert (await ask(address, "/_tollway/feedback", told, text)).status == 403
        # A client without a key and elsewhere may label its own requests of an open gateway.
        elsewhere = {"X-Forwarded-For": "203.0.113.7", **JSON}
        assert (await ask(address, "/_tollway/feedback", told, elsewhere)).status == 404

    attacked(tmp_path, attack)


def test_an_nginx_with_default_settings_makes_nobody_an_operator(tmp_path: Path) -> None:
    config = """
daemon off; pid {folder}/pid; error_log /dev/null; events {{}}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; proxy_http_version 1.0;
    location / {{ proxy_pass http://127.0.0.1:{to}; }} }}
}}"""

    async def attack(address: Address, upstream: Upstream) -> None:
        port = free_port()
        text = config.format(folder=tmp_path, port=port, to=address[1])
        with nginx(text, tmp_path, port):
            assert (await ask(("127.0.0.1", port), "/livez")).status == 200
            assert (await ask(("127.0.0.1", port), "/_tollway/budgets")).status == 403

    attacked(tmp_path, attack)


# -- in an operator's browser


async def browsed(url: str, *options: str) -> str:
    """Open a page in a browser that has run its scripts; return its document."""
    chromium = shutil.which("chromium")
    assert chromium, "install it: apt-get install chromium"
    process = await asyncio.create_subprocess_exec(
        *(chromium, "--headless=new", "--no-sandbox", "--disable-gpu"),
        *("--virtual-time-budget=5000", "--dump-dom", *options, url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        return (await process.communicate())[0].decode()


PAGE = """<!doctype html><title>a page</title><p id="end">sent</p><script>
const to = "http://HOST";
const body = JSON.stringify({action: "limit", limit_usd: "999", who: "x", why: "y"});
for (const path of ["/_tollway/budgets/cap", "/_tollway/reload", "/_tollway/feedback"]) {
  fetch(to + path, {method: "POST", mode: "no-cors", body});
  fetch(to + path, {method: "POST", mode: "no-cors", body: new Blob([body], {type: "text/plain"})});
  navigator.sendBeacon(to + path, body);
  const headers = {"content-type": "application/json"};
  fetch(to + path, {method: "POST", body, headers}).catch(() => 0);
}
</script>
<form method="post" enctype="text/plain" action="http://HOST/_tollway/budgets/cap" target="f">
<input name='{"action":"limit","limit_usd":"999","who":"x","why":"' value='"}'></form>
<iframe name="f"></iframe><script>document.forms[0].submit()</script>"""


class Page:
    """An attacker's web server; it counts its visitors."""

    def __init__(self) -> None:
        self.visits = 0
        self.target = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.visits += 1
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        body = PAGE.replace("HOST", self.target).encode()
        await send({"type": "http.response.body", "body": body})


def test_a_web_page_in_an_operators_browser_changes_nothing(tmp_path: Path) -> None:
    """Cross-site request forgery, from a page elsewhere and from one of this machine."""
    page = Page()

    async def attack(address: Address, upstream: Upstream) -> None:
        page.target = f"127.0.0.1:{address[1]}"
        async with serving(page) as url:
            port = url.rpartition(":")[2]
            elsewhere = "--host-resolver-rules=MAP evil.example 127.0.0.1"
            assert "sent" in await browsed(f"http://evil.example:{port}/", elsewhere)
            assert "sent" in await browsed(url)
        assert page.visits >= 2
        assert limit_of(await ask(address, "/_tollway/budgets/cap")) == 5
        counts = (await ask(address, "/metrics")).body
        assert not re.search(rb"config_reloads_total\{[^}]*\} [1-9]", counts)

    attacked(tmp_path, attack)


def test_a_name_that_is_rebound_to_this_machine_reads_nothing(tmp_path: Path) -> None:
    """DNS rebinding: to the browser, the gateway is then the attacker's own site."""

    async def attack(address: Address, upstream: Upstream) -> None:
        rebound = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        site = f"http://evil.example:{address[1]}"
        shown = await browsed(f"{site}/_tollway/budgets", rebound)
        assert "Host field does not name this machine" in shown
        assert "limit_usd" not in shown
        shown = await browsed(f"{site}/_tollway/dashboard", rebound)
        assert 'data-value="' not in shown
        shown = await browsed(f"http://127.0.0.1:{address[1]}/_tollway/budgets")
        assert "limit_usd" in shown

    attacked(tmp_path, attack)


# -- the key that a gateway makes


def serve(folder: Path, url: str, server: str = "", *options: str) -> tuple[Process, int]:
    port = free_port()
    toml = two_backends(
        url, url, server=f'listen = "127.0.0.1:{port}"\n{server}', more=CAP + TENANT
    )
    (folder / "tollway.toml").write_text(toml.replace("memory://", f"sqlite:///{folder}/l.db"))
    return Process(folder / "tollway.toml", *options), port


def test_a_gateway_without_an_admin_key_makes_one_and_prints_it_once(tmp_path: Path) -> None:
    """Two workers and restarts use the same; the command line finds it; nobody else can read it."""

    async def main() -> None:
        log = tmp_path / "log"
        async with serving(Upstream()) as url:
            for start in range(2):
                process, port = serve(tmp_path, url, "workers = 2\nallow_anonymous = true")
                try:
                    await until(
                        lambda starts=start + 1: log.read_text().count("is listening") == starts
                    )
                    path = tmp_path / ".tollway/state" / admin_key.NAME
                    key = path.read_text().strip()
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600
                    assert log.read_text().count(key) == 1, "printed at the first start only"
                    if not start:
                        assert f"/_tollway/dashboard#key={key}" in log.read_text()
                    address = ("127.0.0.1", port)
                    foreign = {"X-Forwarded-For": "203.0.113.7"}
                    theirs = foreign | {"Authorization": f"Bearer {key}"}
                    for _ in range(8):  # whichever worker takes it
                        assert (
                            await ask(address, "/_tollway/budgets", headers=foreign)
                        ).status == 403
                        assert (
                            await ask(address, "/_tollway/budgets", headers=theirs)
                        ).status == 200
                finally:
                    process.stop()

    run(main)


def test_the_command_line_uses_the_key_that_the_gateway_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as url:
            process, port = serve(tmp_path, url)
            try:
                await process.ready(f"http://127.0.0.1:{port}")
                address = ("127.0.0.1", port)
                # Not open to callers without a key: not even to this machine's.
                assert (await ask(address, "/_tollway/budgets")).status == 401
                ask_for = ("budgets", "list", "--url", f"http://127.0.0.1:{port}")
                assert await command(tmp_path, *ask_for) == 0
                (tmp_path / ".tollway/state" / admin_key.NAME).chmod(0o644)
                assert await command(tmp_path, *ask_for) == 1
            finally:
                process.stop()

    run(main)


async def command(folder: Path, *arguments: str) -> int:
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tollway", *arguments),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        return await process.wait()


def test_the_dashboard_takes_the_key_from_the_printed_address(tmp_path: Path) -> None:
    """From the fragment, which is sent to nobody, and which the page removes from its address."""
    seen: list[bytes] = []

    async def main() -> None:
        async with serving(Upstream()) as url:
            toml = two_backends(url, url, server=KEYED, more=CAP)
            async with listening(toml, tmp_path) as (gateway, address):
                app = gateway.app
                control = app._control

                async def noted(scope: Any, receive: Any, send: Any) -> None:
                    seen.append(scope["raw_path"] + b"?" + scope["query_string"])
                    seen.extend(value for name, value in scope["headers"] if name == b"referer")
                    await control(scope, receive, send)

                app._control = noted
                page = f"http://127.0.0.1:{address[1]}/_tollway/dashboard#key={ADMIN}"
                for _ in range(5):  # Chromium's virtual time may pass before the figures come
                    shown = await browsed(page)
                    if 'data-value="' in shown:
                        break
                assert 'data-value="' in shown
                assert 'id="login" hidden' in shown
                assert ADMIN not in shown

    run(main)
    assert any(one.startswith(b"/_tollway/live?") for one in seen)
    assert not any(ADMIN.encode() in one for one in seen)
