"""Request and response schemas, and how violations are reported."""

from typing import Any

import pytest

from tollway.backends.validation import Constraint, Validator

IMAGE = Constraint(tensor="image", datatype="FP32", shape=(-1, 4), range=(0, 16))


def tensor(**changed: Any) -> dict[str, Any]:
    image = {"name": "image", "datatype": "FP32", "shape": [1, 4], "data": [0, 1.5, 16, 2]}
    return {"inputs": [{"name": "other"}, image | changed]}


@pytest.mark.parametrize(
    ("clause", "document", "why"),
    [
        (IMAGE, tensor(), ""),
        (IMAGE, tensor(shape=[7, 4]), ""),
        (IMAGE, tensor(data=None), ""),  # too large to be looked at
        (IMAGE, {"inputs": []}, "is missing"),
        (IMAGE, [], "is missing"),
        (IMAGE, tensor(datatype="INT64"), "has datatype 'INT64', not FP32"),
        (IMAGE, tensor(shape=[4]), "has shape [4], not [-1, 4] (-1: any)"),
        (IMAGE, tensor(shape=[1, 5]), "has shape [1, 5], not [-1, 4] (-1: any)"),
        (IMAGE, tensor(data=[[0, 1], [2, 17]]), "holds 17; it must be a number from 0 to 16"),
        (
            IMAGE,
            tensor(data=[0, float("nan"), 1, 2]),
            "holds nan; it must be a number from 0 to 16",
        ),
        (IMAGE, tensor(data=[0, None, 1, 2]), "holds None; it must be a number from 0 to 16"),
        (IMAGE, tensor(data=[0, True, 1, 2]), "holds True; it must be a number from 0 to 16"),
        (Constraint(at="a.b", kind="number"), {"a": {"b": 1.5}}, ""),
        (
            Constraint(at="a.b", kind="number"),
            {"a": {"b": True}},
            "is True, which is not of type number",
        ),
        (Constraint(at="a", kind="integer"), {"a": 1.0}, "is 1.0, which is not of type integer"),
        (Constraint(at="a", kind="boolean"), {"a": False}, ""),
        (
            Constraint(at="a", kind="text", length=(1, 3)),
            {"a": ""},
            "has length 0; it must be from 1",
        ),
        (Constraint(at="a", optional=True, kind="text"), {}, ""),
        (Constraint(at="a", one_of=("cat", "dog")), {"a": ["cat", "cow"]}, "which is not one of"),
        (Constraint(at="a", range=(0, 1)), {"a": "0.5"}, "holds '0.5'; it must be a number"),
    ],
)
def test_a_violation_says_where_and_how(clause: Constraint, document: Any, why: str) -> None:
    breach = Validator([clause], "inputs").breach(document)
    if not why:
        assert breach is None
    else:
        assert breach is not None
        assert breach.field == clause.tensor or clause.at
        assert why in breach.why
