"""Log-probabilities are asked for, read, and hidden: the client's bytes are what they would be."""

import math
from typing import Any

import orjson
import pytest

from tollway.backends.protocols.openai import logprobs
from tollway.backends.protocols.openai.protocol import OpenAI
from tollway.backends.types import Call, Document, HttpReply, Payload

WIRE = OpenAI(logprobs="auto")
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def entry(log: float, **more: Any) -> dict[str, Any]:
    return {"token": "a", "logprob": log, "bytes": [97], "top_logprobs": [], **more}


def call(**more: Any) -> Call:
    made = Call(b"POST", b"/v1/chat/completions", [], orjson.dumps({**ASK, **more}))
    made.payload = WIRE.parse(made)
    return made


def reply_of(body: bytes, kind: bytes = b"application/json") -> HttpReply:
    return HttpReply(200, [(b"content-type", kind)], None)  # type: ignore[arg-type]


def test_a_chat_is_asked_for_them_unless_the_client_says_something_of_them() -> None:
    assert WIRE.readdress(call(), b"", None, call().payload)[1] == {"logprobs": True}
    for more in ({"logprobs": True}, {"logprobs": False}, {"max_tokens": 9000}, {"audio": {}}):
        assert "logprobs" not in WIRE.readdress(call(**more), b"", None, call(**more).payload)[1]
    assert not OpenAI().readdress(call(), b"", None, call().payload)[1]


def test_a_refusal_that_names_them_is_known_as_one_of_ours() -> None:
    (added,) = WIRE.added(call().payload)
    assert added.path == "logprobs"
    assert any(word in b"'logprobs' is not supported with this model" for word in added.words)


WITHOUT = b'{"id":"c","choices":[{"index":0,"message":{"content":"a"},%b"finish_reason":"stop"}]}'
ONE = orjson.dumps({"content": [entry(-0.1)], "refusal": None})
LLAMA = orjson.dumps({"content": [entry(-0.1, id=7)]})
NAMED = orjson.dumps({"content": [entry(-0.1) | {"token": "logprobs"}]})


@pytest.mark.parametrize(
    ("style", "told", "shown"),
    [
        ("auto", b'"logprobs":%b,' % ONE, b'"logprobs":null,'),
        ("auto", b'"logprobs": %b ,' % ONE, b'"logprobs": null ,'),
        ("auto", b'"logprobs":%b,' % LLAMA, b""),
        ("auto", b'"logprobs":%b,' % NAMED, b'"logprobs":null,'),
        ("absent", b'"logprobs":%b,' % ONE, b""),
        ("absent", b'"logprobs":%b,' % NAMED, b""),
        ("null", b'"logprobs":%b,' % LLAMA, b'"logprobs":null,'),
        ("auto", b'"logprobs":null,', b'"logprobs":null,'),
        ("auto", b"", b""),
    ],
)
def test_the_client_gets_what_it_would_have_got(style: str, told: bytes, shown: bytes) -> None:
    body = WITHOUT % told
    assert logprobs.hidden(body, orjson.loads(body), style) == WITHOUT % shown


def test_a_last_member_goes_with_the_comma_before_it() -> None:
    body = b'{"choices":[{"message":{"content":"\xc3\xa9"}, "logprobs":%b}]}' % LLAMA
    assert logprobs.hidden(body, orjson.loads(body)) == (
        b'{"choices":[{"message":{"content":"\xc3\xa9"}}]}'
    )


def test_they_are_hidden_only_where_the_client_did_not_ask() -> None:
    body = WITHOUT % (b'"logprobs":%b,' % ONE)
    assert WIRE.hidden(call().payload, reply_of(body), body) == WITHOUT % b'"logprobs":null,'
    assert WIRE.hidden(call(logprobs=True).payload, reply_of(body), body) == body
    broken = b'{"logprobs"'
    assert WIRE.hidden(call().payload, reply_of(broken), broken) == broken


def test_the_features_are_the_mean_and_the_least_probability() -> None:
    told = {"content": [entry(math.log(0.5)), entry(math.log(0.9)), {"logprob": "x"}, 3]}
    assert logprobs.features(logprobs.logs_of({"logprobs": told})) == pytest.approx(
        (math.sqrt(0.45), 0.5)
    )
    assert logprobs.features(logprobs.logs_of({"logprobs": None})) == ()
    assert logprobs.logs_of({"logprobs": {"token_logprobs": [None, -1.0]}}) == [-1.0]


