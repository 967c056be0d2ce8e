"""A language model that streams, and a gateway before it."""

import asyncio
from typing import Any

import orjson

from tests.support.harness import Running
from tests.support.until import until

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "one"
kind = "gpu"
protocol = "openai"
url = "{one}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[backends]]
name = "two"
kind = "gpu"
protocol = "openai"
url = "{two}"
price = {{ input_usd_per_mtok = 2.0, output_usd_per_mtok = 20.0 }}

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["one", "two"]
policy = "fixed"
policy_options = {{ arm = "one" }}
{route}

[[budgets]]
name = "all"
limit_usd = 1.0
window = "month"
"""


ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello there"}]}


def chunk(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]
    return b"data: %b\n\n" % orjson.dumps({"id": "c", "choices": choices, **more})


def usage(given: int, made: int) -> bytes:
    told = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    return b"data: %b\n\n" % orjson.dumps({"id": "c", "choices": [], "usage": told})


END = b"data: [DONE]\n\n"


class Model:
    """Streams what it is told to, part by part; `gate` holds it after the first part."""

    def __init__(
        self,
        *parts: bytes,
        gate: asyncio.Event | None = None,
        cut: bool = False,
        label: bytes | None = b"text/event-stream",
    ) -> None:
        self.parts, self.gate, self.cut, self.label = parts, gate, cut, label
        self.asked: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.written = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.asked.append(orjson.loads((await receive())["body"]))
        headers = [] if self.label is None else [(b"content-type", self.label)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, part in enumerate(self.parts):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            self.written = number + 1
            if number == 0 and self.gate is not None:
                gone = asyncio.ensure_future(receive())
                go = asyncio.ensure_future(self.gate.wait())
                await asyncio.wait({gone, go}, return_when=asyncio.FIRST_COMPLETED)
                go.cancel()
                if gone.done():
                    self.left.set()
                    return
                gone.cancel()
        if not self.cut:
            await send({"type": "http.response.body", "body": b""})


async def row_of(tollway: Running, decision: str) -> dict[str, Any]:
    """Return a decision's attempt once its stream is settled."""

    async def settled() -> dict[str, Any] | None:
        attempt = (await tollway.get(f"/_tollway/decisions/{decision}"))["attempts"][-1]
        return attempt if attempt["provenance"] != "pending" else None

    return await until(settled, every_s=0.02)
