"""Servers that speak HTTP of any kind, and TF Serving's, behind a whole gateway."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.harness import Upstream, run, running, serving

pytestmark = pytest.mark.integration

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


class Server:
    """Replies by path as frameworks do; `gate` holds the second part of a stream."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, bytes]] = []
        self.gate = asyncio.Event()
        self.large = b"\x00" * (1 << 20)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["raw_path"]
        self.seen.append((scope["method"], path, body))
        status, kind, parts = self.reply(path)
        headers = [(b"content-type", kind), (b"x-label", b"cat")]
        if len(parts) == 1:
            headers.append((b"content-length", b"%d" % len(parts[0])))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for at, part in enumerate(parts):
            if at:
                await self.gate.wait()
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def reply(self, path: bytes) -> tuple[int, bytes, list[bytes]]:
        replies = {
            b"/image": (200, b"image/png", [PNG]),
            b"/text": (200, b"text/plain", [b"setosa"]),
            b"/events": (200, b"text/event-stream", [b"data: 1\n\n", b"data: 2\n\n"]),
            b"/tokens": (200, b"text/plain; charset=utf-8", [b"one ", b"two"]),
            b"/large": (200, b"application/octet-stream", [self.large]),
            b"/broken": (500, b"text/plain", [b"CUDA out of memory on device 3"]),
            b"/health": (200, b"application/json", [b'{"status": "ok"}']),
        }
        return replies.get(path, (200, b"application/json", [b'{"label": 1}']))


def configuration(url: str, route: str = "", backend: str = "") -> str:
    return f"""
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "one"
kind = "cpu"
protocol = "http"
url = "{url}"
price = {{ per_request_usd = 0.001 }}
{backend}
[[routes]]
name = "any"
path = "/*"
protocol = "http"
backends = ["one"]
{route}
"""


