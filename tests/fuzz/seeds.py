"""What each target's fuzzing begins with: the cases of the other tests, and what ships."""

from collections.abc import Iterator
from pathlib import Path

import orjson

from tests.support.corpus import REFUSED, SERVED
from tests.support.http1_replies import REPLIES
from tests.support.wire_cases import CASES
from tollway.gateway.storage.journal_format import seal

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n'
RESPONSE = (
    b'event: response.completed\ndata: {"type":"response.completed","response":{"output":[],'
    b'"usage":{"input_tokens":9,"output_tokens":3}}}\n\n'
)
FIELDS = (
    b"x-tollway-tags: team=a,env=b\nx-tollway-min-accuracy: 0.9\nx-tollway-max-cost-usd: 0.01\n"
    b"x-tollway-deadline-ms: 250\nconnection: close, x-a\nx-a: 1\nvia: 1.1 a\n"
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)
FORM = (
    b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--X\r\nContent-Disposition: '
    b'form-data; name="file"; filename="a"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--X--\r\n'
)
# A ModelInferRequest: of model `m`, with an input `x` of FP32, [1], that is raw.
GRPC = b"\x0a\x01m\x2a\x0c\x0a\x01x\x12\x04FP32\x1a\x01\x01\x3a\x04\x00\x00\x80\x3f"


def seeds(target: str) -> Iterator[bytes]:
    """Yield the seeds of a target."""
    match target:
        case "http1_reply":
            yield from (b"\x07\x20" + reply for reply in REPLIES)
        case "http1_request":
            sent = [*(sent for sent, _ in REFUSED.values()), *(one[0] for one in SERVED.values())]
            yield from (b"\x07\x20" + one for one in sent if len(one) < 1000)
        case "events" | "chat_stream":
            yield b"\x07\x20" + CHUNK + USAGE + b"data: [DONE]\n\n"
            yield b"\x07\x20" + RESPONSE
        case "forms":
            yield FORM
        case "requests":
            yield from (b"\x10" + orjson.dumps(case.request) for case in CASES.values())
        case "replies" | "documents":
            yield from (b"\x10" + orjson.dumps(case.reply) for case in CASES.values())
        case "grpc":
            yield b"\0" + GRPC
            yield b"\xff" + orjson.dumps(CASES["oip"].reply)
        case "fields":
            yield FIELDS
        case "json_paths":
            yield b'inputs[0].data[1:3]\n{"inputs":[{"data":[1,2,3]}]}'
            yield b'choices[*].message.content\n{"choices":[{"message":{"content":"a"}}]}'
        case "configuration":
            yield from (path.read_bytes() for path in sorted(ROOT.glob("[de]*/**/tollway*.toml")))
        case "rules":
            yield from (path.read_bytes() for path in sorted(ROOT.glob("examples/**/rules.toml")))
        case "journal":
            yield seal({"kind": "feedback", "id": "a.0.1", "quality": 1.0})
