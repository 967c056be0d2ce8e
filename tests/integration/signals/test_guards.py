"""Guards through the whole gateway: before a backend is chosen, they tag, rewrite or refuse."""

import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.chat_servers import ChatServer, asking, chat_backend, chat_route
from tests.support.configs import budget
from tests.support.harness import Running, run, running, serving
from tests.support.reloading import File

pytestmark = pytest.mark.integration

URL = "/v1/chat/completions"
JSON = "application/json"


async def replying(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything with an object."""
    while (await receive()).get("more_body"):
        pass
    head = [(b"content-type", JSON.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b'{"id": "file-1", "object": "file"}'})


def patient(guards: str) -> str:
    """Return guards that wait long enough on a busy machine."""
    return re.sub(r' kind = "(regex|command|service)"', r"\g<0>, timeout_s = 20", guards)


async def sent(tollway: Running, *messages: str, **more: Any) -> httpx.Response:
    """Send a chat request."""
    return await tollway.client.post(tollway.url + URL, json=asking(*messages, **more))


def test_guards_rewrite_tag_and_refuse_in_their_order(tmp_path: Path) -> None:
    guards = r"""guards = [
  { name = "cards", kind = "regex", pattern = "\\d{16}", act = "rewrite" },
  { name = "pii", kind = "regex", pattern = "(?i)born", act = "tag", tags = { pii = "yes" } },
  { name = "length", kind = "length", most = 100 },
]"""

    async def main() -> None:
        server = ChatServer(lambda prompt: "ok")
        async with serving(server) as url:
            toml = chat_route(["one"], patient(guards)) + chat_backend("one", url)
            toml += budget("pii", "1.0", more="").replace(
                "scope = {  }", 'scope = { tags = { pii = "yes" } }'
            )
            async with running(toml, tmp_path) as tollway:
                plain = await sent(tollway, "hi")
                secret = await sent(tollway, "Born in 1990, card 1234567890123456", user="u")
                long = await sent(tollway, "x" * 101)
                attempts = tollway.journalled("attempt")
                status = tollway.gateway.reservations.status()[0]
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
        assert plain.status_code == secret.status_code == 200
        assert server.prompts == ["hi", "Born in 1990, card [removed]"]
        assert [row["tags"] for row in attempts] == [{}, {"pii": "yes"}]
        assert status.spent_nano == attempts[1]["cost_nano"]
        assert long.status_code == 422
        assert long.json()["error"]["message"].startswith("guard 'length' refused the request")
        assert long.headers["x-should-retry"] == "false"
        for name, act in (("cards", "rewrite"), ("pii", "tag"), ("length", "refuse")):
            line = f'tollway_guarded_total{{act="{act}",guard="{name}",route="chat"}} 1.0'
            assert line in metrics
        assert 'outcome="guard_refused"' in metrics

    run(main)


@pytest.mark.parametrize(("on_failure", "status"), [("refuse", 422), ("allow", 200)])
def test_a_request_that_cannot_be_checked_is_refused_or_goes_on(
    tmp_path: Path, on_failure: str, status: int
) -> None:
    program = tmp_path / "guard.py"
    program.write_text("import sys\nfor line in sys.stdin:\n    print('nonsense', flush=True)\n")
    guards = f"""guards = [{{ name = "own", kind = "command", on_failure = "{on_failure}",
  command = ["{sys.executable}", "{program}"] }}]""".replace("\n", "")

    async def main() -> None:
        server = ChatServer(lambda prompt: "ok")
        async with serving(server) as url:
            toml = chat_route(["one"], patient(guards)) + chat_backend("one", url)
            async with running(toml, tmp_path) as tollway:
                assert (await sent(tollway, "hi")).status_code == status
        assert len(server.prompts) == (status == 200)

    run(main)


def test_a_service_rewrites_tags_and_refuses(tmp_path: Path) -> None:
    async def service(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        reply = b'{"act": "refuse", "why": "off topic"}'
        if b"weather" in body:
            reply = b'{"act": "rewrite", "tags": {"topic": "weather"}, "request": {"model": "any", '
            reply += b'"messages": [{"role": "user", "content": "the weather"}]}}'
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": reply})

    async def main() -> None:
        server = ChatServer(lambda prompt: "ok")
        async with serving(server) as url, serving(service) as guard:
            guards = f'guards = [{{ name = "s", kind = "service", url = "{guard}/" }}]'
            toml = chat_route(["one"], patient(guards)) + chat_backend("one", url)
            async with running(toml, tmp_path) as tollway:
                good = await sent(tollway, "weather?")
                bad = await sent(tollway, "politics?")
                (attempt,) = tollway.journalled("attempt")
        assert good.status_code == 200
        assert server.prompts == ["the weather"]
        assert attempt["tags"] == {"topic": "weather"}
        assert bad.status_code == 422
        assert "off topic" in bad.text

    run(main)


def test_a_reload_puts_guards_into_force_at_once(tmp_path: Path) -> None:
    strict = 'guards = [{ name = "cards", kind = "regex", pattern = "card" }]'
    loose = strict.replace('"card"', '"credit"')

    async def main() -> None:
        server = ChatServer(lambda prompt: "ok")
        async with serving(server) as url:

            def toml(guards: str) -> str:
                return chat_route(["one"], patient(guards)) + chat_backend("one", url)

            async with running(toml(""), tmp_path) as tollway:
                file = File(tollway, tmp_path)
                assert (await sent(tollway, "a card")).status_code == 200
                for guards, status in ((strict, 422), (loose, 200), (strict, 422), ("", 200)):
                    assert (await file.reload(toml(guards))).status_code == 200
                    assert (await sent(tollway, "a card")).status_code == status

    run(main)


@pytest.mark.parametrize(("on_failure", "status"), [("refuse", 422), ("allow", 200)])
def test_a_body_of_which_guards_see_only_a_part_cannot_be_checked(
    tmp_path: Path, on_failure: str, status: int
) -> None:
    guards = f"""guards = [
  {{ name = "cards", kind = "regex", pattern = "card", on_failure = "{on_failure}" }},
]"""

    async def main() -> None:
        async with serving(replying) as url:
            toml = chat_route(["one"], patient(guards)) + chat_backend("one", url)
            toml = toml.replace('protocol = "openai"', 'protocol = "http"')
            toml = toml.replace('model = "one-model"', "")
            toml = re.sub("price = .*", "price = { per_request_usd = 0.001 }", toml)
            async with running(toml, tmp_path) as tollway:
                for body, kind in ((b"a card", "text/csv"), (b'{"q": "card', JSON)):
                    post = tollway.client.post(
                        tollway.url + URL, content=body, headers={"content-type": kind}
                    )
                    assert (await post).status_code == status
                seen = tollway.client.post(tollway.url + URL, json={"q": "card"})
                assert (await seen).status_code == 422
                assert (await tollway.client.get(tollway.url + URL)).status_code == 200
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
        assert 'tollway_guarded_total{act="failed",guard="cards",route="chat"} 2.0' in metrics

    run(main)


def test_long_texts_in_any_script_are_checked(tmp_path: Path) -> None:
    guards = """guards = [
  { name = "cards", kind = "regex", pattern = "card", on_failure = "allow" },
]"""

    async def main() -> None:
        server = ChatServer(lambda prompt: "ok")
        async with serving(server) as url:
            toml = chat_route(["one"], patient(guards)) + chat_backend("one", url)
            async with running(toml, tmp_path) as tollway:
                assert (await sent(tollway, "文" * 300_000 + "card")).status_code == 422
                assert (await sent(tollway, "文" * 300_000)).status_code == 200

    run(main)


def test_free_calls_that_send_a_body_are_guarded(tmp_path: Path) -> None:
    guards = 'guards = [{ name = "cards", kind = "regex", pattern = "card" }]'
    seen: list[str] = []

    async def api(scope: Any, receive: Any, send: Any) -> None:
        seen.append(f"{scope['method']} {scope['path']}")
        await replying(scope, receive, send)

    async def main() -> None:
        async with serving(api) as url:
            toml = chat_route(["one"], patient(guards)).replace(URL, "/v1/*")
            toml += chat_backend("one", url)
            async with running(toml, tmp_path) as tollway:

                async def status(path: str, **body: Any) -> int:
                    post = tollway.client.post(f"{tollway.url}/v1/{path}", **body)
                    code: int = (await post).status_code
                    return code

                counted = "responses/input_tokens"
                assert await status(counted, json={"model": "m", "input": "a card"}) == 422
                assert await status(counted, json={"model": "m", "input": "hi"}) == 200
                items = {"items": [{"type": "message", "role": "user", "content": "a card"}]}
                assert await status("conversations/conv_1/items", json=items) == 422
                upload = {"file": ("a.jsonl", b'{"a": "card"}')}
                assert await status("files", files=upload, data={"purpose": "batch"}) == 422
                read = await tollway.client.get(f"{tollway.url}/v1/files/file-1")
                assert read.status_code == 200
        assert seen == ["POST /v1/responses/input_tokens", "GET /v1/files/file-1"]

    run(main)
