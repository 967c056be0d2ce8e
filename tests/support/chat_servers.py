"""Chat servers whose answers are right or wrong as a test says."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.support.configs import PRICE


@dataclass
class ChatServer:
    """Answers chat completions with what `reply` makes of the last message."""

    reply: Callable[[str], str]
    tokens: int = 10
    prompts: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        prompt = orjson.loads(body)["messages"][-1]["content"]
        self.prompts.append(prompt)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(
            {"type": "http.response.body", "body": completion(self.reply(prompt), self.tokens)}
        )


def completion(text: str, tokens: int = 10) -> bytes:
    """Return a chat completion with a text of so many tokens."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return orjson.dumps({**head, "choices": [choice], "usage": usage})


def chat_backend(name: str, url: str, *, price: str = PRICE, more: str = "") -> str:
    """Return the table of a chat backend."""
    return f"""
[[backends]]
name = "{name}"
kind = "gpu"
protocol = "openai"
url = "{url}"
model = "{name}-model"
price = {price}
{more}
"""


def chat_route(backends: list[str], more: str = "") -> str:
    """Return a chat route `chat`."""
    names = ", ".join(f'"{name}"' for name in backends)
    return f"""
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = [{names}]
{more}
"""


def asking(*texts: str, **more: Any) -> dict[str, Any]:
    """Return a chat request: the user's and the assistant's messages, in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
    return {"model": "any", "messages": messages, **more}
