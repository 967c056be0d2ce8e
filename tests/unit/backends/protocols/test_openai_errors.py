"""Errors in stream events, in the formats of several providers."""

from typing import Any

import orjson
import pytest

from tollway.backends import openai_errors
from tollway.backends.protocols.openai.protocol import Stream

OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}


@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        ({"error": {"message": "boom", "code": 500}}, 500, "boom"),
        ({"error": {"message": "bad image", "code": 400}}, 400, "bad image"),
        ({"error": {"message": "bad", "code": "400"}}, 400, "bad"),
        ({"error": {"message": "bad", "type": "invalid_request_error", "code": None}}, 400, "bad"),
        ({"error": {"message": "full", "code": "insufficient_quota"}}, 429, "full"),
        ({"error": "boom", "error_type": "generation"}, 500, "boom"),
        ({"type": "error", "error": OVERLOADED}, 529, "Overloaded"),
        ({"type": "error", "code": "server_error", "message": "boom"}, 500, "boom"),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, 429, "slow"),
        (
            {"object": "error", "message": "long", "type": "BadRequestError", "code": 400},
            400,
            "long",
        ),
        ([{"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}], 503, "x"),
        ({"error": {"code": 7, "message": "odd"}}, 500, "odd"),
        ({"error": {"code": True, "message": "odd"}}, 500, "odd"),
        ({"error": {"code": 200, "message": "odd"}}, 500, "odd"),
        ({"error": {"code": "\u0664\u0660\u0660", "message": "digits"}}, 400, "digits"),
    ],
)
def test_an_error_is_found_and_stands_for_a_status(event: Any, status: int, message: str) -> None:
    stream = Stream()
    stream.feed(b"data: %b\n\n" % orjson.dumps(event))
    error_in, body = stream.refusal()
    assert (error_in, orjson.loads(body)["error"]["message"]) == (status, message)


@pytest.mark.parametrize(
    "event",
    [
        {"error": None, "choices": []},
        {"error": {}, "choices": []},
        {"type": "message_start"},
        {"type": "response.created"},
        {"object": "chat.completion.chunk"},
        [],
        [1],
        [[]],
        "error",
        7,
        None,
    ],
)
def test_what_is_no_error_is_none(event: Any) -> None:
    assert not openai_errors.error_in(event)


def test_an_error_event_of_plain_text_is_an_error() -> None:
    stream = Stream()
    stream.feed(b"event: error\ndata: out of memory\n\n")
    assert orjson.loads(stream.refusal()[1])["error"]["message"] == "out of memory"


def test_usage_that_was_reported_stands_beside_the_error() -> None:
    stream = Stream()
    stream.feed(b'data: {"error": {"message": "x"}, "usage": {"prompt_tokens": 3}}\n\n')
    assert orjson.loads(stream.refusal()[1])["usage"] == {"prompt_tokens": 3}
