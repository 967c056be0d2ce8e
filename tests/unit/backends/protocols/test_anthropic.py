"""Anthropic's Messages API: requests, replies, streams, bounds, and what is cached."""

from typing import Any

import orjson
import pytest

from tests.support.messages import DOCUMENTED, event
from tollway.backends.dialect import rewritten
from tollway.backends.errors import BadRequest, InvalidAnswer, ReportedError, ReportedFailure
from tollway.backends.pricing import parse_price
from tollway.backends.protocols.anthropic.protocol import Anthropic
from tollway.backends.types import Call, Headers, HttpReply, Payload

WIRE = Anthropic()
PRICE = parse_price(
    {
        "input_usd_per_mtok": 1,
        "cached_input_usd_per_mtok": "0.1",
        "cache_write_5m_usd_per_mtok": "1.25",
        "cache_write_1h_usd_per_mtok": 2,
        "output_usd_per_mtok": 10,
        "per_search_usd": "0.01",
    }
)
READ, CACHED, WRITE, HOUR, MADE, SEARCH = 1000, 100, 1250, 2000, 10_000, 10_000_000
SSE: Headers = [(b"content-type", b"text/event-stream")]
HELLO = {"model": "claude", "max_tokens": 1024, "messages": [{"role": "user", "content": "Hello"}]}


def call(document: Any = None, target: bytes = b"/v1/messages", **more: Any) -> Call:
    made = Call(b"POST", target, [], orjson.dumps({**HELLO, **(document or {}), **more}))
    made.payload = WIRE.parse(made)
    return made


def reply(headers: Headers | None = None) -> HttpReply:
    return HttpReply(200, headers or [], None)  # type: ignore[arg-type]


def message(*content: Any, stop: str = "end_turn", **more: Any) -> bytes:
    return orjson.dumps(
        {"type": "message", "role": "assistant", "content": content, "stop_reason": stop, **more}
    )


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


