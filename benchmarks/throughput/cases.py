"""What is asked: requests of several sizes, and what the upstream answers."""

import json
from dataclasses import dataclass, field

TOKENS = 16  # of a stream; nginx takes no more than 4 KB in a parameter
OIP_PATH = "/v2/models/x/infer"
CHAT_PATH = "/v1/chat/completions"

OIP_REPLY = '{"outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[7]}]}'
CHAT_REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Three plus four is seven."},
            }
        ],
        "usage": {"prompt_tokens": 19, "completion_tokens": 7, "total_tokens": 26},
    }
)
CHAT_BODY = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "What is three plus four?"}]}
)


def frames() -> str:
    """Return a reply of TOKENS tokens as server-sent events, its usage in the last."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    documents: list[dict[str, object]] = [
        {**head, "choices": [{"index": 0, "delta": {"content": "seven "}, "finish_reason": None}]}
    ] * TOKENS
    documents.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 19, "completion_tokens": TOKENS, "total_tokens": 19 + TOKENS}
    documents.append({**head, "choices": [], "usage": usage})
    events = [f"data: {json.dumps(document)}\n\n" for document in documents]
    return "".join([*events, "data: [DONE]\n\n"])


def oip_body(size: int) -> str:
    """Return an inference request of about `size` bytes: four numbers, and a picture for the rest.

    The policy sees the numbers.
    """
    numbers = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    bare = json.dumps({"inputs": [numbers]}, separators=(",", ":"))
    if size <= len(bare):
        return bare
    picture = {"name": "p", "shape": [1], "datatype": "BYTES", "data": ["A" * (size - 140)]}
    return json.dumps({"inputs": [numbers, picture]}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request."""

    name: str
    path: str
    body: str
    headers: dict[str, str] = field(default_factory=dict)


SMALL = Case("75 B", OIP_PATH, oip_body(0))
BODIES = (
    Case("1 KB", OIP_PATH, oip_body(1 << 10)),
    Case("64 KB", OIP_PATH, oip_body(64 << 10)),
    Case("1 MB", OIP_PATH, oip_body(1 << 20)),
)
CHAT = Case("chat", CHAT_PATH, CHAT_BODY)
STREAM = Case(
    "chat, stream",
    CHAT_PATH,
    json.dumps({**json.loads(CHAT_BODY), "stream": True}),
    {"accept": "text/event-stream"},
)
