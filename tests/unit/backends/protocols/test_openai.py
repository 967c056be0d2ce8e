import math
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.dialect import rewritten
from tollway.backends.errors import BadRequest, InvalidAnswer
from tollway.backends.protocols.openai import endpoints
from tollway.backends.protocols.openai import usage as openai_usage
from tollway.backends.protocols.openai.protocol import OpenAI
from tollway.backends.protocols.openai.stream import Completion, asks_for_usage
from tollway.backends.protocols.sse import Event, Events
from tollway.backends.types import Call, Details, Headers, HttpReply, ModelAnswer, Payload, Usage

CHAT = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}
STREAM: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]


class NoBody:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("a protocol reads no stream")

    async def aclose(self) -> None:
        return None


def chat(**more: Any) -> Call:
    call = Call(b"POST", b"/v1/chat/completions", [], orjson.dumps({**CHAT, **more}))
    call.payload = OpenAI().parse(call)
    return call


def sent(call: Call, model: str | None = None, path: bytes = b"") -> tuple[bytes, Any]:
    target, edits = OpenAI().readdress(call, path, model, call.payload)
    return target, orjson.loads(rewritten(call, call.payload, edits))


def answered(document: Any) -> ModelAnswer:
    return OpenAI().answer(Payload(), HttpReply(200, [], NoBody()), orjson.dumps(document))


def used(document: Any) -> Usage | None:
    return OpenAI().usage(Payload(), HttpReply(200, [], NoBody()), orjson.dumps(document))


def event(document: Any) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def delta(text: str, **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, **more}], "usage": None})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
DONE = b"data: [DONE]\n\n"


# -- requests


@pytest.mark.parametrize(
    ("target", "document", "says"),
    [
        (b"/v1/chat/completions", [], "must be an object"),
        (b"/v1/chat/completions", {"messages": [1]}, "model: None must be a string"),
        (b"/v1/chat/completions", {"model": "m"}, "messages: None must be a list"),
        (b"/v1/chat/completions?x=1", {"model": "m", "messages": []}, "messages: .* a list"),
        (b"/v1/completions", {"model": "m", "prompt": 3}, "prompt: 3 must be a str or list"),
        (b"/v1/embeddings", {"model": "m", "input": ""}, "input: '' must be a str or list"),
    ],
)
def test_a_request_without_its_parts_is_refused(target: bytes, document: Any, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        OpenAI().parse(Call(b"POST", target, [], orjson.dumps(document)))


@pytest.mark.parametrize("depth", [100, 190, 240, 255, 300, 1000])
def test_an_accepted_request_can_be_rewritten_with_another_model_name(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":%b}]}' % nested
    call = Call(b"POST", b"/v1/chat/completions", [], body)
    if depth > 200:
        with pytest.raises(BadRequest, match="nested too deeply"):
            OpenAI().parse(call)
        return
    call.payload = OpenAI().parse(call)
    assert sent(call, "other")[1]["model"] == "other"
    assert OpenAI().prompt(call.payload)


@pytest.mark.parametrize(
    ("target", "document"),
    [
        (b"/v1/completions", {"model": "m", "prompt": "x"}),
        (b"/v1/embeddings", {"model": "m", "input": ["x"]}),
        (b"/v1/responses", {"model": "m", "input": "x"}),
    ],
)
def test_the_other_requests_are_read(target: bytes, document: Any) -> None:
    call = Call(b"POST", target, [], orjson.dumps(document))

    assert OpenAI().parse(call).data == document


def test_the_models_name_is_changed_in_the_body_and_nothing_else() -> None:
    assert sent(chat(temperature=0.5), "llama") == (
        b"/v1/chat/completions",
        {**CHAT, "model": "llama", "temperature": 0.5},
    )


def test_a_body_that_need_not_change_is_passed_on_byte_for_byte() -> None:
    body = b'{ "model":"gpt",  "messages":[{"role":"user","content":"hi"}] }'
    call = Call(b"POST", b"/v1/chat/completions", [], body)

    for model in (None, "gpt"):
        assert not OpenAI().readdress(call, b"", model, OpenAI().parse(call))[1]


@pytest.mark.parametrize(
    ("base", "target"),
    [
        (b"/v1", b"/v1/chat/completions"),
        (b"/api/v1", b"/api/v1/chat/completions"),
        (b"/api", b"/api/v1/chat/completions"),
    ],
)
def test_a_base_that_ends_with_the_version_is_not_doubled(base: bytes, target: bytes) -> None:
    assert sent(chat(), path=base)[0] == target


def test_a_streamed_request_is_made_to_ask_for_its_usage() -> None:
    call = chat(stream=True, stream_options={"other": 1})

    assert sent(call)[1]["stream_options"] == {"other": 1, "include_usage": True}


def test_a_request_that_is_not_streamed_is_not_made_to_ask() -> None:
    call = chat()

    assert not OpenAI().readdress(call, b"", None, call.payload)[1]


def test_a_request_that_asks_for_usage_is_left_alone() -> None:
    request = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}

    assert asks_for_usage(request)
    assert sent(chat(**request))[1] == request
    assert not asks_for_usage({"stream_options": {"include_usage": False}})


# -- replies


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ({"choices": [{"message": {"content": "yes"}}]}, "yes"),
        ({"choices": [{"text": "yes"}]}, "yes"),
        ({"choices": [{"message": {"content": None, "refusal": "no"}}]}, "no"),
        ({"choices": [{"message": {"content": "", "tool_calls": [{"id": "1"}]}}]}, [{"id": "1"}]),
        ({"data": [{"embedding": [0.5]}]}, None),
        ({"data": [{"embedding": "AAAA"}]}, None),
    ],
)
def test_the_first_choice_is_the_answer(document: Any, value: Any) -> None:
    assert answered(document).value == value