# A documented stream whose usage grows by a search.
SEARCHED = (
    event(
        "message_start",
        message={
            "type": "message",
            "usage": {
                "input_tokens": 2679,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 3,
            },
        },
    ),
    event(
        "message_delta",
        delta={"stop_reason": "end_turn"},
        usage={
            "input_tokens": 10682,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 510,
            "server_tool_use": {"web_search_requests": 1},
        },
    ),
)
USED = {"input_tokens": 100, "output_tokens": 10}
CREATED = {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100}
BILLS: list[tuple[str, dict[str, Any], float]] = [
    (
        "the first example of the documentation",
        {"input_tokens": 12, "output_tokens": 6},
        12 * READ + 6 * MADE,
    ),
    (
        "a cache read and written, for five minutes and for an hour",
        {
            "input_tokens": 2048,
            "cache_read_input_tokens": 1800,
            "cache_creation_input_tokens": 248,
            "output_tokens": 503,
            "cache_creation": CREATED,
        },
        2048 * READ + 1800 * CACHED + 148 * WRITE + 100 * HOUR + 503 * MADE,
    ),
    (
        "a web search",
        {
            "input_tokens": 105,
            "output_tokens": 6039,
            "cache_read_input_tokens": 7123,
            "cache_creation_input_tokens": 7345,
            "server_tool_use": {"web_search_requests": 1},
        },
        105 * READ + 7123 * CACHED + 7345 * WRITE + 6039 * MADE + SEARCH,
    ),
    (
        "thinking, which is output",
        {**USED, "output_tokens_details": {"thinking_tokens": 4}, "service_tier": "standard"},
        100 * READ + 10 * MADE,
    ),
    (
        "a compaction, which the counts above leave out",
        {
            "input_tokens": 23_000,
            "output_tokens": 1000,
            "iterations": [
                {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
                {"type": "message", "input_tokens": 23_000, "output_tokens": 1000},
            ],
        },
        203_000 * READ + 4500 * MADE,
    ),
    ("inference in any place", {**USED, "inference_geo": "global"}, 100 * READ + 10 * MADE),
    ("inference in the US", {**USED, "inference_geo": "us"}, 1.1 * (100 * READ + 10 * MADE)),
    ("fast mode", {**USED, "speed": "fast"}, 6 * (100 * READ + 10 * MADE)),
    (
        "fast mode in the US",
        {**USED, "speed": "fast", "inference_geo": "us"},
        6.6 * (100 * READ + 10 * MADE),
    ),
]


@pytest.mark.parametrize(("name", "usage", "nano"), BILLS, ids=[name for name, *_ in BILLS])
def test_documented_usage_is_billed_to_the_nano_dollar(
    name: str, usage: dict[str, Any], nano: float
) -> None:
    whole = WIRE.usage(Payload(), reply(), message(text("hi"), usage=usage))
    assert whole is not None
    assert PRICE.cost_nano(whole) == round(nano)
    started = {**usage, "output_tokens": 1}
    started.pop("iterations", None)
    streamed = event("message_start", message={"usage": started})
    streamed += event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
    seen = WIRE.usage(Payload(), reply(SSE), streamed)
    assert seen is not None
    assert PRICE.cost_nano(seen) == round(nano)


def test_the_samples_of_another_model_are_charged_and_marked() -> None:
    advised = {"type": "advisor_message", "model": "other", "input_tokens": 5, "output_tokens": 2}
    told = WIRE.usage(Payload(), reply(), message(usage={**USED, "iterations": [advised]}))
    assert told is not None
    assert (told.input_tokens, told.output_tokens) == (105, 12)
    assert told.more is not None
    assert told.more.is_doubtful


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_documented_stream_passes_unchanged_and_is_read(size: int) -> None:
    follower = WIRE.follow(call(stream=True).payload)
    assert follower is not None
    raw = b"".join(DOCUMENTED)
    out = b"".join([follower.feed(raw[at : at + size]) for at in range(0, len(raw), size)])
    assert out + follower.close() == raw
    used = follower.reported_usage([])
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.exact) == (25, 15, True)
    assert follower.answer().value == "Hello!"
    assert follower.spoken_bytes == len("Hello!")


def test_the_usage_at_the_end_counts_and_not_that_at_the_start() -> None:
    told = WIRE.usage(Payload(), reply(SSE), b"".join(SEARCHED))
    assert told is not None
    assert PRICE.cost_nano(told) == 10_682 * READ + 510 * MADE + SEARCH


def test_a_stream_that_is_cut_has_used_its_input_and_what_was_seen() -> None:
    follower = WIRE.follow(call(stream=True).payload)
    assert follower is not None
    follower.feed(b"".join(DOCUMENTED[:5]))
    used = follower.reported_usage([])
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.exact) == (25, 2, False)


def test_a_ping_does_not_begin_a_stream() -> None:
    follower = WIRE.follow(call(stream=True).payload)
    assert follower is not None
    assert follower.feed(DOCUMENTED[2]) == DOCUMENTED[2]
    assert not follower.begun
    follower.feed(DOCUMENTED[0])
    follower.feed(DOCUMENTED[2])
    assert follower.begun


