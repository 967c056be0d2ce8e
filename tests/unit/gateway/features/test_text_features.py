"""Features of language models' replies."""

from typing import Any

import pytest

from tollway.backends.types import ModelAnswer
from tollway.gateway.features.reply_features import with_reply
from tollway.gateway.features.text_features import NOTHING, TextFeatures, demanded, satisfied
from tollway.policies.types import Choice, Context

TEXTS = TextFeatures()
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CHAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}
TOOLS = {"tools": [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]}
CHOICE = Choice(("a",), (1.0,), 0, (0.5,), (0.1,), 0.0, "best", 0)


def sure(value: Any, request: Any = None, features: tuple[float, ...] = (1.0, 0.5)) -> float:
    return TEXTS(request or {}, [("a", ModelAnswer(value, features))])[0]


@pytest.mark.parametrize(
    "request_document",
    [
        CHAT,
        {"text": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"generationConfig": {"responseJsonSchema": SCHEMA}},
    ],
)
def test_each_dialect_demands_a_schema(request_document: Any) -> None:
    demand = demanded(request_document)
    assert demand.schema == SCHEMA
    assert satisfied(demand, '{"n": 1}')
    assert not satisfied(demand, '{"n": "1"}')
    assert not satisfied(demand, "n is 1")


def test_json_alone_may_be_demanded() -> None:
    demand = demanded({"response_format": {"type": "json_object"}})
    assert satisfied(demand, "[1]")
    assert not satisfied(demand, "one")


def test_calls_must_be_of_a_declared_tool_and_fit_its_schema() -> None:
    def call(name: str, arguments: str) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": name, "arguments": arguments}}]

    demand = demanded(TOOLS)
    assert satisfied(demand, call("add", '{"n": 1}'))
    assert not satisfied(demand, call("add", '{"n": "x"}'))
    assert not satisfied(demand, call("add", "{"))
    assert not satisfied(demand, call("subtract", '{"n": 1}'))
    for name in (["add"], {"add": 1}, None):
        strange = [{"type": "function", "function": {"name": name, "arguments": "{}"}}]
        assert not satisfied(demand, strange)
    assert satisfied(demand, "a text, which the request allows")
    messages = demanded({"tools": [{"name": "add", "input_schema": SCHEMA}]})
    assert satisfied(messages, [{"type": "tool_use", "name": "add", "input": {"n": 1}}])
    assert not satisfied(messages, [{"type": "tool_use", "name": "add", "input": {}}])


@pytest.mark.parametrize("request_document", [None, [], {}, {"tools": "x"}, {"tools": [3]}])
def test_a_request_may_demand_nothing(request_document: Any) -> None:
    assert demanded(request_document) is NOTHING


def test_signs_of_trouble_lower_the_confidence() -> None:
    plain = sure("The answer is 7.")
    assert sure("I'm sorry, but I can't help with that.") < plain
    assert sure("Perhaps it is 7.") < plain
    assert sure("The answer", features=(0.0, 0.5)) < plain
    assert sure("seven", CHAT) < sure("I think perhaps it is 7") < plain
    assert sure('{"n": 7}', CHAT) == plain
    assert sure("7", features=(1.0, 0.1, 0.99, 0.9)) > plain > sure("7", None, (1.0, 0.1, 0.3, 0.1))


def test_a_beginning_is_not_held_to_the_schema() -> None:
    part = ModelAnswer('{"n"', (0.0, 0.1), is_partial=True)
    assert TEXTS(CHAT, [("a", part)])[0] == sure("7")


def test_two_replies_agree_by_what_they_say() -> None:
    replies = [("a", ModelAnswer("It is 7")), ("b", ModelAnswer("7."))]
    assert TEXTS({}, replies)[3] > 0.8
    calls = [{"function": {"name": "f"}}]
    assert TEXTS({}, [("a", ModelAnswer(calls)), ("b", ModelAnswer(calls))])[3] == 1.0


def test_the_context_has_the_same_length_for_every_reply() -> None:
    answers = [
        ModelAnswer(),
        ModelAnswer("x", (1.0, 0.1)),
        ModelAnswer("x", (1.0, 0.1, 0.9, 0.5)),
        ModelAnswer([{"function": {}}], (1.0, 0.0)),
    ]
    first = Context((0.5,))
    contexts = [with_reply(first, [("a", one)], CHOICE, TEXTS, CHAT) for one in answers]
    assert len({len(one.reply) for one in contexts}) == 1
    assert all(one.dense == (0.5,) and one.held == "a" for one in contexts)


def test_the_place_in_a_rollout_is_kept_for_what_follows_a_text() -> None:
    first = Context((1.0,), unit=0.25)
    assert with_reply(first, [("a", ModelAnswer("7", ()))], CHOICE, TEXTS, {}).unit == 0.25
