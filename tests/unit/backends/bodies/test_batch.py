"""How many rows a request has."""

from typing import Any

import pytest

from tollway.backends.bodies.batch import rows
from tollway.backends.protocols.http.protocol import Http
from tollway.backends.types import Call
from tollway.gateway.features.extractor import FeatureExtractor


def tensor(*shape: Any) -> dict[str, Any]:
    return {"name": "x", "shape": list(shape), "datatype": "FP32"}


@pytest.mark.parametrize(
    ("document", "count"),
    [
        ({"inputs": [tensor(3, 4)]}, 3),
        ({"inputs": [tensor(3, 4), tensor(3)]}, 3),
        ({"inputs": [tensor(3, 4), tensor(2)]}, None),
        ({"inputs": [tensor()]}, None),
        ({"inputs": [tensor(-1), tensor(-1)]}, None),
        ({"inputs": [tensor(2), "x"]}, None),
        ({"instances": [[1], [2]]}, 2),
        ({"instances": [1], "signature_name": "s"}, 1),
        ({"inputs": {"a": [1, 2], "b": [3, 4]}}, 2),
        ({"inputs": {"a": [1, 2], "b": [3]}}, None),
        ({"inputs": {"a": 1}}, None),
        ({"inputs": ["a", "b", "c"]}, 3),
        ({"inputs": "a text"}, None),
        ({"dataframe_split": {"columns": ["a"], "data": [[1], [2], [3]]}}, 3),
        ({"dataframe_records": [{"a": 1}]}, 1),
        ({"text": "a"}, None),
        ([1, 2], 2),
        ([], 0),
        (None, None),
        ("text", None),
    ],
)
def test_the_rows_of_every_protocol_are_counted(document: Any, count: int | None) -> None:
    assert rows(document) == count


def test_the_rows_may_be_a_feature() -> None:
    extract = FeatureExtractor(numeric=("$rows",), span=(0, 2))
    call = Call(
        b"POST", b"/", [(b"content-type", b"application/json")], b'{"instances": [1, 2, 3]}'
    )
    call.payload = Http().parse(call)

    assert extract(call).dense == (2.0,)
