import asyncio
import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest
from tritonclient.http import InferResult

from tollway.backends.ports import WireProtocol
from tollway.backends.protocols.oip.protocol import OpenInference
from tollway.backends.protocols.plain import Plain
from tollway.backends.rules.backend import ROWS_MAX, Rules, by_function, open_rules
from tollway.backends.rules.file import compile_rules, load
from tollway.backends.rules.ruling import Ruling
from tollway.backends.types import Call, HttpReply, Payload

DIGITS = """
[features]
ink = { path = "inputs[0].data", take = "sum" }
middle = { path = "inputs[0].data[1:3]", take = "mean" }

[[rules]]
when = ["middle < 1", "ink > 10"]
answer = 0
confidence = 0.9

[default]
answer = 8
confidence = 0.2
"""


def image(*rows: list[float], **more: Any) -> dict[str, Any]:
    data = [pixel for row in rows for pixel in row]
    shape = [len(rows), len(rows[0])]
    return {"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": data}], **more}


def ask(
    rules: Any, wire: WireProtocol, document: Any, target: bytes = b"/"
) -> tuple[HttpReply, bytes]:
    call = Call(b"POST", target, [], orjson.dumps(document))
    call.payload = wire.parse(call)

    async def send() -> tuple[HttpReply, bytes]:
        reply = await rules.send(call, deadline_s=0.0)
        return reply, await reply.read(1 << 20)

    return asyncio.run(send())


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(DIGITS)
    return path


def decide(toml: str, document: Any) -> Ruling:
    return compile_rules(tomllib.loads(toml))(document)


def test_the_first_rule_of_which_every_comparison_holds_answers(digits: Path) -> None:
    decide = load(digits)

    assert decide(image([9, 0, 0, 9])) == Ruling(0, 0.9)
    assert decide(image([9, 4, 4, 9])) == Ruling(8, 0.2)
    assert decide(image([1, 0, 0, 1])) == Ruling(8, 0.2)


def test_rules_reply_in_the_open_inference_protocol(digits: Path) -> None:
    wire = OpenInference()
    target = b"/v2/models/digits/versions/3/infer"

    reply, body = ask(open_rules(wire, rules=digits), wire, image([9, 0, 0, 9], id="a1"), target)

    document = orjson.loads(body)
    assert reply.status == 200
    assert (document["id"], document["model_name"], document["model_version"]) == (
        "a1",
        "digits",
        "3",
    )
    assert document["outputs"][0] == {
        "name": "label",
        "datatype": "INT64",
        "shape": [1],
        "data": [0],
    }
    answer = wire.answer(Payload(), reply, body)
    assert (answer.value, answer.features) == (0, (0.9,))


def test_tritonclient_reads_what_rules_reply(digits: Path) -> None:
    wire = OpenInference()
    document = image([9, 0, 0, 9], [9, 4, 4, 9], parameters={"binary_data_output": True})

    _, body = ask(open_rules(wire, rules=digits), wire, document)

    result = InferResult.from_response_body(body)
    assert result.as_numpy("label").tolist() == [0, 8]
    assert result.as_numpy("confidence").tolist() == [0.9, 0.2]


def test_every_row_of_a_batch_is_ruled_on(digits: Path) -> None:
    wire = OpenInference()

    reply, body = ask(
        open_rules(wire, rules=digits), wire, image([9, 0, 0, 9], [9, 4, 4, 9], [7, 0, 0, 7])
    )

    answer = wire.answer(Payload(), reply, body)
    assert answer.value == [0, 8, 0]
    assert answer.features == pytest.approx([(0.9 + 0.2 + 0.9) / 3])


def test_nested_data_is_ruled_on_like_flat_data(digits: Path) -> None:
    wire = OpenInference()
    document = image([9, 0, 0, 9])
    document["inputs"][0]["data"] = [[9, 0, 0, 9]]

    reply, body = ask(open_rules(wire, rules=digits), wire, document)

    assert wire.answer(Payload(), reply, body).value == 0


def test_only_the_outputs_that_were_asked_for_come_back(digits: Path) -> None:
    wire = OpenInference()
    document = image([9, 0, 0, 9], outputs=[{"name": "label"}])

    reply, body = ask(open_rules(wire, rules=digits), wire, document)

    assert [output["name"] for output in orjson.loads(body)["outputs"]] == ["label"]
    # What rules say of themselves is still there, for the cascade.
    assert wire.answer(Payload(), reply, body).features == (0.9,)