@pytest.mark.parametrize(
    "document",
    [
        {"choices": []},
        {"choices": None},
        {"choices": [{"message": {"content": ""}}]},
        {"choices": [{"message": None}]},
        {"error": {"message": "overloaded"}},
        {"data": []},
        {"data": [{"embedding": []}]},
    ],
)
def test_an_empty_reply_is_no_answer(document: Any) -> None:
    with pytest.raises(InvalidAnswer):
        answered(document)


def test_features_are_the_finish_the_length_and_the_confidence() -> None:
    choice: dict[str, Any] = {"message": {"content": "yes"}, "finish_reason": "stop"}

    assert answered({"choices": [choice]}).features == (1.0, math.log(4) / 10)
    choice["finish_reason"] = "length"
    assert answered({"choices": [choice]}).features[0] == 0.0
    choice["logprobs"] = {"content": [{"logprob": 0.0}, {"logprob": math.log(0.25)}]}
    assert answered({"choices": [choice]}).features[2:] == pytest.approx((0.5, 0.25))


# -- usage


@pytest.mark.parametrize(
    ("member", "usage"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 4,
                "total_tokens": 14,
                "prompt_tokens_details": {"cached_tokens": 6},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(
                input_tokens=10,
                cached_input_tokens=6,
                output_tokens=4,
                more=Details((("reasoning_tokens", 3.0),)),
            ),
        ),
        ({"prompt_tokens": 10, "total_tokens": 10}, Usage(input_tokens=10)),
        (
            {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 34},
            Usage(input_tokens=10, output_tokens=24),
        ),
        (
            {"input_tokens": 3, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}},
            Usage(input_tokens=3, cached_input_tokens=1, output_tokens=2),
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": None},
            Usage(input_tokens=1, output_tokens=1),
        ),
        ({}, None),
        ({"prompt_tokens": 10}, None),  # what it wrote is not told, and was not free
        ({"prompt_tokens": None}, None),
        (None, None),
        ([], None),
    ],
)
def test_token_counts_are_read_as_they_are_billed(member: Any, usage: Usage | None) -> None:
    assert openai_usage.read(member) == usage
    assert used({"usage": member}) == usage


def test_token_counts_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(ValueError, match="prompt_tokens"):
        used({"usage": {"prompt_tokens": "many", "completion_tokens": 1}})


@pytest.mark.parametrize(("prompt", "completion"), [(-1, 5), (5, -1)])
def test_a_count_below_zero_is_not_made_up_for_by_the_total(prompt: int, completion: int) -> None:
    member = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 5}
    with pytest.raises(ValueError, match="below 0"):
        used({"usage": member})


