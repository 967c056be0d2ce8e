"""The Gemini API: paths, requests, replies, streams of two kinds, bounds, and what it bills."""

from typing import Any

import orjson
import pytest

from tests.support.gemini import ARRAY, EVENTS, TEXT
from tollway.backends.dialect import limited, rewritten
from tollway.backends.errors import BadRequest, InvalidAnswer, ReportedFailure
from tollway.backends.output import limit
from tollway.backends.pricing import parse_price
from tollway.backends.protocols.gemini.protocol import Gemini
from tollway.backends.protocols.json_array import Elements
from tollway.backends.types import Call, Headers, HttpReply, Payload

WIRE = Gemini()
PRICE = parse_price(
    {
        "input_usd_per_mtok": 1,
        "cached_input_usd_per_mtok": "0.1",
        "output_usd_per_mtok": 10,
        "audio_input_usd_per_mtok": 3,
        "image_output_usd_per_mtok": 40,
        "per_search_usd": "0.014",
        "service_tiers": {"flex": 0.5, "priority": 1.8},
    }
)
READ, CACHED, MADE, HEARD, DRAWN, SEARCH = 1000, 100, 10_000, 3000, 40_000, 14_000_000
SSE: Headers = [(b"content-type", b"text/event-stream")]
JSON: Headers = [(b"content-type", b"application/json; charset=UTF-8")]
HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
PATH = b"/v1beta/models/gemini-2.5-flash:"


def call(document: Any = None, method: bytes = b"generateContent", **more: Any) -> Call:
    made = Call(b"POST", PATH + method, [], orjson.dumps({**HELLO, **(document or {}), **more}))
    made.payload = WIRE.parse(made)
    return made


def reply(headers: Headers = JSON) -> HttpReply:
    return HttpReply(200, headers, None)  # type: ignore[arg-type]


def answered(*parts: Any, finish: str = "STOP", **more: Any) -> bytes:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "finishReason": finish}
    return orjson.dumps({"candidates": [{**candidate, **more}]})


def modality(kind: str, count: int) -> dict[str, Any]:
    return {"modality": kind, "tokenCount": count}


BILLS: list[tuple[str, dict[str, Any], float]] = [
    (
        "text",
        {"promptTokenCount": 4, "candidatesTokenCount": 8, "totalTokenCount": 12},
        4 * READ + 8 * MADE,
    ),
    (
        "thoughts, beside the candidates",
        {
            "promptTokenCount": 10,
            "candidatesTokenCount": 123,
            "thoughtsTokenCount": 767,
            "totalTokenCount": 900,
        },
        10 * READ + 890 * MADE,
    ),
    (
        "a cached prefix, within the prompt",
        {
            "promptTokenCount": 696_219,
            "cachedContentTokenCount": 696_190,
            "candidatesTokenCount": 214,
            "totalTokenCount": 696_433,
        },
        29 * READ + 696_190 * CACHED + 214 * MADE,
    ),
    (
        "the results of tools, beside the prompt",
        {
            "promptTokenCount": 27,
            "toolUsePromptTokenCount": 10_309,
            "candidatesTokenCount": 45,
            "thoughtsTokenCount": 31,
            "totalTokenCount": 10_412,
        },
        10_336 * READ + 76 * MADE,
    ),
    (
        "sound among the text",
        {
            "promptTokenCount": 110,
            "promptTokensDetails": [modality("TEXT", 10), modality("AUDIO", 100)],
            "candidatesTokenCount": 5,
            "totalTokenCount": 115,
        },
        10 * READ + 100 * HEARD + 5 * MADE,
    ),
    (
        "an image",
        {
            "promptTokenCount": 10,
            "candidatesTokenCount": 1290,
            "candidatesTokensDetails": [modality("IMAGE", 1290)],
            "totalTokenCount": 1300,
        },
        10 * READ + 1290 * DRAWN,
    ),
    (
        "Vertex AI's flex traffic",
        {"promptTokenCount": 4, "candidatesTokenCount": 8, "trafficType": "ON_DEMAND_FLEX"},
        (4 * READ + 8 * MADE) / 2,
    ),
    (
        "Vertex AI's usual traffic",
        {"promptTokenCount": 4, "candidatesTokenCount": 8, "trafficType": "ON_DEMAND"},
        4 * READ + 8 * MADE,
    ),
    ("a blocked prompt", {"promptTokenCount": 4, "totalTokenCount": 4}, 4 * READ),
]


