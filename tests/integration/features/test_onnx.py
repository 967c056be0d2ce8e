"""Features that an ONNX model makes of raw values."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.configs import two_backends
from tests.support.feature_sources import ScriptedSource
from tests.support.harness import Running, Upstream, run, running, serving
from tollway.gateway.features.online.model import Feature, SourceError
from tollway.gateway.features.sources.onnx import OnnxTransformer, TransformedSource

pytestmark = pytest.mark.integration

INPUTS = (Feature("orders", default=0.0), Feature("returns", default=0.0))


def columns_model(path: Path, factor: float = 2.0) -> Path:
    """Write a model with an input for each value, and the outputs `sum` and `scaled`."""
    nodes = [
        helper.make_node("Add", ["orders", "returns"], ["sum"]),
        helper.make_node("Mul", ["orders", "factor"], ["scaled"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1])
        for name in ("orders", "returns")
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1])
        for name in ("sum", "scaled")
    ]
    constant = numpy_helper.from_array(np.array([[factor]], np.float32), "factor")
    return saved(path, helper.make_graph(nodes, "g", inputs, outputs, [constant]))


def matrix_model(path: Path) -> Path:
    """Write a model with one matrix in and one out: both values doubled."""
    nodes = [helper.make_node("Add", ["X", "X"], ["Y"])]
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 2])]
    return saved(path, helper.make_graph(nodes, "g", inputs, outputs))


def saved(path: Path, graph: Any) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def test_models_of_both_forms_give_the_declared_values(tmp_path: Path) -> None:
    rows = [{"orders": 3, "returns": 1}, {"orders": 5}]
    by_name = OnnxTransformer(columns_model(tmp_path / "a.onnx"), INPUTS, ["sum", "scaled"])
    assert by_name(rows) == [{"sum": 4.0, "scaled": 6.0}, {"sum": 5.0, "scaled": 10.0}]
    matrix = OnnxTransformer(matrix_model(tmp_path / "b.onnx"), INPUTS, ["a", "b"])
    assert matrix(rows) == [{"a": 6.0, "b": 2.0}, {"a": 10.0, "b": 0.0}]
    assert matrix([]) == []


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = columns_model(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="does not fit"):
        OnnxTransformer(path, INPUTS, ["sum", "other"])
    with pytest.raises(ValueError, match="does not fit"):
        OnnxTransformer(path, INPUTS[:1], ["sum", "scaled"])
    (tmp_path / "b.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="cannot be loaded"):
        OnnxTransformer(tmp_path / "b.onnx", INPUTS, ["sum"])


def test_what_a_model_cannot_compute_is_an_answer_that_did_not_come(tmp_path: Path) -> None:
    async def main() -> None:
        made = OnnxTransformer(matrix_model(tmp_path / "b.onnx"), INPUTS, ["a", "b", "c"])
        source = TransformedSource(ScriptedSource({"ann": {"orders": 1}}), made)
        with pytest.raises(SourceError, match="2 values, not 3"):
            await source.fetch(["ann"], 0.0)

    asyncio.run(main())


def test_a_gateway_serves_and_journals_what_the_model_made(tmp_path: Path) -> None:
    columns_model(tmp_path / "user.onnx")
    more = """
[[features]]
name = "user"
entity = "$headers.x-user-id"
source = "sqlite:///features.db"
transform = "user.onnx"
inputs = [{ name = "orders" }, { name = "returns" }]
values = [{ name = "sum" }, { name = "scaled" }]
"""

    async def main() -> None:
        async with serving(Upstream()) as url:
            toml = two_backends(
                url, url, route='features = ["user"]\nfeatures_ms = 5000', more=more
            )
            async with running(toml, tmp_path) as gateway:
                await check(gateway)

    async def check(gateway: Running) -> None:
        path = f"{gateway.url}/_tollway/features/user/ann"
        raw = {"values": {"orders": 3, "returns": 1}}
        assert (await gateway.client.put(path, json=raw)).status_code == 200
        assert (await gateway.client.put(path, json={"values": {"sum": 3}})).status_code == 422
        assert (await gateway.infer(x_user_id="ann")).status_code == 200
        part = gateway.journalled("decision")[-1]["features"]["user"]
        assert part["values"] == {"sum": 4.0, "scaled": 6.0}
        assert part["version"].startswith("1+")
        assert len(json.dumps(part["version"])) == len('"1+123456789abc"')

    run(main)