def test_a_batch_that_would_block_the_gateway_is_left_to_another_backend(digits: Path) -> None:
    wire = OpenInference()

    reply, _ = ask(open_rules(wire, rules=digits), wire, image(*[[1.0]] * (ROWS_MAX + 1)))

    assert reply.status == 503


def test_rules_reply_in_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "mail.toml"
    path.write_text(
        """
        default = { answer = "other" }
        [features]
        subject = "mail.subject"
        [[rules]]
        when = ["subject matches '(?i)invoice|receipt'"]
        answer = "billing"
        confidence = 0.75
        """
    )
    wire = Plain()
    rules = open_rules(wire, rules=path)

    reply, body = ask(rules, wire, {"mail": {"subject": "Your Invoice"}})

    assert orjson.loads(body) == {"label": "billing", "confidence": 0.75}
    assert wire.answer(Payload(), reply, body).features == (0.75,)
    assert orjson.loads(ask(rules, wire, {"mail": None})[1]) == {"label": "other"}


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [
        ("number < 3", True),
        ("number <= 2", True),
        ("number > 2", False),
        ("number >= 2.0", True),
        ("number == 2", True),
        ("number != 2", False),
        ("number > small", True),
        ("number < small", False),
        ('text == "a b"', True),
        ("text contains 'b'", True),
        ("text contains 2", False),
        ("text > 1", False),
        ("list contains 5", True),
        ("list contains 7", False),
        ("list contains number", False),
        ("text matches '^a.b$'", True),
        ("text matches '^b'", False),
        ("number matches '2'", False),
        ("yes == true", True),
        ("missing < 3", False),
        ("missing > 3", False),
        ("missing == 3", False),
        ("missing != 3", False),
        ("missing == missing", False),
        ("missing contains 3", False),
        ("missing matches 'x'", False),
    ],
)
def test_comparisons_hold_where_they_should(comparison: str, holds: bool) -> None:
    rules = {
        "features": {
            "number": "n",
            "small": "s",
            "text": "t",
            "list": "l",
            "yes": "y",
            "missing": "m",
        },
        "rules": [{"when": [comparison], "answer": "held"}],
        "default": {"answer": "no"},
    }
    document = {"n": 2, "s": 1, "t": "a b", "l": [4, 5], "y": True}

    assert (compile_rules(rules)(document).answer == "held") == holds


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ({"path": "x", "take": "sum"}, 12),
        ({"path": "x", "take": "mean"}, 3),
        ({"path": "x", "take": "max"}, 6),
        ({"path": "x", "take": "min"}, 1),
        ({"path": "x", "take": "std"}, 3.5**0.5),
        ({"path": "x", "take": "count_above", "above": 1.5}, 3),
        ({"path": "x[1:3]", "take": "sum"}, 5),
        ({"path": "x[::2]", "take": "sum"}, 4),
        ({"path": ["x[0]", "x[2:4]"], "take": "sum"}, 10),
        ("x[-1]", 6),
    ],
)
def test_features_sum_up_what_is_at_a_path(feature: Any, value: float) -> None:
    rules = {
        "features": {"f": feature},
        "rules": [{"when": [f"f >= {value - 1e-9}", f"f <= {value + 1e-9}"], "answer": "held"}],
        "default": {"answer": "no"},
    }

    assert compile_rules(rules)({"x": [1, 2, 3, 6]}).answer == "held"


@pytest.mark.parametrize("nothing", [{}, {"x": []}, {"x": "abc"}, {"x": [1, "b"]}, {"x": None}, 5])
def test_sums_over_what_is_not_numbers_are_missing(nothing: Any) -> None:
    rules = {
        "features": {"f": {"path": "x", "take": "sum"}},
        "rules": [{"when": ["f > -1000"], "answer": "held"}],
        "default": {"answer": "no"},
    }

    assert compile_rules(rules)(nothing).answer == "no"


SCORES = """
[features]
a = "a"
row = "row"

[[scores]]
answer = "left"
bias = 1.0
weights = { a = 2.0 }

[[scores]]
answer = "right"
weights = { row = [0.5, 0.5] }

[default]
answer = "neither"
"""