@pytest.mark.parametrize(("name", "usage", "nano"), BILLS, ids=[name for name, *_ in BILLS])
def test_documented_usage_is_billed_to_the_nano_dollar(
    name: str, usage: dict[str, Any], nano: float
) -> None:
    document = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}
    body = orjson.dumps(document)
    for headers, sent in ((JSON, body), (SSE, b"data: %b\n\n" % body), (JSON, b"[%b]" % body)):
        told = WIRE.usage(Payload(), reply(headers), sent)
        assert told is not None
        assert PRICE.cost_nano(told) == nano


@pytest.mark.parametrize(
    ("version", "billed"), [("gemini-2.5-pro", 1), ("gemini-3-pro-preview", 2), (None, 2)]
)
def test_searches_are_billed_by_request_or_by_query(version: str | None, billed: int) -> None:
    grounding = {"webSearchQueries": ["who won", "euro 2024"]}
    document = {
        "candidates": [{"groundingMetadata": grounding, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 8, "totalTokenCount": 12},
        "modelVersion": version,
    }
    body = orjson.dumps(document)
    for headers, sent in ((JSON, body), (SSE, b"data: %b\n\n" % body)):
        told = WIRE.usage(Payload(), reply(headers), sent)
        assert told is not None
        assert PRICE.cost_nano(told) == 4 * READ + 8 * MADE + billed * SEARCH


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize(
    ("method", "parts"),
    [(b"streamGenerateContent?alt=sse", EVENTS), (b"streamGenerateContent", ARRAY)],
)
def test_a_stream_passes_unchanged_and_is_read(
    method: bytes, parts: tuple[bytes, ...], size: int
) -> None:
    follower = WIRE.follow(call(method=method).payload)
    assert follower is not None
    raw = b"".join(parts)
    out = b"".join([follower.feed(raw[at : at + size]) for at in range(0, len(raw), size)])
    assert out + follower.close() == raw
    used = follower.reported_usage([])
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.exact) == (8, 35, True)
    assert follower.answer().value == TEXT


@pytest.mark.parametrize(
    ("method", "parts", "kind"),
    [
        (b"streamGenerateContent?alt=sse", EVENTS, b"text/event-stream"),
        (b"streamGenerateContent?alt=json", ARRAY, b"application/json"),
        (b"streamGenerateContent", ARRAY, b"application/json"),
    ],
)
def test_each_part_of_a_stream_goes_on_when_it_is_whole(
    method: bytes, parts: tuple[bytes, ...], kind: bytes
) -> None:
    follower = WIRE.follow(call(method=method).payload)
    assert follower is not None
    assert follower.media_type == kind
    assert follower.feed(parts[0]) == parts[0]
    assert follower.begun
    used = follower.reported_usage([])
    assert used is not None
    assert (used.input_tokens, used.exact) == (8, False)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b'[{"a":"}\\"{"}]',
        b'[{"a":"\\\\"},{"b":{"c":[{}]}}]',
        b'\n[ {"a":1}\n,\r\n{"b":"\\u007d"} ]\n',
        b'[{"a":1},{"b":',
        b'{"error":{"code":429}}',
    ],
)
def test_an_array_is_split_anywhere_and_joined_to_itself(raw: bytes, size: int) -> None:
    elements = Elements()
    found = [one for at in range(0, len(raw), size) for one in elements.feed(raw[at : at + size])]
    documents = [orjson.loads(one.data or b"") for one in found]
    last = elements.close()
    assert b"".join([one.raw for one in found]) + (last.raw if last else b"") == raw
    whole = raw.strip()
    if whole.endswith(b"]"):
        assert documents == orjson.loads(raw)
    elif whole.startswith(b"{"):
        assert documents == [orjson.loads(raw)]


