"""A body that is too large is refused once it has arrived, so that its client sees why."""

import asyncio
from typing import Any

import pytest

from tollway.gateway import settings as config
from tollway.gateway.wiring import build

LIMIT = 2000
TEXT = f"""
[server]
allow_anonymous = true
max_body_bytes = {LIMIT}
[ledger]
url = "memory://"
[[backends]]
name = "a"
kind = "cpu"
protocol = "oip"
url = "http://127.0.0.1:9"
price = {{ per_request_usd = 0.001 }}
[[routes]]
name = "r"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["a"]
"""


@pytest.mark.parametrize(
    ("chunks", "received"),
    [(15, 15), (10_000, 22)],
    ids=["a small excess arrives whole", "of a great excess, as much again as is allowed"],
)
def test_a_refusal_waits_for_the_rest_of_a_body(chunks: int, received: int) -> None:
    sent: list[Any] = []
    left = chunks

    async def receive() -> Any:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": b" " * 200, "more_body": left > 0}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/v2/models/m/infer",
        "path": "/v2/models/m/infer",
        "query_string": b"",
        "headers": [(b"host", b"a")],
        "http_version": "1.1",
        "client": ("127.0.0.1", 1),
    }
    app = build(config.parse(TEXT, {})).app
    asyncio.run(app(scope, receive, send))

    assert (sent[0]["status"], chunks - left) == (413, received)
