"""TensorFlow Serving's REST API, which KServe calls V1."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tollway.backends.errors import InvalidAnswer
from tollway.backends.protocols.tfserving import TfServing
from tollway.backends.types import Call, HttpReply, Payload


class NoBody:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("a protocol reads no stream")

    async def aclose(self) -> None:
        return None


@pytest.mark.parametrize(
    ("target", "model", "sent"),
    [
        (b"/v1/models/iris:predict", "small", b"/b/v1/models/small:predict"),
        (b"/v1/models/iris:predict?a=:", None, b"/b/v1/models/iris:predict?a=:"),
        (b"/v1/models/iris/versions/3:explain", "s", b"/b/v1/models/s/versions/3:explain"),
        (b"/v1/models/iris", "s", b"/b/v1/models/s"),
        (b"/v1/models/iris/metadata", "s", b"/b/v1/models/s/metadata"),
        (b"/ns/a/v1/models/iris:predict", "a/b", b"/b/v1/models/a%2Fb:predict"),
        (b"/classify?x", "s", b"/b/v1/models/s:predict?x"),
        (b"/classify", None, b"/b/classify"),
    ],
)
def test_only_the_models_name_changes(target: bytes, model: str | None, sent: bytes) -> None:
    call = Call(b"POST", target, [], b"{}")
    assert TfServing().readdress(call, b"/b", model, Payload()) == (sent, {})


@pytest.mark.parametrize(
    ("document", "value", "features"),
    [
        ({"predictions": [3]}, 3, ()),
        ({"predictions": [[0.2, 0.8]]}, 1, (0.8, 0.6, 0.7219281)),
        ({"predictions": [1, 2]}, [1, 2], ()),
        ({"outputs": [[1.0, 0.0]]}, 0, (1.0, 1.0, 0.0)),
        ({"outputs": {"classes": [2], "scores": [0.5]}}, {"classes": [2], "scores": [0.5]}, ()),
        ({"results": [0.25]}, 0.25, ()),
        ({"explanations": [1, 2]}, [1, 2], ()),
        ({"predictions": [{"label": "x", "score": 0.5}]}, "x", (0.5,)),
    ],
)
def test_rows_columns_and_results_are_the_answer(
    document: Any, value: Any, features: tuple[float, ...]
) -> None:
    body = orjson.dumps(document)
    answer = TfServing().answer(Payload(), HttpReply(200, [], NoBody()), body)
    assert (answer.value, answer.features) == (value, pytest.approx(features))


def test_settings_say_where_the_probabilities_are() -> None:
    wire = TfServing(answer="outputs.label[0]", probabilities="outputs.p")
    body = b'{"outputs": {"label": ["a"], "p": [0.75, 0.25]}}'
    answer = wire.answer(Payload(), HttpReply(200, [], NoBody()), body)
    assert (answer.value, answer.features[0]) == ("a", 0.75)
    with pytest.raises(InvalidAnswer):
        wire.answer(Payload(), HttpReply(200, [], NoBody()), b'{"error": "x"}')


def test_reading_a_model_is_free_and_shows_the_name_that_was_asked_for() -> None:
    wire = TfServing()
    call = Call(b"GET", b"/v1/models/iris", [])

    assert wire.parse(call).endpoint.is_free
    assert not wire.parse(Call(b"POST", b"/v1/models/iris:predict", [], b"{}")).endpoint.is_free
    assert wire.renamed(call, [], b'{"name":"small","ready":true}')[1] == (
        b'{"name":"iris","ready":true}'
    )
    assert wire.renamed(call, [], b'{"ready":true}')[1] == b'{"ready":true}'
    post = Call(b"POST", b"/v1/models/iris:predict", [])
    assert wire.renamed(post, [], b'{"name":"x"}')[1] == b'{"name":"x"}'
