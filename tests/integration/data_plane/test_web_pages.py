"""Web pages of other origins, and compressed replies, on a whole gateway."""

from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.harness import run, running, serving

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true
admin_key = "an-admin-key-of-a-test"
gzip_reply_bytes = 2000
{cors}

[ledger]
url = "memory://"

[[backends]]
name = "up"
kind = "api"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[routes]]
name = "r"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["up"]
"""
CORS = '[server.cors]\norigins = ["https://app.example"]'
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
PAGE = {"origin": "https://app.example"}
PREFLIGHT = {
    **PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


async def model(scope: Any, receive: Any, send: Any) -> None:
    """Answers at length, or in a stream, and would open itself to all pages."""
    document = orjson.loads((await receive())["body"])
    stream = document.get("stream", False)
    kind = b"text/event-stream" if stream else b"application/json"
    fields = [(b"content-type", kind), (b"access-control-allow-origin", b"*")]
    choice = {"index": 0, "finish_reason": "stop"}
    if stream:
        chunk = {"choices": [{**choice, "delta": {"content": "x" * 5000}}]}
        body = b"data: %b\n\ndata: [DONE]\n\n" % orjson.dumps(chunk)
    else:
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        choices = [{**choice, "message": {"content": "x" * 5000}}]
        body = orjson.dumps({"choices": choices, "usage": usage})
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def opened(reply: httpx.Response) -> list[str]:
    return reply.headers.get_list("access-control-allow-origin")


@pytest.mark.parametrize("more", ["", '\n[log]\nrequests = "all"\n'])
def test_every_reply_of_a_route_may_be_read_and_nothing_of_the_control_plane(
    tmp_path: Path, more: str
) -> None:
    async def main() -> None:
        async with (
            serving(model) as url,
            running(CONFIG.format(url=url, cors=CORS) + more, tmp_path) as tollway,
        ):
            path, client = f"{tollway.url}/v1/chat/completions", tollway.client
            for document, status in (
                (ASK, 200),
                ({**ASK, "stream": True}, 200),
                ({"model": "m"}, 400),
            ):
                reply = await client.post(path, json=document, headers=PAGE)
                assert (reply.status_code, opened(reply)) == (status, [PAGE["origin"]])
                assert "x-tollway-reason" in reply.headers["access-control-expose-headers"]
                assert "origin" in reply.headers.get_list("vary")
            other = {"origin": "https://other.example"}
            for fields in (other, {}):
                assert not opened(await client.post(path, json=ASK, headers=fields))
            asked = await client.options(path, headers=PREFLIGHT)
            assert (asked.status_code, opened(asked)) == (204, [PAGE["origin"]])
            names = asked.headers["access-control-allow-headers"]
            assert names == "authorization, content-type"
            assert not opened(await client.options(path, headers={**PREFLIGHT, **other}))
            for control in ("/_tollway/budgets", "/metrics", "/livez"):
                for call in (client.get, client.options):
                    assert not opened(await call(tollway.url + control, headers=PREFLIGHT))

    run(main)


def test_without_the_setting_no_page_may_read_anything(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(model) as url,
            running(CONFIG.format(url=url, cors=""), tmp_path) as tollway,
        ):
            path, client = f"{tollway.url}/v1/chat/completions", tollway.client
            assert not opened(await client.post(path, json=ASK, headers=PAGE))
            asked = await client.options(path, headers=PREFLIGHT)
            assert (asked.status_code, opened(asked)) == (204, [])

    run(main)


def test_large_replies_of_both_planes_are_compressed(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(model) as url,
            running(CONFIG.format(url=url, cors=""), tmp_path) as tollway,
        ):
            path, client = f"{tollway.url}/v1/chat/completions", tollway.client
            for accepts, coding in (("gzip", "gzip"), ("identity", None)):
                fields = {"accept-encoding": accepts}
                reply = await client.post(path, json=ASK, headers=fields)
                assert reply.headers.get("content-encoding") == coding
                assert reply.json()["choices"][0]["message"]["content"] == "x" * 5000
                stream = await client.post(path, json={**ASK, "stream": True}, headers=fields)
                assert "content-encoding" not in stream.headers
                metrics = await client.get(tollway.url + "/metrics", headers=fields)
                assert metrics.headers.get("content-encoding") == coding

    run(main)