def test_an_error_in_a_stream_is_the_reply_it_would_have_been() -> None:
    follower = WIRE.follow(call(stream=True).payload)
    assert follower is not None
    failed = {"type": "overloaded_error", "message": "Overloaded"}
    follower.feed(event("error", error=failed))
    status, body = follower.refusal()
    assert status == 529
    assert orjson.loads(body) == {"type": "error", "error": failed}
    with pytest.raises(ReportedFailure, match="Overloaded"):
        follower.answer()


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (message(text("Hello"), text("!")), "Hello!"),
        (
            message({"type": "thinking", "thinking": "hm", "signature": "x"}, text("yes")),
            "yes",
        ),
        (
            message({"type": "tool_use", "id": "t", "name": "f", "input": {}}, stop="tool_use"),
            [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
        ),
        (b'{"input_tokens": 2095}', None),
    ],
)
def test_the_answer_is_the_text_or_the_calls(body: bytes, value: Any) -> None:
    assert WIRE.answer(Payload(), reply(), body).value == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (message(text("I am"), stop="refusal"), "refused"),
        (message(stop="refusal"), "refused"),
        (message({"type": "thinking", "thinking": "hm"}, stop="max_tokens"), "max_tokens"),
        (message(stop="pause_turn"), "pause_turn"),
        (b'{"type": "error", "error": {"type": "invalid_request_error"}}', "invalid_request"),
    ],
)
def test_a_reply_without_an_answer_says_why(body: bytes, why: str) -> None:
    with pytest.raises(InvalidAnswer, match=why):
        WIRE.answer(Payload(), reply(), body)


def test_an_overload_reported_with_status_200_is_a_failure() -> None:
    with pytest.raises(ReportedFailure):
        WIRE.answer(Payload(), reply(), b'{"type": "error", "error": {"type": "overloaded_error"}}')
    with pytest.raises(ReportedError):
        WIRE.answer(Payload(), reply(), b'{"type": "error", "error": {"type": "not_found_error"}}')


def test_a_confident_answer_has_stopped_by_itself() -> None:
    done = WIRE.answer(Payload(), reply(), message(text("yes"))).features
    cut = WIRE.answer(Payload(), reply(), message(text("yes"), stop="max_tokens")).features
    assert (done[0], cut[0]) == (1.0, 0.0)
    assert done[1] == cut[1]


@pytest.mark.parametrize("lacking", ["model", "messages", "max_tokens"])
def test_a_request_without_a_required_member_is_refused(lacking: str) -> None:
    document = {name: value for name, value in HELLO.items() if name != lacking}
    with pytest.raises(BadRequest, match=lacking):
        WIRE.parse(Call(b"POST", b"/v1/messages", [], orjson.dumps(document)))


@pytest.mark.parametrize("name", ["max_tokens", "model", "tools", "messages"])
def test_a_member_that_decides_money_is_there_once(name: str) -> None:
    body = orjson.dumps({**HELLO, "tools": []})[:-1] + b',"%b":[1]}' % name.encode()
    with pytest.raises(BadRequest, match=name):
        WIRE.parse(Call(b"POST", b"/v1/messages", [], body))


def test_a_count_of_tokens_needs_no_limit() -> None:
    document = {name: value for name, value in HELLO.items() if name != "max_tokens"}
    target = b"/v1/messages/count_tokens?beta=true"
    assert WIRE.parse(Call(b"POST", target, [], orjson.dumps(document))).data == document


def test_only_the_bytes_of_the_models_name_change() -> None:
    body = b'{ "model":"a", "max_tokens": 1,"x": 123456789012345678901234567890, "x": 1e400,\n'
    body += b'"messages":[{"role":"user","content":"\\u00e9\\/"}] , "model" : "a"}'
    parsed = Payload({"model": "a", "messages": [1]})
    asked = Call(b"POST", b"/v1/messages", [], body)
    target, edits = WIRE.readdress(asked, b"/v1", "b/é", parsed)
    sent = rewritten(asked, parsed, edits)
    assert target == b"/v1/messages"
    assert sent == body.replace(b'"a"', '"b/é"'.encode())


def test_a_text_is_bounded_by_its_bytes_and_its_limit() -> None:
    asked = call()
    bound = WIRE.bound(asked, asked.payload)
    assert bound.input_tokens == len(asked.body)
    assert (bound.output_tokens, bound.more) == (1024, None)


