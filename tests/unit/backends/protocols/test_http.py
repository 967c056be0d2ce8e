"""HTTP of any kind: everything passes, and what can be read is read."""

import math
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tollway.backends.errors import InvalidAnswer
from tollway.backends.protocols.http import places
from tollway.backends.protocols.http.free import FreePaths
from tollway.backends.protocols.http.presets import PRESETS
from tollway.backends.protocols.http.protocol import Http
from tollway.backends.protocols.http.relay import WHOLE_BYTES_MAX, HttpRelay
from tollway.backends.protocols.registry import protocol
from tollway.backends.types import Call, Headers, HttpReply, ModelAnswer, Payload
from tollway.gateway.features.extractor import FeatureExtractor

JSON: Headers = [(b"content-type", b"application/json")]


class NoBody:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("a protocol reads no stream")

    async def aclose(self) -> None:
        return None


def reply(kind: bytes, status: int = 200, **fields: str) -> HttpReply:
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    return HttpReply(status, [(b"content-type", kind), *headers], NoBody())


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"])
@pytest.mark.parametrize(
    ("kind", "body", "data"),
    [
        (b"application/json", b'{"a": 1}', {"a": 1}),
        (b"application/json; charset=utf-8", b"[1]", [1]),
        (b"application/ld+json", b'{"a": 1}', {"a": 1}),
        (b"application/x-www-form-urlencoded", b'{"a": 1}', {"a": 1}),
        (b"application/x-www-form-urlencoded", b"a=1", None),
        (b"", b'"text"', "text"),
        (b"text/csv", b"1,2", None),
        (b"image/jpeg", b"\xff\xd8", None),
        (b"application/json", b"{", None),
        (b"application/json", b"\xff", None),
        (b"application/x-npy", b"\x93NUMPY", None),
    ],
)
def test_any_request_passes_as_it_is(method: bytes, kind: bytes, body: bytes, data: Any) -> None:
    wire = Http()
    headers = [(b"content-type", kind)] if kind else []
    call = Call(method, b"/any/thing?a=/b", headers, body)

    payload = wire.parse(call)

    assert payload.data == data
    assert bool(payload.fault) is (data is None)
    assert wire.readdress(call, b"/base", "m", payload) == (b"/base/any/thing?a=/b", {})


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        (b"text/plain", b"setosa\n", "setosa"),
        (b"text/csv; charset=utf-8", b"0.12,0.88\n", "0.12,0.88"),
        (b"text/plain", b'{"label": "a"}', "a"),
        (b"image/png", b"\x89PNG", None),
        (b"application/octet-stream", b"\x00", None),
        (b"application/octet-stream", b'{"label": "a"}', "a"),
        (b"text/html", b"<p>x</p>", None),
        (b"text/plain", b"x" * 5000, None),
        (b"application/json", b'{"prediction": 1, "uncertainty": NaN}', 1),
    ],
)
def test_the_answer_is_read_where_there_is_one(kind: bytes, body: bytes, value: Any) -> None:
    assert Http().answer(Payload(), reply(kind), body).value == value


def test_the_answer_may_be_a_header_field() -> None:
    wire = Http(answer="$headers.x-label", confidence="$headers.x-confidence")

    told = wire.answer(Payload(), reply(b"image/png", x_label="3", x_confidence="0.75"), b"\x89")

    assert told == ModelAnswer(3, (0.75,))
    assert wire.answer(Payload(), reply(b"image/png"), b"\x89") == ModelAnswer()
    with pytest.raises(InvalidAnswer, match=r"nothing at \$headers"):
        wire.answer(Payload(), reply(b"application/json"), b"{}")


@pytest.mark.parametrize("path", ["$query.a", "$body", "$"])
def test_a_reply_has_only_header_fields_beside_its_document(path: str) -> None:
    with pytest.raises(ValueError, match=r"is unknown|cannot read"):
        Http(answer=path)