def test_device_seconds_come_beside_tokens() -> None:
    reply = HttpReply(200, [(b"x-device-seconds", b"0.5")], NoBody())
    body = orjson.dumps({"usage": {"prompt_tokens": 3, "total_tokens": 3}})

    assert OpenAI().usage(Payload(), reply, body) == Usage(device_s=0.5, input_tokens=3)


# -- streams


def test_a_stream_is_answered_and_priced_from_its_last_chunk() -> None:
    body = delta("hel") + delta("lo", finish_reason="stop") + USAGE + DONE
    reply = HttpReply(200, STREAM, NoBody())

    assert OpenAI().answer(Payload(), reply, body) == ModelAnswer("hello", (1.0, math.log(6) / 10))
    assert OpenAI().usage(Payload(), reply, body) == Usage(input_tokens=9, output_tokens=2)


def test_a_stream_that_was_cut_used_at_least_what_came() -> None:
    body = delta("a") + delta("b") + delta("") + b'data: {"cho'
    completion = Completion()

    for each in Events().feed(body):
        completion.relay(each)

    assert completion.usage == Usage(output_tokens=2, exact=False)
    # What came says nothing of the prompt, so the reply as a whole reports no usage.
    assert OpenAI().usage(Payload(), HttpReply(200, STREAM, NoBody()), body) is None


@pytest.mark.parametrize(
    "body", [b"", DONE, event({"error": {"message": "oom"}}), delta("a") + event({"error": "x"})]
)
def test_a_stream_without_an_answer_is_none(body: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        OpenAI().answer(Payload(), HttpReply(200, STREAM, NoBody()), body)


@pytest.mark.parametrize("choices", [[], None])
@pytest.mark.parametrize("strip", [True, False])
def test_the_chunk_of_usage_is_taken_out_where_it_was_not_asked_for(
    choices: Any, strip: bool
) -> None:
    usage = event({"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
    completion = Completion(strip=strip)

    relayed = [completion.relay(e) for e in Events().feed(delta("a") + usage + DONE)]

    assert relayed == [delta("a"), b"" if strip else usage, DONE]
    assert completion.usage == Usage(input_tokens=9, output_tokens=2)
    assert (completion.text, completion.done) == ("a", True)


@pytest.mark.parametrize(
    "raw",
    [
        b": ping\n\n",
        b"data: not json\n\n",
        b"data: 3\n\n",
        event({"choices": [3]}),
        event({"choices": 3}),
        event({"error": {"message": "oom"}, "choices": [], "usage": {}}),
        event({"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": "x"}}),
    ],
)
def test_unknown_events_are_relayed_unchanged(raw: bytes) -> None:
    completion = Completion(strip=True)

    assert b"".join(completion.relay(e) for e in Events().feed(raw)) == raw
    assert not completion.is_usage_reported


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_end_with_a_blank_line_of_any_kind(end: bytes) -> None:
    body = b"event: x" + end + b"data: 1" + end + b"data:2" + end + end + b": c" + end + end

    first, second = Events().feed(body)

    assert (first.data, second.data) == (b"1\n2", None)
    assert first.raw + second.raw == body


@given(st.lists(st.integers(0, 200), max_size=8), st.sampled_from([b"\n", b"\r\n"]))
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int], end: bytes) -> None:
    body = (delta("hello") + USAGE + b": ping\n\n" + DONE + b"data: {").replace(b"\n", end)
    at = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    events = Events()

    found = [e for a, b in pairwise(at) for e in events.feed(body[a:b])]

    assert found == Events().feed(body)
    assert events.close() == Event(b"data: {", b"{")
    assert b"".join(e.raw for e in found) + b"data: {" == body


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "insufficient_quota"),
        (504, "server_error"),
    ],
)
def test_a_refusal_has_openais_error_object_too(status: int, kind: str) -> None:
    problem = {"title": "Budget exhausted", "status": status, "detail": "no money", "scope": "x"}

    document = orjson.loads(OpenAI().error(status, problem)[1])

    assert document["error"] == {
        "message": "no money",
        "type": kind,
        "param": None,
        "code": "budget_exhausted",
    }
    assert document["scope"] == "x"