def test_a_stream_that_is_cut_has_used_what_was_seen() -> None:
    follower = WIRE.follow(call(method=b"streamGenerateContent").payload)
    assert follower is not None
    follower.feed(ARRAY[0] + ARRAY[1][:20])
    used = follower.reported_usage([])
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.exact) == (8, 1, False)
    assert follower.waiting == 20


@pytest.mark.parametrize(
    ("method", "sent"),
    [
        (b"streamGenerateContent?alt=sse", b"data: %b\n\n"),
        (b"streamGenerateContent", b"[%b\n]"),
    ],
)
def test_an_error_in_a_stream_is_the_reply_it_would_have_been(method: bytes, sent: bytes) -> None:
    follower = WIRE.follow(call(method=method).payload)
    assert follower is not None
    error = {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}
    follower.feed(sent % orjson.dumps({"error": error}))
    status, body = follower.refusal()
    assert (status, orjson.loads(body)) == (503, {"error": error})
    with pytest.raises(ReportedFailure):
        follower.answer()


@pytest.mark.parametrize(
    ("method", "ending"),
    [(b"streamGenerateContent?alt=sse", b"}\n\n"), (b"streamGenerateContent", b"}\r\n]")],
)
def test_a_stream_that_breaks_off_ends_as_its_kind_does(method: bytes, ending: bytes) -> None:
    payload = call(method=method).payload
    event = WIRE.last_event(payload, {"type": "x", "title": "Cut", "status": 502, "detail": "cut"})
    assert event.endswith(ending)
    if ending == b"}\r\n]":
        assert orjson.loads(ARRAY[0] + event)[-1]["error"]["code"] == 502


@pytest.mark.parametrize(
    ("target", "base", "name", "sent"),
    [
        (b"/v1beta/models/a:generateContent", b"", None, b"/v1beta/models/a:generateContent"),
        (
            b"/v1beta/models/a:streamGenerateContent?alt=sse",
            b"",
            "b",
            b"/v1beta/models/b:streamGenerateContent?alt=sse",
        ),
        (b"/v1beta/models/a:generateContent", b"/v1", "b", b"/v1/models/b:generateContent"),
        (b"/g/v1beta/models/a:countTokens", b"/v1beta", "b", b"/v1beta/models/b:countTokens"),
        (
            b"/v1beta/models/a:generateContent",
            b"/v1/projects/p/locations/eu/publishers/google",
            "b",
            b"/v1/projects/p/locations/eu/publishers/google/models/b:generateContent",
        ),
        (
            b"/v1/projects/x/locations/y/publishers/google/models/a:generateContent",
            b"",
            "b",
            b"/v1/projects/x/locations/y/publishers/google/models/b:generateContent",
        ),
        (
            b"/v1beta/models/a:generateContent",
            b"/proxy",
            "tunedModels/mine",
            b"/proxy/v1beta/tunedModels/mine:generateContent",
        ),
        (b"/v1beta/models", b"", "b", b"/v1beta/models"),
        (b"/v1beta/models/a", b"", "b", b"/v1beta/models/a"),
        (b"/v1beta/models?pageSize=9", b"/v1beta", "b", b"/v1beta/models?pageSize=9"),
        (b"/g/v1/models/veo/operations/1", b"/v1beta", "b", b"/v1beta/models/veo/operations/1"),
        (b"/v1beta/cachedContents", b"/v1/projects/p", None, b"/v1/projects/p/cachedContents"),
    ],
)
def test_the_path_has_the_backends_name_of_the_model(
    target: bytes, base: bytes, name: str | None, sent: bytes
) -> None:
    asked = Call(b"POST", target, [], b"{}")
    assert WIRE.readdress(asked, base, name, Payload({})) == (sent, {})


