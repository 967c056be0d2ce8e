"""Static models of embeddings: their files, and what they make of texts."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.static_model import model
from tollway.backends.types import Call, Payload
from tollway.gateway.features.embedding import NUMBERS, SCALE, NoModel, load
from tollway.gateway.features.extractor import FeatureExtractor


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_an_embedding_is_the_mean_of_its_tokens_on_one_scale(kind: str, tmp_path: Path) -> None:
    embed = load(str(model(tmp_path, 256, kind)))
    red, both = embed("red red"), embed("red blue")
    assert len(red) == NUMBERS
    assert red[0] == SCALE
    assert both[0] == both[1] == pytest.approx(SCALE / np.sqrt(2), abs=1e-4)
    assert embed("") == (0.0,) * NUMBERS
    assert embed("red red") is red  # cached


def test_a_route_s_embedding_comes_last_in_its_numbers(tmp_path: Path) -> None:
    embed = load(str(model(tmp_path)))
    paths = {"numeric": ("n",), "text": ("messages[*].content",)}
    plain, rich = FeatureExtractor(**paths), FeatureExtractor(**paths, embed=embed)
    document = {"n": 3, "messages": [{"content": "red"}, {"content": "blue"}]}
    call = Call(b"POST", b"/", [], payload=Payload(document))
    without, with_it = plain(call), rich(call)
    assert with_it.dense == without.dense + embed("red\nblue")
    assert with_it.sparse == without.sparse


def test_what_is_wrong_with_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoModel, match=r"tokenizer\.json and one"):
        load(str(tmp_path))
    model(tmp_path, numbers=16)
    with pytest.raises(NoModel, match="16 numbers a token, below 64"):
        load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(NoModel, match="no table of vectors"):
        load(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(NoModel, match="no tokenizer"):
        load(str(tmp_path))


def test_the_packaged_model_tells_topics_apart() -> None:
    embed = load("wordllama")

    def near(one: str, other: str) -> float:
        pairs = zip(embed(one), embed(other), strict=True)
        return sum(a * b for a, b in pairs) / SCALE**2

    asked = "What is the capital of France?"
    assert near(asked, "Name the capital city of Germany") > near(asked, "def f(x): return x")
