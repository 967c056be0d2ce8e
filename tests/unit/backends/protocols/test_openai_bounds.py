"""Upper bounds from a request, which a hostile client cannot understate."""

from typing import Any

import orjson
import pytest

from tollway.backends.protocols.openai.protocol import OpenAI
from tollway.backends.types import Call, Usage

SAID = [{"role": "user", "content": "hi"}]


def bound(**document: Any) -> Usage:
    body = orjson.dumps({"model": "m", **document})
    call = Call(b"POST", b"/v1/any", [], body)
    return OpenAI().bound(call, OpenAI().parse(call))


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({}, 0),
        ({"max_tokens": None}, 0),
        ({"max_tokens": 7}, 7),
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": 7, "n": None}, 7),
        ({"max_completion_tokens": 1, "max_tokens": 9000}, 9000),  # an older server heeds this
        ({"max_tokens": 9000, "max_completion_tokens": 1}, 9000),
        ({"max_tokens": 7, "best_of": 20}, 140),  # one is shown, twenty are made and billed
        ({"max_tokens": 7, "prompt": ["a", "b", "c"]}, 21),
        ({"max_tokens": 7, "prompt": [[1, 2], [3]]}, 14),
        ({"max_tokens": 7, "prompt": [1, 2, 3]}, 7),  # tokens of one prompt
        # What a server may read as a number though it is none bounds nothing.
        ({"max_tokens": "7"}, 0),
        ({"max_tokens": 7, "n": "20"}, 0),
        ({"max_tokens": 7, "n": 20.0}, 0),
        ({"max_tokens": True}, 0),
        ({"max_tokens": 7, "max_completion_tokens": 1e9}, 0),
        ({"max_tokens": -1}, 0),
    ],
)
def test_what_is_written_is_bounded_by_the_largest_that_a_server_may_heed(
    asked: dict[str, Any], most: float
) -> None:
    assert bound(**asked).output_tokens == most


TEXT = {"type": "text", "text": "look"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/large.png"}}


@pytest.mark.parametrize(
    "asked",
    [
        {"messages": [*SAID, {"role": "user", "content": [TEXT, IMAGE]}]},
        {"messages": [{"role": "assistant", "audio": {"id": "a-minute"}}]},
        {"messages": SAID, "web_search_options": {}},
        {"messages": SAID, "chat_template": "{% for n in range(9999) %}x{% endfor %}"},
        {"input": "hi", "previous_response_id": "resp_1"},
        {"input": "hi", "conversation": "conv_1"},
        {"input": "hi", "prompt": {"id": "pmpt_1"}},
        {"input": "hi", "tools": [{"type": "web_search"}]},
        {"input": "hi", "tools": [{"type": "function", "name": "f"}, {"type": "file_search"}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [IMAGE]}]},
    ],
)
def test_what_does_not_stand_in_a_request_is_not_bounded_by_its_length(
    asked: dict[str, Any],
) -> None:
    assert bound(**asked).input_tokens == 0


@pytest.mark.parametrize(
    "asked",
    [
        {"messages": SAID},
        {"messages": [{"role": "user", "content": [TEXT, TEXT]}], "tools": []},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}]},
        {"messages": SAID, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"prompt": "hi"},
        {"input": ["a", "b"]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "4"}]},
    ],
)
def test_text_is_at_most_as_many_tokens_as_bytes(asked: dict[str, Any]) -> None:
    assert bound(**asked).input_tokens == len(orjson.dumps({"model": "m", **asked}))