@pytest.mark.parametrize(
    ("kind", "fields", "status", "relays"),
    [
        (b"text/event-stream", {"content_length": "10"}, 200, True),
        (b"Text/Event-Stream; charset=utf-8", {}, 200, True),
        (b"application/x-ndjson", {}, 200, True),
        (b"application/jsonlines", {}, 200, True),
        (b"text/plain", {}, 200, True),
        (b"video/mp4", {"content_length": str(WHOLE_BYTES_MAX + 1)}, 206, True),
        (b"image/png", {"content_length": str(WHOLE_BYTES_MAX)}, 200, False),
        (b"image/png", {"content_length": "9" * 30}, 200, True),
        (b"application/json", {}, 200, False),
        (b"", {}, 200, False),
        (b"text/event-stream", {}, 500, False),
        (b"text/plain", {}, 404, False),
    ],
)
def test_what_is_not_a_small_document_is_relayed_as_it_comes(
    kind: bytes, fields: dict[str, str], status: int, relays: bool
) -> None:
    follower = Http().follow(Payload())
    assert isinstance(follower, HttpRelay)
    assert follower.takes(reply(kind, status, **fields)) is relays
    assert not Http().streams(Payload())
    assert protocol("plain").follow(Payload()) is None


def test_a_short_text_that_was_relayed_is_the_answer() -> None:
    for size, value in ((3, "xxx"), (5000, None)):
        follower = Http().follow(Payload())
        assert isinstance(follower, HttpRelay)
        assert follower.takes(reply(b"text/plain"))
        assert follower.feed(b"x" * size) == b"x" * size
        assert follower.answer().value == value


# -- free paths


@pytest.mark.parametrize(
    ("method", "target", "free"),
    [
        (b"GET", b"/a/health", True),
        (b"HEAD", b"/a/health", True),
        (b"GET", b"/a/health?x=/predict", True),
        (b"GET", b"/a//health/", True),
        (b"GET", b"/a/%68ealth", True),
        (b"GET", b"/a/docs/x/y", True),
        (b"GET", b"/a/docs", True),
        (b"POST", b"/a/tokenize", True),
        (b"POST", b"/a/health", False),
        (b"GET", b"/a/tokenize", False),
        (b"GET", b"/a/Health", False),
        (b"GET", b"/a/healthy", False),
        (b"GET", b"/health", False),
        (b"GET", b"/a/%2568ealth", False),
        (b"GET", b"/a/docs/../predict", False),
        (b"GET", b"/a/docs/%2e%2e/predict", False),
        (b"GET", b"/a/docs/..;/predict", False),
        (b"GET", b"/a/docs\\..\\predict", False),
        (b"GET", b"/a/predict/docs/", False),
        (b"GET", b"/a/predict%3f/../docs", False),
        (b"GET", b"/a/docs/%00", False),
        (b"DELETE", b"/a/docs/x", False),
    ],
)
def test_only_what_is_plainly_a_free_path_is_free(method: bytes, target: bytes, free: bool) -> None:
    written = ("/a/health", "/a/docs/*", "POST /a/tokenize")
    assert FreePaths(written).has(method, target) is free


@pytest.mark.parametrize("entry", ["health", "GET", "get /x", "/a?b", "/a/*/b", "/a b", "", "/a*b"])
def test_a_free_path_that_cannot_be_read_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        FreePaths([entry])


def test_free_paths_are_below_a_wildcard_and_beside_one_path() -> None:
    below, beside = Http(path="/a/*"), Http(path="/a/predict", free=("/health",))
    assert below.parse(Call(b"GET", b"/a/openapi.json", [])).endpoint.is_free
    assert beside.parse(Call(b"GET", b"/a/health", [])).endpoint.is_free
    assert beside.paths("/a/predict") == ("/a/health",)
    assert Http(path="/a/predict").paths("/a/predict") == ()
    assert not Http(path="/a/*", free=()).parse(Call(b"GET", b"/a/health", [])).endpoint.is_free