@pytest.mark.parametrize(
    ("method", "body", "sent"),
    [
        (
            b"embedContent",
            b'{"model":"models/a", "content":{"parts":[{"text":"models/a"}]}}',
            b'{"model":"models/b", "content":{"parts":[{"text":"models/a"}]}}',
        ),
        (
            b"batchEmbedContents",
            b'{"requests":[ {"model":"models/a","content":1},{"content":{"model":"x"}} ]}',
            b'{"requests":[ {"model":"models/b","content":1},{"content":{"model":"x"}} ]}',
        ),
        (b"generateContent", b'{"contents":[1],"model":"x"}', b'{"contents":[1],"model":"x"}'),
    ],
)
def test_bodies_that_name_the_model_have_the_backends_name(
    method: bytes, body: bytes, sent: bytes
) -> None:
    asked = Call(b"POST", PATH + method, [], body)
    asked.payload = WIRE.parse(asked)
    _, edits = WIRE.readdress(asked, b"", "b", asked.payload)
    assert rewritten(asked, asked.payload, edits) == sent


def test_the_model_is_named_by_the_path() -> None:
    asked = call()
    assert WIRE.model(asked, asked.payload) == "gemini-2.5-flash"
    listing = Call(b"GET", b"/v1beta/models", [])
    assert WIRE.model(listing, WIRE.parse(listing)) == ""


@pytest.mark.parametrize(
    ("verb", "path", "free", "declared"),
    [
        (b"POST", b"/v1beta/models/a:generateContent", False, False),
        (b"POST", b"/v1beta/models/a:countTokens", True, False),
        (b"POST", b"/v1beta/models/a:embedContent", False, False),
        (b"GET", b"/v1beta/models", True, False),
        (b"GET", b"/v1beta/models/a", True, False),
        (b"POST", b"/v1beta/models/a:batchGenerateContent", False, True),
        (b"POST", b"/v1beta/models/veo:predictLongRunning", False, True),
        (b"POST", b"/v1beta/cachedContents", False, True),
    ],
)
def test_only_reads_and_counts_are_free(
    verb: bytes, path: bytes, free: bool, declared: bool
) -> None:
    body = b"" if verb == b"GET" else orjson.dumps({**HELLO, "content": HELLO["contents"][0]})
    endpoint = WIRE.parse(Call(verb, path, [], body)).endpoint
    assert (endpoint.is_free, endpoint.is_declared) == (free, declared)


@pytest.mark.parametrize(
    "body",
    [
        b'{"contents":[1],"contents":[2]}',
        b'{"contents":[1],"generationConfig":{},"generationConfig":{"maxOutputTokens":1}}',
        b'{"contents":[1],"generationConfig":{"maxOutputTokens":9,"maxOutputTokens":1}}',
        b'{"contents":[1],"generation_config":{"candidate_count":9,"candidate_count":1}}',
    ],
)
def test_a_member_that_decides_money_is_there_once(body: bytes) -> None:
    with pytest.raises(BadRequest, match="more than once"):
        WIRE.parse(Call(b"POST", PATH + b"generateContent", [], body))


@pytest.mark.parametrize("body", [b"{}", b'{"contents":[]}', b'{"contents":null}', b"[]"])
def test_a_request_without_contents_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        WIRE.parse(Call(b"POST", PATH + b"generateContent", [], body))


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (answered({"text": "Hel"}, {"text": "lo"}), "Hello"),
        (answered({"text": "hm", "thought": True}, {"text": "yes"}), "yes"),
        (answered({"functionCall": {"name": "f", "args": {}}}), [{"name": "f", "args": {}}]),
        (answered({"inlineData": {"mimeType": "image/png", "data": "x"}}), None),
        (b'{"totalTokens": 31}', None),
        (b'{"embedding": {"values": [0.1]}}', None),
    ],
)
def test_the_answer_is_the_text_or_the_calls(body: bytes, value: Any) -> None:
    assert WIRE.answer(Payload(), reply(), body).value == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"promptFeedback": {"blockReason": "SAFETY"}}', "SAFETY"),
        (answered(finish="MAX_TOKENS"), "MAX_TOKENS"),
        (b'{"candidates": [{"finishReason": "SAFETY"}]}', "SAFETY"),
        (answered({"text": "hm", "thought": True}, finish="MAX_TOKENS"), "MAX_TOKENS"),
    ],
)
def test_a_reply_without_an_answer_says_why(body: bytes, why: str) -> None:
    with pytest.raises(InvalidAnswer, match=why):
        WIRE.answer(Payload(), reply(), body)