def test_scores_give_probabilities_by_softmax() -> None:
    ruling = decide(SCORES, {"a": 0, "row": [3, 1]})

    assert ruling.answer == "right"
    assert ruling.probabilities == pytest.approx((0.26894142, 0.73105858))
    assert ruling.confidence == ruling.probabilities[1]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"a": 0},
        {"a": "x", "row": [1, 2]},
        {"a": 0, "row": [1]},
        {"a": float("nan"), "row": [1, 2]},
    ],
)
def test_scores_of_what_cannot_be_summed_fall_to_the_default(document: Any) -> None:
    assert decide(SCORES, document).answer == "neither"


def test_scores_far_apart_do_not_overflow() -> None:
    assert decide(SCORES, {"a": 1e6, "row": [0, 0]}).probabilities == (1.0, 0.0)


def test_probabilities_are_an_output_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "scores.toml"
    path.write_text(
        SCORES.replace('"a"\n', '"inputs[0].data[0]"\n').replace('"row"\n', '"inputs[0].data"\n')
    )
    wire = OpenInference()

    reply, body = ask(open_rules(wire, rules=path), wire, image([0, 4], [0, 0]))

    outputs = {output["name"]: output for output in orjson.loads(body)["outputs"]}
    assert outputs["probabilities"]["shape"] == [2, 2]
    assert outputs["label"]["data"] == ["right", "left"]
    assert len(wire.answer(Payload(), reply, body).features) == 3


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("", "rules: is missing; write .*rules"),
        ("default = 3", "is missing"),
        ("[[rules]]\nanswer = 1", r"rule 1: when.*write when = \['ink > 300'\]"),
        ("[[rules]]\nwhen = ['x > 1']\nanswer = 1", r"rule 1: when\[0\] = 'x > 1': 'x' is no feat"),
        ("[[rules]]\nwhen = ['a >> 1']\nanswer = 1", r"rule 1: when\[0\] = 'a >> 1': "),
        ("[[rules]]\nwhen = ['a is 1']\nanswer = 1", "is no comparison; write it like"),
        ("[[rules]]\nwhen = [3]\nanswer = 1", "is no comparison"),
        ("[[rules]]\nwhen = ['a > b']\nanswer = 1", "'b' is no feature; .features. has: a"),
        ("[[rules]]\nwhen = ['a > nan']\nanswer = 1", "no single value"),
        ("[[rules]]\nwhen = ['a > \"1\"']\nanswer = 1", "> compares numbers"),
        ("[[rules]]\nwhen = [\"a matches '('\"]\nanswer = 1", "no regular expression"),
        (f"[[rules]]\nwhen = [\"a matches '{'x' * 201}'\"]\nanswer = 1", "at most 200"),
        ("[[rules]]\nwhen = ['a > 1']", "rule 1: answer: must be a label"),
        ("[[rules]]\nwhen = ['a > 1']\nanswer = [1]", "rule 1: answer = .1.: must be"),
        ("[[rules]]\nwhen = ['a > 1']\nanswer = nan", "answer = nan"),
        (
            "[[rules]]\nwhen = ['a > 1']\nanswer = 1\nconfidence = 1.5",
            r"confidence = 1\.5: must be from 0 to 1; write",
        ),
        (
            "[[rules]]\nwhen = ['a > 1']\nanswer = 1\n[[rules]]\nwhne = 1",
            "rule 2: whne = 1: .*write when",
        ),
        ("[[rules]]\nwhen = ['a > 1']\nanswer = 1\n", "default: must have .*write default ="),
        ("rule = 1", "rule = 1: is unknown; write rules"),
        ("rules = 1", "rules = 1: must be tables"),
        ("[[scores]]\nanswer = 1\nweights = { x = 1 }", r"score 1: weights\.x = 1: is no feature"),
        ("[[scores]]\nanswer = 1\nweights = { a = 'x' }", r"weights\.a = 'x': must be a number"),
        ("[[scores]]\nanswer = 1\nbias = inf", "bias = inf: must be a finite"),
        (
            "[[scores]]\nanswer = 1\n[[scores]]\nanswer = 1\n[default]\nanswer = 1",
            "at least two labels, each once",
        ),
    ],
)
def test_a_wrong_rule_is_named_with_its_key_its_value_and_the_fix(
    tmp_path: Path, toml: str, says: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(toml + "\n[features]\na = 'a'\n")

    with pytest.raises(ValueError, match=says) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("feature", "says"),
    [
        (3, "is no path"),
        ("", "may not be empty"),
        ("a..b", "cannot read the path"),
        ("a[1:2:0]", "cannot step by 0"),
        ({"take": "sum"}, "path is missing"),
        ({"path": "a", "take": "median"}, "must be one of sum, mean, max, min, std, count_above"),
        ({"path": "a", "take": "count_above"}, "above goes with"),
        ({"path": "a", "above": 3}, "above goes with"),
        ({"path": "a", "take": "count_above", "above": "x"}, "is not a number"),
        ({"path": "a", "tkae": "sum"}, "'tkae' is unknown"),
    ],
)
def test_a_wrong_feature_is_named_with_the_fix(feature: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        compile_rules({"features": {"f": feature}})
    assert str(raised.value).startswith("features.f = ")


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[[rules]")

    with pytest.raises(ValueError, match=r"rules\.toml: "):
        load(path)


def longest(document: Any) -> tuple[str, float]:
    return max(document["words"], key=len), 0.5


def broken(document: Any) -> None:
    raise KeyError("words")


def test_a_function_named_by_module_and_name_can_be_the_rules() -> None:
    wire = Plain()
    rules = open_rules(wire, entry_point=f"{__name__}:longest")

    _, body = ask(rules, wire, {"words": ["a", "abc"]})

    assert orjson.loads(body) == {"label": "abc", "confidence": 0.5}


@pytest.mark.parametrize(
    ("said", "ruling"),
    [
        (7, Ruling(7)),
        ((7, 0.5), Ruling(7, 0.5)),
        ({"a": 0.25, "b": 0.75}, Ruling("b", 0.75, (0.25, 0.75))),
        (Ruling("x", 0.1), Ruling("x", 0.1)),
    ],
)
def test_a_function_may_say_its_answer_in_four_ways(said: Any, ruling: Ruling) -> None:
    assert by_function(lambda document: said)({}) == ruling


@pytest.mark.parametrize("said", [None, (1, 2.0), (1, float("nan")), {}, {"a": float("nan")}])
def test_a_function_that_gives_no_answer_fails_that_call(said: Any) -> None:
    wire = Plain()
    rules = Rules(by_function(lambda document: said), wire)

    assert ask(rules, wire, {"words": []})[0].status == 500


def test_a_function_that_raises_fails_that_call_and_no_other() -> None:
    wire = OpenInference()
    rules = open_rules(wire, entry_point=f"{__name__}:broken")

    reply, body = ask(rules, wire, image([1.0]))

    assert reply.status == 500
    assert "KeyError" in orjson.loads(body)["error"]


@pytest.mark.parametrize("name", ["no.such:thing", "math:no_such", "math:pi", "not-installed"])
def test_an_entry_point_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="entry_point = "):
        open_rules(OpenInference(), entry_point=name)


def test_rules_need_a_file_or_a_function(digits: Path) -> None:
    with pytest.raises(ValueError, match="one of both"):
        open_rules(OpenInference())
    with pytest.raises(ValueError, match="one of both"):
        open_rules(OpenInference(), rules=digits, entry_point="a:b")


def test_rules_describe_themselves(digits: Path) -> None:
    wire = OpenInference()
    rules = open_rules(wire, rules=digits)

    async def get(target: bytes) -> tuple[int, Any]:
        reply = await rules.send(Call(b"GET", target, [], payload=Payload()), 0.0)
        return reply.status, orjson.loads(await reply.read(1 << 20))

    status, metadata = asyncio.run(get(b"/v2/models/digits"))
    assert (status, metadata["name"]) == (200, "digits")
    assert asyncio.run(get(b"/v2/models/digits/ready"))[0] == 200
    assert asyncio.run(get(b"/v2/models/digits/infer"))[0] == 503


def test_the_rules_in_the_documentation_can_be_loaded() -> None:
    text = (Path(__file__).parents[3] / "docs" / "protocols.md").read_text()
    example = text.partition("## Rules")[2].split("```toml\n")[1].split("```")[0]

    assert decide(example, {"inputs": [{"data": [5.0] * 64}]}).answer == 7
    assert decide(example, {}) == Ruling(8, 0.1)


def test_a_call_that_another_protocol_read_fails_and_nothing_else_does(digits: Path) -> None:
    rules = open_rules(OpenInference(), rules=digits)

    assert ask(rules, Plain(), {"text": "x"})[0].status == 500