def test_a_prefix_is_stripped_and_one_path_replaced() -> None:
    strip = Http(path="/bento/*", strip="/bento")
    sagemaker = Http(path="/endpoints/{name}/invocations", preset="sagemaker", free=("/ping",))
    call = Call(b"POST", b"/bento/classify?a=1", [])
    other = Call(b"POST", b"/endpoints/e/invocations?a=1", [])

    assert strip.readdress(call, b"/b", None, Payload())[0] == b"/b/classify?a=1"
    assert strip.readdress(Call(b"GET", b"/bento", []), b"", None, Payload())[0] == b"/"
    assert sagemaker.readdress(other, b"", None, Payload())[0] == b"/invocations?a=1"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_complete(name: str) -> None:
    wire = Http(path="/x/*", preset=name)
    problem = {"type": "t", "title": "No", "status": 402, "detail": "why"}

    document = orjson.loads(wire.error(402, problem)[1])

    assert problem.items() <= document.items()
    assert "$" not in orjson.dumps(document).decode()
    assert wire.paths("/x/*")


def test_an_error_has_the_shape_of_its_preset() -> None:
    problem = {"title": "No", "status": 402, "detail": "why"}
    vertex = orjson.loads(Http(preset="vertex").error(402, problem)[1])
    assert vertex["error"] == {"code": 402, "message": "why", "status": "No"}
    assert orjson.loads(Http().error(402, problem)[1])["error"] == "why"


# -- features beside the document


FORM = (
    b'--X\r\nContent-Disposition: form-data; name="age"\r\n\r\n41\r\n'
    b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--X--\r\n'
)


@pytest.mark.parametrize(
    ("path", "call", "value"),
    [
        ("$query.q", Call(b"GET", b"/a?q=1.5&q=2", []), 1.5),
        ("$headers.x-size", Call(b"POST", b"/a", [(b"x-size", b" 7 ")]), 7.0),
        ("$bytes", Call(b"POST", b"/a", [], b"12345"), 5.0),
        (
            "$form.age",
            Call(b"POST", b"/", [(b"content-type", b"multipart/form-data; boundary=X")], FORM),
            41.0,
        ),
        (
            "$form.file.bytes",
            Call(b"POST", b"/", [(b"content-type", b"multipart/form-data; boundary=X")], FORM),
            3.0,
        ),
        (
            "$form.a",
            Call(
                b"POST", b"/", [(b"content-type", b"application/x-www-form-urlencoded")], b"a=3&b"
            ),
            3.0,
        ),
        ("$query.q", Call(b"GET", b"/a?q=text", []), math.nan),
        ("$query.q", Call(b"GET", b"/a", []), math.nan),
        ("$query.q", Call(b"GET", b"/a?" + b"x=1&" * 70, []), math.nan),
        (
            "$form.a",
            Call(b"POST", b"/", [(b"content-type", b"multipart/form-data")], FORM),
            math.nan,
        ),
    ],
)
def test_numbers_are_read_beside_the_document(path: str, call: Call, value: float) -> None:
    extract = FeatureExtractor(numeric=(path,), span=(0, 2))
    call.payload = Http().parse(call)
    expected = 0.0 if math.isnan(value) else min(value - 1, 4.0)

    assert extract(call).dense == (pytest.approx(expected),)


def test_texts_and_categories_are_read_beside_the_document() -> None:
    extract = FeatureExtractor(text=("$text",), categorical=("$headers.x-region", "label"))
    calls = [
        Call(b"POST", b"/", [*JSON, (b"x-region", region)], b'{"label": "a"}')
        for region in (b"eu", b"us")
    ]
    for call in calls:
        call.payload = Http().parse(call)
    one, other = (extract(call) for call in calls)

    assert len(one.dense) == 5
    assert set(one.sparse) != set(other.sparse)


def test_a_place_that_no_request_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\$cookies is unknown; a request has \$bytes"):
        places.check_request("$cookies.a")