def test_log_probabilities_are_confidence() -> None:
    chosen = [{"logProbability": -0.5}, {"logProbability": -1.5}]
    body = answered({"text": "yes"}, logprobsResult={"chosenCandidates": chosen}, avgLogprobs=-9)
    assert WIRE.answer(Payload(), reply(), body).features[2:] == pytest.approx(
        (0.3679, 0.2231), abs=1e-4
    )
    mean = WIRE.answer(Payload(), reply(), answered({"text": "yes"}, avgLogprobs=-0.1)).features
    assert mean[2:] == pytest.approx((0.9048,), abs=1e-4)


DATA = {"inlineData": {"mimeType": "image/png", "data": "iVBO"}}


@pytest.mark.parametrize(
    ("more", "whole"),
    [
        ({}, True),
        ({"systemInstruction": {"parts": [{"text": "s"}]}}, True),
        ({"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {}}}]}]}, True),
        ({"contents": [{"parts": [DATA]}]}, False),
        ({"contents": {"parts": [DATA]}}, False),
        ({"contents": {"parts": DATA}}, False),
        ({"system_instruction": {"parts": [DATA]}}, False),
        ({"contents": [{"parts": [{"inline_data": DATA["inlineData"]}]}]}, False),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "gs://x"}}]}]}, False),
        ({"contents": [{"parts": [{"functionResponse": {"name": "f", "parts": [DATA]}}]}]}, False),
        ({"cachedContent": "cachedContents/x"}, False),
        ({"cached_content": "cachedContents/x"}, False),
    ],
)
def test_only_text_is_bounded_by_its_bytes(more: dict[str, Any], whole: bool) -> None:
    asked = call(more)
    assert bool(WIRE.bound(asked, asked.payload).input_tokens) == whole
    assert not WIRE.output(asked, asked.payload).unbounded  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"tools": [{"googleSearch": {}}]}, r"tools\[0\].googleSearch"),
        ({"tools": [{"functionDeclarations": []}, {"code_execution": {}}]}, "code_execution"),
        ({"tools": [{"functionDeclarations": [], "urlContext": {}}]}, "urlContext"),
        ({"ofTomorrow": 1}, "ofTomorrow"),
        ({"generationConfig": {}, "generation_config": {}}, "twice"),
        ({"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}}, "twice"),
    ],
)
def test_what_nothing_bounds_is_named(more: dict[str, Any], named: str) -> None:
    asked = call(more)
    output = WIRE.output(asked, asked.payload)
    assert output is not None
    with pytest.raises(ValueError, match=named):
        raise ValueError(output.unbounded)
    assert WIRE.bound(asked, asked.payload).output_tokens == 0


