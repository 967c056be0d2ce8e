"""Only the configuration decides where a request goes."""

import asyncio
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, inference, run, running, serving

pytestmark = pytest.mark.integration


def test_nothing_in_a_request_chooses_where_it_goes(tmp_path: Path) -> None:
    async def main() -> None:
        evil, good = Upstream(label=6), Upstream(label=1)
        async with serving(evil) as there, serving(good) as here:
            host = there.removeprefix("http://")
            async with running(two_backends(here, here), tmp_path) as tollway:
                path = "/v2/models/m/infer"
                for fields in (
                    {"host": host},
                    {"x-forwarded-host": host, "x-forwarded-proto": "http"},
                    {"forwarded": f"host={host}"},
                    {"x-original-url": there + path, "x-rewrite-url": there + path},
                    {"destination": there, "x-tollway-backend": there, "x-upstream": there},
                ):
                    reply = await tollway.client.post(
                        tollway.url + path, json=inference(), headers=fields
                    )
                    assert reply.status_code == 200
                document = {**inference(), "url": there, "api_base": there, "model": there}
                query = {"url": there, "api_base": there}
                reply = await tollway.client.post(tollway.url + path, json=document, params=query)
                assert reply.status_code == 200
                for line in (f"POST {there}{path} HTTP/1.1", f"POST //{host}{path} HTTP/1.1"):
                    await raw(tollway.url, line)
        assert evil.calls == 0
        assert good.calls >= 6

    run(main)


async def raw(url: str, line: str) -> bytes:
    """Send a request whose target a client library would not write, and return the reply."""
    name, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1]}]}'
    host = line.split("//")[1].partition("/")[0]
    head = f"{line}\r\nhost: {host}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    reply = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return reply
