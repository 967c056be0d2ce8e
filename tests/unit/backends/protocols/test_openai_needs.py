"""Features that a request to OpenAI's API needs."""

from typing import Any

import orjson
import pytest

from tollway.backends.needs import FEATURES, Needs
from tollway.backends.protocols.openai import needs as openai_needs
from tollway.backends.protocols.openai.needs import outgrown

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + 90_000 * "A"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def needs(document: Any, room: float = 0.0) -> Needs:
    return openai_needs.needs(document, orjson.dumps(document), room)


def chat(*parts: Any, **more: Any) -> dict[str, Any]:
    content = list(parts) or "hello"
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


CASES: list[tuple[dict[str, Any], set[str]]] = [
    (chat(), set()),
    (chat(tools=[TOOL]), {"tools"}),
    (chat(tools=[], functions=None), set()),
    (chat(functions=[{"name": "f"}]), {"tools"}),
    (chat({"type": "text", "text": "what is it?"}), set()),
    (chat({"type": "text", "text": "what is it?"}, IMAGE), {"vision"}),
    ({"input": [{"content": [{"type": "input_image", "file_id": "f"}]}]}, {"vision"}),
    ({"input": [{"type": "input_image", "image_url": "x"}]}, {"vision"}),
    (chat(SOUND), {"audio"}),
    (chat(modalities=["text", "audio"], audio={"voice": "x"}), {"audio"}),
    (chat(modalities=["text"]), set()),
    (chat({"type": "file", "file": {"file_id": "f"}}), {"files"}),
    (chat(response_format=FORMAT), {"json_schema"}),
    (chat(response_format={"type": "text"}), set()),
    (chat(response_format={"type": "json_object"}), {"json_object"}),
    ({"input": "x", "text": {"format": {"type": "json_schema", "name": "x"}}}, {"json_schema"}),
    (chat(reasoning_effort="low"), {"reasoning"}),
    (chat(reasoning_effort="none"), set()),
    ({"input": "x", "reasoning": {"effort": "high"}}, {"reasoning"}),
    ({"input": "x", "reasoning": {"effort": None, "summary": None}}, set()),
    (chat(logprobs=True), {"logprobs"}),
    (chat(logprobs=False), set()),
    (chat(logprobs=False, top_logprobs=0), set()),
    (chat(logprobs=True, top_logprobs=2), {"logprobs"}),
    (chat({"type": "image", "source": {"type": "base64", "data": "AA"}}), {"vision"}),
    (chat({"type": "video_url", "video_url": {"url": "x"}}), {"vision"}),
    (chat({"type": "audio_url", "audio_url": {"url": "x"}}), {"audio"}),
    ({"prompt": "x", "logprobs": 0}, {"logprobs"}),
    (chat(n=2), {"n"}),
    (chat(n=1), set()),
    (chat(stream=True), {"streaming"}),
    (chat(stream=False), set()),
]  # fmt: skip


@pytest.mark.parametrize("document,features", CASES)
def test_features_are_read_from_the_body(document: dict[str, Any], features: set[str]) -> None:
    assert needs(document).features == features


def test_every_feature_of_the_list_is_one_that_can_be_needed() -> None:
    assert set().union(*[features for _, features in CASES]) == FEATURES


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"messages": {"content": 3}},
        {"messages": [None, 3, {"content": [None, {"type": ["x"]}]}], "text": 3},
        {"input": [[], [1]], "modalities": "audio", "tools": {"a": [3]}, "n": "2", "best_of": None},
        {"messages": [{"content": None, "tool_calls": [{"function": {"arguments": 3}}]}]},
        {"response_format": {"type": ["x"]}, "reasoning": 3, "max_tokens": "many"},
    ],
)
def test_what_makes_no_sense_is_left_to_the_model(document: Any) -> None:
    assert needs(document).tokens >= 0


@pytest.mark.parametrize(
    "document,least,most",
    [
        (chat() | {"messages": [{"role": "user", "content": 4000 * "word "}]}, 2500, 4000),
        (chat() | {"messages": [{"role": "user", "content": 3000 * "語"}]}, 1000, 3000),
        (chat(IMAGE), 0, 10),
        ({"prompt": [1] * 500}, 500, 500),
        ({"input": ["word " * 100, "word " * 4000, "x"]}, 2500, 4000),  # three texts to embed
        ({"input": [[1] * 7, [2] * 900]}, 900, 900),
        (chat(max_tokens=100, max_completion_tokens=50), 50, 60),
        ({"input": "x", "max_output_tokens": 1000, "instructions": 600 * "x"}, 1100, 1200),
        ({"input": [{"type": "reasoning", "encrypted_content": 90_000 * "A"}]}, 0, 0),
    ],
)
def test_tokens_are_estimated_on_the_low_side(
    document: dict[str, Any], least: float, most: float
) -> None:
    assert least <= needs(document).tokens <= most


@pytest.mark.parametrize("text", ["word " * 4000, "\n" * 4000, "語" * 4000])
def test_a_prompt_that_might_exceed_the_room_is_never_left_unmeasured(text: str) -> None:
    for document in ({"prompt": text}, {"prompt": [1] * 4000}, chat(max_tokens=9000)):
        measured = needs(document)
        assert needs(document, room=measured.tokens - 1).tokens == measured.tokens


@pytest.mark.parametrize(
    "refusal",
    [
        b'{"error":{"code":"context_length_exceeded","message":"..."}}',
        b'{"message":"This model\'s maximum context length is 4096 tokens."}',
        b'{"error":{"message":"The input (9 tokens) is longer than the model\'s context length"}}',
        b'{"error":{"type":"exceed_context_size_error"}}',
        b"input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000",
        b"Input is too long for requested model.",
        b"This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
        b"Please reduce the length of the messages or completion.",
        b"The decoder prompt (length 9) is longer than the maximum model length of 8.",
        b"The engine prompt length 9 exceeds the max_model_len 8. Please reduce prompt.",
        b"Input length (9 tokens) exceeds the maximum allowed length (8 tokens).",
        b"Input validation error: `inputs` must have less than 4095 tokens. Given: 5000",
        b"too many tokens: total number of tokens in the prompt cannot exceed 4081",
        b"Range of input length should be [1, 6000]",
    ],
)
def test_a_refusal_as_too_long_is_recognised(refusal: bytes) -> None:
    assert outgrown(refusal)
    for other in (
        b'{"error":{"message":"unknown parameter","param":"messages"}}',
        b"max_tokens is too large: 100000. This model supports at most 16384 completion tokens",
        b"String too long. Expected a string with maximum length 10",
    ):
        assert not outgrown(other)