def chunk(text: str, told: Any, finish: Any = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": told, "finish_reason": finish}
    return b"data: %b\n\n" % orjson.dumps({"id": "c", "choices": [choice]})


def test_a_stream_hides_them_and_reads_them() -> None:
    reader = WIRE.follow(call(stream=True).payload)
    assert reader is not None
    asked = [
        chunk("a", {"content": [entry(math.log(0.5))]}),
        chunk("b", {"content": [entry(math.log(0.5))]}),
        chunk("b", {"content": [entry(math.log(0.5))]}),
        chunk("", None, "stop"),
    ]
    plain = [chunk("a", None), chunk("b", None), chunk("b", None), chunk("", None, "stop")]
    out = b"".join([reader.feed(part) for part in asked]) + reader.close()
    assert out == b"".join(plain)
    assert reader.answer().features[2:] == pytest.approx((0.5, 0.5))
    assert reader.answer().value == "abb"


def test_a_stream_of_llama_cpp_leaves_the_member_out() -> None:
    reader = WIRE.follow(call(stream=True).payload)
    assert reader is not None
    told = b'data: {"choices":[{"delta":{"content":"a"},"index":0,"logprobs":%b}]}\n\n' % LLAMA
    assert reader.feed(told) == b'data: {"choices":[{"delta":{"content":"a"},"index":0}]}\n\n'


def test_a_client_that_asked_gets_its_stream_unchanged() -> None:
    reader = WIRE.follow(call(stream=True, logprobs=True).payload)
    assert reader is not None
    told = chunk("a", {"content": [entry(-0.5)]})
    assert reader.feed(told) == told


def test_a_stream_that_was_read_whole_gives_the_same_answer() -> None:
    parts = [chunk("a", {"content": [entry(math.log(0.5))]}), chunk("", None, "stop")]
    answer = WIRE.answer(
        call(stream=True).payload, reply_of(b"", b"text/event-stream"), b"".join(parts)
    )
    assert answer.value == "a"
    assert answer.features[2:] == pytest.approx((0.5, 0.5))


def test_a_reply_that_was_not_kept_whole_is_hidden_too() -> None:
    body = WITHOUT % (b'"logprobs":%b,' % ONE)
    reply = reply_of(body)
    reply.document = Document({"choices": [{"logprobs": "..."}]}, is_whole=False)
    assert WIRE.hidden(call().payload, reply, body) == WITHOUT % b'"logprobs":null,'


def test_other_payloads_are_left_alone() -> None:
    assert not WIRE.added(Payload({"model": "m", "prompt": "x"}))
    assert not WIRE.added(Payload(None))


def completing(**more: Any) -> Call:
    document = {"model": "m", "prompt": "hi", **more}
    made = Call(b"POST", b"/v1/completions", [], orjson.dumps(document))
    made.payload = WIRE.parse(made)
    return made


def test_a_completion_is_asked_for_one_unless_it_echoes_or_the_client_asks() -> None:
    made = completing()
    assert WIRE.readdress(made, b"", None, made.payload)[1] == {"logprobs": 1}
    for more in ({"logprobs": 0}, {"logprobs": None}, {"echo": True}, {"max_tokens": 9000}):
        made = completing(**more)
        assert "logprobs" not in WIRE.readdress(made, b"", None, made.payload)[1]


def test_those_of_a_completion_are_read_and_hidden() -> None:
    told = {"tokens": ["a", "b"], "token_logprobs": [-0.1, -0.5], "top_logprobs": [{}, {}]}
    choice = {"text": "ab", "index": 0, "logprobs": told, "finish_reason": "stop"}
    body = orjson.dumps({"id": "c", "object": "text_completion", "choices": [choice]})
    hidden = WIRE.hidden(completing().payload, reply_of(body), body)
    assert orjson.loads(hidden)["choices"] == [choice | {"logprobs": None}]
    answer = WIRE.answer(completing().payload, reply_of(body), body)
    assert answer.features[2:] == pytest.approx((math.exp(-0.3), math.exp(-0.5)))
