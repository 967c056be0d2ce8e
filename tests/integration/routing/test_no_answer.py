"""A reply without an answer is forwarded unchanged and does not affect its backend's health."""

import math
import struct
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, inference, run, running, serving

pytestmark = pytest.mark.integration

CHAT = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
PATHS = {
    "openai": ("/v1/chat/completions", CHAT),
    "oip": ("/v2/models/m/infer", inference()),
    "plain": ("/predict", {"x": 1}),
    "mlflow": ("/invocations", {"inputs": [[1.0]]}),
}


def one_backend(protocol: str, url: str, route: str = "") -> str:
    path = PATHS[protocol][0]
    return f"""
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "up"
kind = "cpu"
protocol = "{protocol}"
url = "{url}"
price = {{ per_request_usd = 0.0001 }}
[[routes]]
name = "r"
path = "{path}"
protocol = "{protocol}"
backends = ["up"]
{route}
"""


def choice(message: Any, finish: str = "stop", **more: Any) -> bytes:
    return orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


def oip(*outputs: dict[str, Any]) -> bytes:
    return orjson.dumps({"model_name": "m", "outputs": list(outputs)})


MISSING = {
    "openai": {
        "empty at the limit": choice({"role": "assistant", "content": ""}, "length"),
        "reasoning only": choice({"content": None, "reasoning_content": "hmm"}, "length"),
        "unknown finish": choice({"content": ""}, "sensitive"),
        "no choices": b'{"choices": []}',
        "first choice empty": orjson.dumps(
            {"choices": [{"message": {"content": ""}}, {"message": {"content": "yes"}}]}
        ),
        "reasoning response": b'{"output": [{"type": "reasoning", "summary": []}]}',
        "refused in an error": b'{"error": {"message": "flagged", "code": 403}}',
        "not JSON": b"<html>hello</html>",
        "cut JSON": b'{"choices": [{"mess',
        "nothing": b"",
    },
    "oip": {
        "empty label": oip({"name": "label", "shape": [0], "datatype": "INT64", "data": []}),
        "no outputs": b'{"outputs": []}',
        "null": oip({"name": "label", "shape": [1], "datatype": "FP32", "data": [None]}),
        "NaN": b'{"outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[NaN]}]}',
        "misshapen": oip({"name": "y", "shape": [2], "datatype": "FP32", "data": [1.0]}),
        "error beside": b'{"error": "out of memory"}',
    },
    "plain": {
        "empty list": b"[]",
        "empty object": b"{}",
        "null": b"null",
        "NaN": b'{"label": NaN}',
        "-inf": b'{"label": -Infinity}',
        "text": b"plain words",
    },
    "mlflow": {
        "no rows": b'{"predictions": []}',
        "null": b'{"predictions": [null]}',
        "NaN": b'{"predictions": [NaN]}',
        "other member": b'{"outputs": [1]}',
    },
}
ANSWERED = {
    "openai": {
        "tool calls only": choice({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"),
        "audio": choice({"content": None, "audio": {"id": "a", "data": "AA", "transcript": "t"}}),
        "images": choice({"content": "", "images": [{"type": "image_url"}]}),
        "surrogate": b'{"choices": [{"message": {"content": "a\\ud800b"}}]}',
        "NaN beside": b'{"choices": [{"message": {"content": "a"}}], "score": NaN}',
        "BOM": b"\xef\xbb\xbf" + choice({"content": "a"}),
    },
    "oip": {
        "-inf beside": b'{"outputs":[{"name":"label","shape":[1],"datatype":"INT64","data":[3]},'
        b'{"name":"score","shape":[1],"datatype":"FP32","data":[-Infinity]}]}',
        "empty beside": oip(
            {"name": "label", "shape": [1], "datatype": "INT64", "data": [3]},
            {"name": "boxes", "shape": [0, 4], "datatype": "FP32", "data": []},
        ),
    },
    "plain": {
        "NaN beside": b'{"label": 1, "score": NaN}',
        "beyond 64 bits": b'{"label": 1, "n": 1e5, "id": 123456789012345678901234567890}',
        "large and NaN": b'{"label": 123456789012345678901234567890, "n": NaN}',
    },
    "mlflow": {"inf beside": b'{"predictions": [1], "loss": Infinity}'},
}


def cases(table: dict[str, dict[str, bytes]]) -> list[Any]:
    return [
        pytest.param(protocol, body, id=f"{protocol}: {name}")
        for protocol, bodies in table.items()
        for name, body in bodies.items()
    ]


async def ask(tollway: Running, protocol: str, **members: Any) -> Any:
    path, document = PATHS[protocol]
    return await tollway.client.post(tollway.url + path, json={**document, **members})


async def scraped(tollway: Running) -> str:
    return (await tollway.client.get(tollway.url + "/metrics")).text


@pytest.mark.parametrize(("protocol", "body"), cases(MISSING))
def test_a_reply_without_an_answer_is_passed_on_and_counted(
    tmp_path: Path, protocol: str, body: bytes
) -> None:
    async def main() -> None:
        upstream = Upstream(body=body)
        async with serving(upstream) as url, running(one_backend(protocol, url), tmp_path) as t:
            assert 'tollway_no_answer_total{backend="up"} 0.0' in await scraped(t)
            for _ in range(8):
                reply = await ask(t, protocol)
                assert (reply.status_code, reply.content) == (200, body)
            assert upstream.calls == 8
            metrics = await scraped(t)
            assert 'tollway_no_answer_total{backend="up"} 8.0' in metrics
            assert 'tollway_backend_up{backend="up",route="r"} 1.0' in metrics
            (row, *_) = t.journalled("attempt")
            assert row["no_answer"] and row["answer"] is None and not row["error"]

    run(main)


@pytest.mark.parametrize(("protocol", "body"), cases(ANSWERED))
def test_an_answer_beside_unusual_members_is_an_answer(
    tmp_path: Path, protocol: str, body: bytes
) -> None:
    async def main() -> None:
        async with serving(Upstream(body=body)) as url:
            async with running(one_backend(protocol, url), tmp_path) as t:
                reply = await ask(t, protocol)
                assert (reply.status_code, reply.content) == (200, body)
                assert 'tollway_no_answer_total{backend="up"} 0.0' in await scraped(t)
                (row,) = t.journalled("attempt")
                assert "no_answer" not in row

    run(main)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_nan_in_a_raw_side_output_leaves_the_answer(tmp_path: Path, bad: float) -> None:
    raw = struct.pack("<q", 3) + struct.pack("<f", bad)
    label = {"name": "label", "shape": [1], "datatype": "INT64"}
    score = {"name": "score", "shape": [1], "datatype": "FP32"}
    head = oip(
        label | {"parameters": {"binary_data_size": 8}},
        score | {"parameters": {"binary_data_size": 4}},
    )
    length = (b"inference-header-content-length", b"%d" % len(head))

    async def main() -> None:
        upstream = Upstream(body=head + raw, headers=[length])
        async with serving(upstream) as url, running(one_backend("oip", url), tmp_path) as t:
            reply = await ask(t, "oip")
            assert (reply.status_code, reply.content) == (200, head + raw)
            (row,) = t.journalled("attempt")
            assert row["answer"] == 3

    run(main)


@pytest.mark.parametrize(
    "events",
    [
        [b'{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}'],
        [b'{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}'],
    ],
    ids=["reasoning", "empty"],
)
def test_a_stream_without_text_is_passed_on(tmp_path: Path, events: list[bytes]) -> None:
    body = b"".join(b"data: %b\n\n" % event for event in [*events, b"[DONE]"])

    class Streams(Upstream):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return
            self.calls += 1
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def main() -> None:
        async with serving(Streams()) as url:
            async with running(one_backend("openai", url), tmp_path) as t:
                for _ in range(8):
                    reply = await ask(t, "openai", stream=True)
                    assert (reply.status_code, reply.content) == (200, body)
                assert 'tollway_no_answer_total{backend="up"} 8.0' in await scraped(t)

    run(main)


def test_an_error_with_status_200_that_names_a_failure_fails_over_or_is_passed_on(
    tmp_path: Path,
) -> None:
    failed = b'{"error": {"message": "Provider returned error", "code": 502}}'
    good = choice({"content": "yes"})

    async def main() -> None:
        async with serving(Upstream(body=failed)) as a, serving(Upstream(body=good)) as b:
            config = one_backend("openai", a).replace('backends = ["up"]', 'backends = ["up", "b"]')
            more = "\n[[backends]]\n" + one_backend("openai", b).split("[[backends]]")[1]
            more = more.split("[[routes]]")[0].replace('"up"', '"b"').replace("0.0001", "0.01")
            config += 'policy = "cheapest"\n' + more
            async with running(config, tmp_path) as t:
                reply = await ask(t, "openai")
                assert (reply.content, reply.headers["x-tollway-backend"]) == (good, "b")

    run(main)


EMPTY = oip({"name": "label", "shape": [0], "datatype": "INT64", "data": []})


@pytest.mark.parametrize(("said", "result"), [("unknown", "refused"), ("wrong", "learned")])
def test_a_label_on_a_reply_without_an_answer_follows_the_routes_setting(
    tmp_path: Path, said: str, result: str
) -> None:
    async def main() -> None:
        async with serving(Upstream(body=EMPTY)) as url:
            route = f'no_answer = "{said}"\nscore = {{ exact = "outputs[0].data[0]" }}'
            async with running(one_backend("oip", url, route), tmp_path) as t:
                reply = await ask(t, "oip")
                decision = reply.headers["x-tollway-decision"]
                told = (await t.feedback({"decision": decision, "label": 3})).json()
                assert (told.get("results") or [told])[0].get("result", "refused") == result
                rows = t.journalled("feedback")
                assert [row["known"] for row in rows] == ([{"up": 0.0}] if rows else [])
                assert bool(rows) == (said == "wrong")

    run(main)


def test_in_a_cascade_a_missing_answer_escalates_and_a_received_answer_is_kept(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(Upstream(body=EMPTY)) as a, serving(Upstream()) as b:
            for cheap, dear, empty in ((a, b, "cheap"), (b, a, "dear")):
                config = two_backends(cheap, dear, policy="lagrangian", route="cascade = true")
                folder = tmp_path / empty
                folder.mkdir()
                async with running(config, folder) as t:
                    replies = [await t.infer() for _ in range(40)]
                    asked = t.journalled("attempt")
                    assert {reply.status_code for reply in replies} == {200}
                    by = {
                        name: {row["id"] for row in asked if row["backend"] == name}
                        for name in ("cheap", "dear")
                    }
                    both = by["cheap"] & by["dear"]
                    assert both
                    given = {
                        reply.headers["x-tollway-backend"]
                        for reply in replies
                        if reply.headers["x-tollway-decision"] in both
                    }
                    assert given == {"dear" if empty == "cheap" else "cheap"}

    run(main)