def test_the_answer_is_where_a_path_says() -> None:
    document = {"choices": [{"message": {"content": '{"city": "Paris"}', "n": 7}}], "id": "x"}
    body = orjson.dumps(document)

    def at(path: str) -> Any:
        return OpenAI(path).answer(Payload(), HttpReply(200, [], NoBody()), body).value

    assert at("choices[0].message.content") == '{"city": "Paris"}'
    assert at("choices[0].message.n") == 7
    assert at("choices[0].message.nowhere") is None  # passed on all the same


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("choices[0].message.content", "Paris"),
        ("choices[0].text", "Paris"),
        ("choices[0].message.tool_calls[0].function.name", None),
    ],
)
def test_of_a_stream_the_text_is_the_answer_and_nothing_else_can_be(
    path: str, value: str | None
) -> None:
    body = delta("Par") + delta("is", finish_reason="stop") + USAGE + DONE

    whole = OpenAI(path).answer(Payload(), HttpReply(200, STREAM, NoBody()), body)
    follower = OpenAI(path).follow(chat(stream=True).payload)  # type: ignore[arg-type]
    assert follower is not None
    follower.feed(body)

    assert whole.value == follower.answer().value == value


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot read the path"):
        OpenAI("choices[")


def relayed(*events: bytes, document: dict[str, Any] | None = None) -> list[bytes]:
    """Return what a client gets after each event, then at the end."""
    call = chat(stream=True, **(document or {}))
    reader = OpenAI().follow(call.payload)
    assert reader is not None
    return [*[reader.feed(one) for one in events], reader.close()]


def test_what_a_server_adds_to_a_removed_chunk_of_usage_goes_with_the_finish_reason() -> None:
    end = delta("", finish_reason="stop")
    timings = b'"timings":{"n":41.50, "ms":1E-2},"x":12345678901234567890123'
    usage = USAGE.replace(b'{"choices"', b'{%b,"choices"' % timings)
    text, finish, gone, done, rest = relayed(delta("hi"), end, usage, DONE)
    assert (text, finish, done, rest) == (delta("hi"), b"", DONE, b"")
    assert gone == end.replace(b"}\n\n", b",%b}\n\n" % timings)


def test_without_such_members_the_finish_reason_is_passed_on_as_it_came() -> None:
    end = delta("", finish_reason="stop")
    assert relayed(delta("hi"), end, USAGE, DONE) == [delta("hi"), b"", end, DONE, b""]
    assert relayed(end, DONE) == [b"", end + DONE, b""]
    assert relayed(end, b": ping\n\n", DONE) == [b"", end + b": ping\n\n", DONE, b""]
    assert relayed(end, delta("b"), end) == [b"", end + delta("b"), b"", end]
    assert relayed(end + USAGE + DONE) == [end + DONE, b""]
    late = event({"choices": [], "usage": {"prompt_tokens": 9}, "timings": {"n": 1}})
    alone = event({"choices": [], "timings": {"n": 1}})
    assert relayed(delta("hi"), late, DONE) == [delta("hi"), alone, DONE, b""]


def test_a_stream_that_breaks_off_gives_up_what_waited() -> None:
    reader = OpenAI().follow(chat(stream=True).payload)
    assert reader is not None
    end = delta("", finish_reason="stop")
    assert reader.feed(end) == b""
    assert (reader.release(), reader.release()) == (end, b"")


def test_the_wish_of_openrouters_clients_for_usage_is_theirs() -> None:
    call = chat(stream=True, usage={"include": True})
    assert sent(call)[1]["usage"] == {"include": True}
    assert sent(call)[1]["stream_options"] == {"include_usage": True}
    end = delta("", finish_reason="stop")
    assert relayed(end, USAGE, document={"usage": {"include": True}}) == [end, USAGE, b""]
    assert relayed(end, USAGE, document={"usage": {"include": False}}) == [b"", end, b""]


@pytest.mark.parametrize("root", [b"", b"/v1", b"/v1/", b"/openai/v1", b"/any/v1"])
def test_a_path_that_has_no_id_names_no_object(root: bytes) -> None:
    run, thread = root + b"/threads/runs", root + b"/threads/thread_1"
    assert endpoints.find(b"POST", run).is_declared
    assert endpoints.subject(b"POST", run) == ""
    assert endpoints.find(b"POST", thread).is_free
    assert endpoints.subject(b"POST", thread) == "thread_1"