def test_any_method_body_and_reply_passes_and_is_charged(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        server.gate.set()
        async with serving(server) as url, running(configuration(url), tmp_path) as tollway:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                reply = await tollway.client.request(
                    method, tollway.url + "/image", content=b"\xff\xd8"
                )
                assert (reply.status_code, reply.content) == (200, PNG)
                assert reply.headers["x-tollway-cost-usd"] == "0.001000000"
            for path, body in (
                ("/text", b"setosa"),
                ("/events", b"data: 1\n\ndata: 2\n\n"),
                ("/tokens", b"one two"),
                ("/large", server.large),
            ):
                reply = await tollway.client.post(tollway.url + path, content=b"a,b\n")
                assert (reply.status_code, reply.content) == (200, body)
            rows = tollway.journalled("attempt") + tollway.journalled("settlement")
        assert sum(row["cost_nano"] for row in rows) == 9_000_000

    run(main)


def test_a_stream_arrives_as_it_is_sent(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        async with serving(server) as url, running(configuration(url), tmp_path) as tollway:
            for path in ("/events", "/tokens"):
                server.gate.clear()
                async with tollway.client.stream("POST", tollway.url + path) as reply:
                    parts = reply.aiter_raw()
                    first = await anext(parts)
                    assert not server.gate.is_set()
                    server.gate.set()
                    rest = b"".join([part async for part in parts])
                assert first + rest == b"".join(server.reply(path.encode())[2])

    run(main)


def test_free_paths_cost_nothing_and_are_no_decisions(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        async with serving(server) as url, running(configuration(url), tmp_path) as tollway:
            free = await tollway.client.get(tollway.url + "/health")
            head = await tollway.client.head(tollway.url + "/openapi.json")
            paid = await tollway.client.post(tollway.url + "/health")
            other = await tollway.client.get(tollway.url + "/items")
            refused = await tollway.client.post(tollway.url + "/v2/repository/models/m/load")
            rows = tollway.journalled("attempt")
        assert (free.json(), free.headers["x-tollway-reason"]) == ({"status": "ok"}, "free")
        assert free.headers["x-tollway-cost-usd"] == head.headers["x-tollway-cost-usd"]
        assert float(free.headers["x-tollway-cost-usd"]) == 0
        assert "x-tollway-decision" not in free.headers
        assert paid.headers["x-tollway-cost-usd"] == other.headers["x-tollway-cost-usd"]
        assert (refused.status_code, len(rows)) == (403, 2)
        assert "administers a model server" in refused.json()["error"]
        assert len(server.seen) == 4

    run(main)


def test_a_reply_to_head_has_the_length_that_the_server_says_or_none(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        server.gate.set()
        async with serving(server) as url, running(configuration(url), tmp_path) as tollway:
            free = await tollway.client.head(tollway.url + "/health")
            paid = await tollway.client.head(tollway.url + "/text")
            without = await tollway.client.head(tollway.url + "/events")
        assert (free.headers["content-length"], free.content) == ("16", b"")
        assert (paid.headers["content-length"], paid.content) == ("6", b"")
        assert "content-length" not in without.headers

    run(main)


def test_the_text_of_a_backends_5xx_reaches_the_client(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        async with serving(server) as url, running(configuration(url), tmp_path) as tollway:
            reply = await tollway.client.post(tollway.url + "/broken", json={})
        assert (reply.status_code, reply.text) == (500, "CUDA out of memory on device 3")

    run(main)


def test_an_answer_in_a_header_field_can_be_scored(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        server.gate.set()
        route = 'score = { exact = "$headers.x-label" }'
        async with serving(server) as url, running(configuration(url, route), tmp_path) as tollway:
            for path in ("/image", "/events", "/large"):
                reply = await tollway.client.post(tollway.url + path, content=b"x")
                decision = reply.headers["x-tollway-decision"]
                told = await tollway.feedback({"decision": decision, "label": "cat"})
                assert told.json()["result"] == "learned", (path, told.json())
            rows = tollway.journalled("feedback")
        assert [row["quality"] for row in rows] == [1.0, 1.0, 1.0]

    run(main)


def test_a_body_that_a_schema_cannot_check_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        route = 'request_schema = [{ at = "x", type = "number", optional = true }]'
        async with serving(server) as url, running(configuration(url, route), tmp_path) as tollway:
            for content in (b"\xff", b"{"):
                reply = await tollway.client.post(tollway.url + "/x", content=content)
                assert reply.status_code == 422
            ok = await tollway.client.post(tollway.url + "/x", json={})
        assert (ok.status_code, len(server.seen)) == (200, 1)

    run(main)


def test_tf_serving_is_renamed_and_its_status_free(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream(body=b'{"name":"small","ready":true,"predictions":[3]}')
        async with serving(upstream) as url:
            toml = configuration(url, backend='model = "small"')
            toml = toml.replace('"http"', '"tfserving"').replace(
                '"/*"', '"/v1/models/iris:predict"'
            )
            async with running(toml, tmp_path) as tollway:
                base = tollway.url + "/v1/models"
                call = await tollway.client.post(base + "/iris:predict", json={"instances": [1]})
                explained = await tollway.client.post(base + "/iris:explain", json={})
                status = await tollway.client.get(base + "/iris")
                listed = await tollway.get("/v1/models")
                alive = await tollway.get("/")
                unknown = await tollway.client.post(base + "/other:predict", json={})
        assert (call.status_code, explained.status_code, unknown.status_code) == (200, 200, 404)
        assert orjson.loads(status.content)["name"] == "iris"
        assert status.headers["x-tollway-reason"] == "free"
        assert (listed, alive) == ({"models": ["iris"]}, {"status": "alive"})
        assert [path for _, path, *_ in upstream.requests] == [
            b"/v1/models/small:predict",
            b"/v1/models/small:explain",
            b"/v1/models/small",
        ]

    run(main)


def test_oip_is_served_in_full_under_the_name_that_clients_know(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream(
            body=b'{"model_name":"small","name":"small","model_stats":[{"name":"small"}],'
            b'"outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[7]}]}'
        )
        async with serving(upstream) as url:
            toml = configuration(url, backend='model = "small"')
            toml = toml.replace('"http"', '"oip"').replace('"/*"', '"/ns/v2/models/iris/infer"')
            async with running(toml, tmp_path) as tollway:
                base = tollway.url + "/ns/v2"
                call = await tollway.client.post(
                    f"{base}/models/iris/infer",
                    json={"inputs": [{"name": "x", "shape": [-1], "datatype": "FP32", "data": 5}]},
                )
                said = [
                    (await tollway.client.get(f"{base}{path}")).json()
                    for path in ("/models/iris/config", "/models/iris/stats", "/models/stats")
                ]
                index = (await tollway.client.post(f"{base}/repository/index")).json()
                ready = (await tollway.client.get(f"{base}/models/iris/ready")).json()
                loaded = await tollway.client.post(f"{base}/repository/models/iris/load")
                shared = await tollway.client.post(
                    f"{base}/models/iris/infer",
                    json={"inputs": [{"name": "x", "parameters": {"shared_memory_region": "r"}}]},
                )
        assert call.json()["model_name"] == "iris"
        assert [one["model_stats"][0]["name"] for one in said] == ["iris"] * 3
        assert (index[0]["name"], index[0]["state"]) == ("iris", "READY")
        assert ready == {"name": "iris", "ready": True}
        assert (loaded.status_code, shared.status_code) == (403, 400)
        assert "shared memory is not supported" in shared.json()["error"]
        assert {path for _, path, *_ in upstream.requests} == {
            b"/v2/models/small/infer",
            b"/v2/models/small/config",
            b"/v2/models/small/stats",
        }

    run(main)
