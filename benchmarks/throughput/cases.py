"""The cases: what is requested, from which upstream, and with which pace of a stream."""

import json
from dataclasses import dataclass, field, replace

OIP_PATH = "/v2/models/x/infer"
CHAT_PATH = "/v1/chat/completions"
STREAM_PREFIX = "/stream"  # of the upstream's streams, for clients that send no `accept`

VARIANTS = 64  # bodies of a case, sent in turns: a cache of one body would flatter a gateway
EVENTS = 40  # of a stream
STREAM_EVENTS_PER_S = 4000  # of all connections together; no server here is saturated by them

OIP_REPLY = '{"outputs":[{"name":"y","shape":[1],"datatype":"INT64","data":[7]}]}'
# A classifier's reply, with the probabilities of three classes.
SCORES_REPLY = '{"outputs":[{"name":"probabilities","shape":[1,3],"datatype":"FP32","data":[%s]}]}'
SURE, UNSURE = "0.97,0.02,0.01", "0.33,0.45,0.22"  # the class is 0: only the first is right
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
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request.

    `bodies` are sent in turns. `streamed`: the reply is a stream of events. `per_call`: the
    baseline is nginx's CPU for as many calls as this case makes of the upstream.
    """

    name: str
    path: str
    bodies: tuple[str, ...]
    headers: dict[str, str] = field(default_factory=dict)
    streamed: bool = False
    per_call: bool = False

    @property
    def body(self) -> str:
        """The first body."""
        return self.bodies[0]

    def paced(self, connections: int) -> "Case":
        """Return the case as it is sent over so many connections: a stream states its pace.

        More connections have slower streams, so that the rate of all events stays the same.
        """
        if not self.streamed:
            return self
        return replace(self, headers={**self.headers, "x-every-ms": f"{every_ms(connections)}"})

    def least_s(self, connections: int) -> int:
        """Return the shortest useful duration of a load in seconds: three streams in sequence."""
        return -(-3 * EVENTS * every_ms(connections) // 1000) if self.streamed else 1


def every_ms(connections: int) -> int:
    """Return the time between two events of a stream, in ms, at least the timers' 1 ms."""
    return max(1, round(1000 * connections / STREAM_EVENTS_PER_S))


def events() -> list[str]:
    """Return a reply of EVENTS tokens as server-sent events, its usage in the last but one."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    documents: list[dict[str, object]] = [
        {**head, "choices": [{"index": 0, "delta": {"content": "seven "}, "finish_reason": None}]}
    ] * (EVENTS - 3)
    documents.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    tokens = EVENTS - 3
    usage = {"prompt_tokens": 19, "completion_tokens": tokens, "total_tokens": 19 + tokens}
    documents.append({**head, "choices": [], "usage": usage})
    return [*(f"data: {json.dumps(document)}\n\n" for document in documents), "data: [DONE]\n\n"]


def oip_body(size: int, numbers: tuple[int, ...] = (1, 2, 3, 4)) -> str:
    """Return an inference request of about `size` bytes: four numbers, and padding as an image.

    The policy sees only the numbers.
    """
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": numbers}
    bare = json.dumps({"inputs": [tensor]}, separators=(",", ":"))
    if size <= len(bare):
        return bare
    picture = {"name": "p", "shape": [1], "datatype": "BYTES", "data": ["A" * (size - 140)]}
    return json.dumps({"inputs": [tensor, picture]}, separators=(",", ":"))


def chat_body(first: str = "three", second: str = "four", **more: object) -> str:
    """Return a chat request."""
    said = {"role": "user", "content": f"What is {first} plus {second}?"}
    return json.dumps({"model": "m", "messages": [said], **more})


def _oip(size: int) -> tuple[str, ...]:
    given = [(1 + n % 4, 2 + n % 8, 3 + n // 8, 4 + n % 3) for n in range(VARIANTS)]
    return tuple(oip_body(size, numbers) for numbers in given)


def _chats(**more: object) -> tuple[str, ...]:
    return tuple(chat_body(one, other, **more) for one in NUMBERS for other in NUMBERS)


SMALL = Case("oip", OIP_PATH, _oip(0))
BODIES = (
    Case("oip-64k", OIP_PATH, (oip_body(64 << 10),)),
    Case("oip-1m", OIP_PATH, (oip_body(1 << 20),)),
)
CHAT = Case("chat", CHAT_PATH, _chats())
STREAM = Case(
    "stream", CHAT_PATH, _chats(stream=True), {"accept": "text/event-stream"}, streamed=True
)
CASCADE = Case("cascade", "/v2/models/cascade/infer", _oip(0), per_call=True)
FLOOR = Case("floor", "/v2/models/floor/infer", _oip(0))

DEFAULT = (SMALL, CHAT, STREAM, CASCADE, FLOOR)
CASES = {case.name: case for case in (*DEFAULT, *BODIES)}