@pytest.mark.parametrize(
    ("config", "most", "answers"),
    [
        ({}, 0, 1),
        ({"maxOutputTokens": 100}, 100, 1),
        ({"max_output_tokens": 100, "candidate_count": 3}, 300, 3),
        ({"maxOutputTokens": "100"}, 0, 1),
        ({"maxOutputTokens": 100, "candidateCount": 1.5}, 0, 0),
        ({"maxOutputTokens": 100, "responseModalities": ["TEXT", "IMAGE"]}, 0, 1),
        ({"maxOutputTokens": 100, "speechConfig": {}}, 0, 1),
    ],
)
def test_output_is_bounded_by_the_configuration(
    config: dict[str, Any], most: float, answers: float
) -> None:
    asked = call(generationConfig=config)
    assert WIRE.bound(asked, asked.payload).output_tokens == most
    output = WIRE.output(asked, asked.payload)
    assert output is not None
    assert output.answers == answers


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (
            b'{"contents":[1], "n":1.50}',
            b'{"generationConfig":{"maxOutputTokens":64},"contents":[1], "n":1.50}',
        ),
        (
            b'{"contents":[1], "generationConfig" : { "topK":1 } }',
            b'{"contents":[1], "generationConfig" : {"maxOutputTokens":64, "topK":1 } }',
        ),
        (
            b'{"generationConfig":{ },"contents":[1]}',
            b'{"generationConfig":{"maxOutputTokens":64 },"contents":[1]}',
        ),
        (
            b'{"generationConfig":null,"contents":[1]}',
            b'{"generationConfig":{"maxOutputTokens":64},"contents":[1]}',
        ),
        (
            b'{"generation_config":{"max_output_tokens":900},"contents":[1]}',
            b'{"generation_config":{"max_output_tokens":64},"contents":[1]}',
        ),
        (
            b'{"contents":[1],"generationConfig":{"maxOutputTokens":"900"}}',
            b'{"contents":[1],"generationConfig":{"maxOutputTokens":64}}',
        ),
    ],
)
def test_a_limit_is_written_into_the_configuration(body: bytes, sent: bytes) -> None:
    asked = Call(b"POST", PATH + b"generateContent", [], body)
    payload = WIRE.parse(asked)
    output = WIRE.output(asked, payload)
    assert output is not None
    edits = limited(limit(output, 64, output.field, ()))
    assert rewritten(asked, payload, edits) == sent


@pytest.mark.parametrize(
    ("more", "features"),
    [
        ({}, set()),
        ({"tools": [{"functionDeclarations": [{"name": "f"}]}]}, {"tools"}),
        ({"contents": [{"parts": [DATA]}]}, {"vision"}),
        ({"contents": [{"parts": [{"inline_data": {"mime_type": "audio/wav"}}]}]}, {"audio"}),
        ({"contents": [{"parts": [{"fileData": {"mimeType": "application/pdf"}}]}]}, {"files"}),
        ({"generationConfig": {"responseMimeType": "application/json"}}, {"json_object"}),
        ({"generationConfig": {"responseSchema": {"type": "OBJECT"}}}, {"json_schema"}),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}, set()),
        ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}}}, {"reasoning"}),
        ({"generationConfig": {"responseLogprobs": True}}, {"logprobs"}),
        ({"generationConfig": {"candidateCount": 2}}, {"n"}),
        ({"generationConfig": {"responseModalities": ["AUDIO"]}}, {"audio"}),
    ],
)
def test_a_request_needs_what_it_uses(more: dict[str, Any], features: set[str]) -> None:
    asked = call(more)
    assert WIRE.needs(asked, asked.payload, float("inf")).features == features
    streamed = call(more, b"streamGenerateContent")
    assert WIRE.needs(streamed, streamed.payload, 0.0).features == features | {"streaming"}


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (402, "FAILED_PRECONDITION"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (422, "INVALID_ARGUMENT"),
        (429, "RESOURCE_EXHAUSTED"),
        (502, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_a_refusal_is_an_error_of_googles_apis(status: int, name: str) -> None:
    problem = {"type": "urn:x", "title": "Budget held", "status": status, "detail": "wait"}
    document = orjson.loads(WIRE.error(status, problem)[1])
    error = document["error"]
    assert (error["code"], error["status"], error["message"]) == (status, name, "wait")
    assert error["details"][0]["reason"] == "BUDGET_HELD"
    assert "status" not in document


def test_fields_that_name_a_project_are_withheld() -> None:
    assert WIRE.withholds is not None
    assert WIRE.withholds.match(b"x-goog-user-project")
    assert not WIRE.withholds.match(b"x-goog-api-client")