TEXTS = [text("q"), {"type": "tool_result", "tool_use_id": "t", "content": [text("r")]}]
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
PDF = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": ""},
}
PLAIN = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        ("q", True),
        (TEXTS, True),
        ([PLAIN], True),
        ([IMAGE], False),
        ([PDF], False),
        ([{"type": "image", "source": {"type": "url", "url": "https://x"}}], False),
        ([{"type": "document", "source": {"type": "file", "file_id": "f"}}], False),
        ([{"type": "document", "source": {"type": "content", "content": [IMAGE]}}], False),
        ([{"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}], False),
        ([{"type": "web_search_tool_result", "content": []}], False),
        ([{"type": "of tomorrow"}], False),
    ],
)
def test_only_text_is_bounded_by_its_bytes(content: Any, whole: bool) -> None:
    asked = call(messages=[{"role": "user", "content": content}])
    assert bool(WIRE.bound(asked, asked.payload).input_tokens) == whole
    assert not WIRE.output(asked, asked.payload).unbounded  # type: ignore[union-attr]


def test_tools_are_described_by_more_than_their_text() -> None:
    mine = {"name": "f", "input_schema": {"type": "object"}}
    asked = call(tools=[mine, {"type": "bash_20250124", "name": "bash"}])
    assert WIRE.bound(asked, asked.payload).input_tokens >= len(asked.body) + 530 + 700


SEARCH_TOOL = {"type": "web_search_20250305", "name": "web_search"}


def test_a_search_is_bounded_by_its_uses() -> None:
    fetch = {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 2}
    asked = call(tools=[{**SEARCH_TOOL, "max_uses": 3}, fetch])
    bound, output = WIRE.bound(asked, asked.payload), WIRE.output(asked, asked.payload)
    assert output is not None
    assert (output.unbounded, output.samples, output.answers) == ("", 6, 6)
    assert bound.output_tokens == 6 * 1024
    assert bound.input_tokens == 0  # what it finds is not in the request: the context bounds it
    assert bound.units == (("searches", 3.0),)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"tools": [SEARCH_TOOL]}, "max_uses"),
        ({"tools": [{**SEARCH_TOOL, "max_uses": None}]}, "max_uses"),
        ({"tools": [{**SEARCH_TOOL, "max_uses": 0}]}, "max_uses"),
        ({"tools": [{"type": "code_execution_20250825", "name": "c"}]}, "code_execution"),
        ({"tools": [{"type": "of_tomorrow", "name": "c"}]}, "of_tomorrow"),
        ({"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, "mcp_servers"),
        ({"fallbacks": [{"model": "other"}]}, "fallbacks"),
        ({"context_management": {"edits": []}}, "context_management"),
    ],
)
def test_what_nothing_bounds_is_named(more: dict[str, Any], named: str) -> None:
    asked = call(more)
    assert named in WIRE.output(asked, asked.payload).unbounded  # type: ignore[union-attr]
    bound = WIRE.bound(asked, asked.payload)
    assert (bound.input_tokens, bound.output_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("control", "unit"),
    [
        ({"type": "ephemeral"}, "cache_write_5m_tokens"),
        ({"type": "ephemeral", "ttl": "5m"}, "cache_write_5m_tokens"),
        ({"type": "ephemeral", "ttl": "1h"}, "cache_write_1h_tokens"),
    ],
)
def test_a_prompt_to_be_cached_may_cost_what_writing_costs(control: Any, unit: str) -> None:
    asked = call(system=[{**text("s"), "cache_control": control}])
    assert WIRE.bound(asked, asked.payload).units == ((unit, float(len(asked.body))),)
    assert WIRE.output(asked, asked.payload).written_as == unit  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("limit", "budget", "least"), [(4096, 2048, 2049), (2048, 4096, 0), (100, "x", 0)]
)
def test_a_limit_leaves_room_beside_the_thinking(limit: int, budget: Any, least: int) -> None:
    asked = call(max_tokens=limit, thinking={"type": "enabled", "budget_tokens": budget})
    output = WIRE.output(asked, asked.payload)
    assert output is not None
    assert (output.least, output.limits) == (least, {"max_tokens": limit})


