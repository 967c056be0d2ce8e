"""Streams of Anthropic's Messages API, as its documentation shows them."""

from typing import Any

import orjson


def event(kind: str, **more: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **more}))


DOCUMENTED = (
    b'event: message_start\ndata: {"type": "message_start", "message": {"id": "msg_1nZdL29xx5MUA1y'
    b'ADyHTEsnR8uuvGzszyY", "type": "message", "role": "assistant", "content": [], "model": '
    b'"claude-opus-4-6", "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 25, '
    b'"output_tokens": 1}}}\n\n',
    b'event: content_block_start\ndata: {"type": "content_block_start", "index": 0, '
    b'"content_block": {"type": "text", "text": ""}}\n\n',
    b'event: ping\ndata: {"type": "ping"}\n\n',
    b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta": '
    b'{"type": "text_delta", "text": "Hello"}}\n\n',
    b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta": '
    b'{"type": "text_delta", "text": "!"}}\n\n',
    b'event: content_block_stop\ndata: {"type": "content_block_stop", "index": 0}\n\n',
    b'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": "end_turn", '
    b'"stop_sequence":null}, "usage": {"output_tokens": 15}}\n\n',
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
)
