"""All text in an event is counted, and nothing else."""

from typing import Any

import pytest

from tollway.backends.stream_text import spoken_bytes


def choice(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}]}


@pytest.mark.parametrize(
    ("chunk", "size"),
    [
        (choice(content="hello"), 5),
        (choice(content="\u4f60\u597d"), 6),
        (choice(content="\ud800"), 3),
        (choice(role="assistant", content=""), 0),
        (choice(content=None, reasoning_content="hmm"), 3),
        (choice(content=[{"type": "text", "text": "abc"}]), 3),
        (choice(tool_calls=[{"function": {"name": "f", "arguments": '{"x":1}'}}]), 8),
        (choice(function_call={"arguments": "12"}), 2),
        (choice(audio={"data": "AAAA"}), 0),
        ({"choices": [{"text": "abc"}, {"text": "de"}]}, 5),
        ({"choices": None}, 0),
        ({"choices": ["x", 3]}, 0),
        ({"type": "response.output_text.delta", "delta": "abc"}, 3),
        ({"type": "response.reasoning_summary_text.delta", "delta": "abc"}, 3),
        ({"type": "response.audio.delta", "delta": "UklGRg=="}, 0),
        ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "abc"}}, 3),
        ({"type": "content_block_delta", "delta": {"thinking": "abc", "signature": "zz"}}, 3),
        ({"type": "content_block_delta", "delta": {"partial_json": "{}"}}, 2),
        ({"candidates": [{"content": {"parts": [{"text": "abc"}, {"inlineData": {}}]}}]}, 3),
    ],
)
def test_the_text_of_an_event_is_counted_in_bytes(chunk: dict[str, Any], size: int) -> None:
    assert spoken_bytes(chunk) == size