@pytest.mark.parametrize(("limit", "most"), [(0, 1), (True, 0), (-1, 0), (1.5, 0), ("9", 0)])
def test_a_limit_that_is_no_count_bounds_nothing(limit: Any, most: int) -> None:
    asked = call(max_tokens=limit)
    assert WIRE.output(asked, asked.payload).limits == {"max_tokens": most}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("more", "features"),
    [
        ({}, set()),
        ({"tools": [{"name": "f", "input_schema": {}}]}, {"tools"}),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, {"vision"}),
        ({"messages": [{"role": "user", "content": [PDF]}]}, {"files"}),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "content": [IMAGE]}]}
                ]
            },
            {"vision"},
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning"}),
        ({"thinking": {"type": "adaptive"}}, {"reasoning"}),
        ({"thinking": {"type": "disabled"}}, set()),
        ({"output_config": {"format": {"type": "json_schema"}}}, {"json_schema"}),
        ({"output_config": {"effort": "low"}}, set()),
        ({"stream": True}, {"streaming"}),
        ({"stream": False}, set()),
    ],
)
def test_a_request_needs_what_it_uses(more: dict[str, Any], features: set[str]) -> None:
    asked = call(more)
    assert WIRE.needs(asked, asked.payload, float("inf")).features == features


def test_the_tokens_of_a_request_are_estimated_without_its_images() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 60_000}}
    asked = call(messages=[{"role": "user", "content": [image, text("w" * 600)]}])
    needs = WIRE.needs(asked, asked.payload, 10.0)
    assert 100 <= needs.input_tokens < 200
    assert needs.output_tokens == 1024


MARK = {"cache_control": {"type": "ephemeral"}}


def test_a_prompt_without_marks_is_not_cached() -> None:
    assert WIRE.prompt(call().payload) == []


def test_a_conversation_shares_its_prefix_though_the_mark_moves() -> None:
    system = [{**text("You are."), **MARK}]
    first = [{"role": "user", "content": [{**text("one"), **MARK}]}]
    said = {"role": "assistant", "content": [text("two")]}
    later = [
        {"role": "user", "content": [text("one")]},
        said,
        {"role": "user", "content": [{**text("three"), **MARK}]},
    ]
    one = WIRE.prompt(call(system=system, messages=first).payload)
    other = WIRE.prompt(call(system=system, messages=later).payload)
    assert [part for part, _ in other][: len(one)] == [part for part, _ in one]
    assert len(other) == len(one) + 2


def test_what_comes_after_the_last_mark_is_one_part() -> None:
    system = [{**text("You are."), **MARK}]
    messages = [{"role": "user", "content": one} for one in ("a", "b", "c")]
    assert len(WIRE.prompt(call(system=system, messages=messages).payload)) == 2
    assert len(WIRE.prompt(call(messages=messages, **MARK).payload)) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_a_refusal_has_the_type_of_its_status(status: int, kind: str) -> None:
    problem = {"type": "urn:x", "title": "Budget held", "status": status, "detail": "wait"}
    _, body = WIRE.error(status, {**problem, "decision": "d1"})
    document = orjson.loads(body)
    assert document["type"] == "error"
    assert document["request_id"] == "d1"
    assert document["error"] == {
        "type": kind,
        "message": "wait",
        "details": {"error_code": "budget_held", "problem": "urn:x"},
    }


@pytest.mark.parametrize(
    ("name", "withheld"),
    [
        (b"anthropic-beta", False),
        (b"anthropic-version", False),
        (b"anthropic-workspace-id", True),
        (b"anthropic-beta-of-tomorrow", True),
        (b"x-stainless-lang", False),
    ],
)
def test_fields_that_name_an_account_are_withheld(name: bytes, withheld: bool) -> None:
    assert WIRE.withholds is not None
    assert bool(WIRE.withholds.match(name)) == withheld
