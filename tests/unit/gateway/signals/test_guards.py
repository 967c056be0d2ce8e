"""Which texts of a request guards see, and what their programs may reply."""

from typing import Any

import pytest

from tests.support.chat_servers import asking
from tollway.backends.json_path import compile_path
from tollway.gateway.signals.guards import Words, finding
from tollway.gateway.signals.judge import prompt_of
from tollway.gateway.signals.ports import HookFailed, encoded


def test_the_texts_of_the_prompt_are_seen_and_replaced_and_nothing_else() -> None:
    request = {**asking("a", "b", "c"), "user": "a", "system": [{"type": "text", "text": "a"}]}
    words = Words()
    assert set(words(request)) == {"a", "b", "c", "user", "assistant", "text"}
    new = words.replaced(request, {"a": "x"})
    assert new["user"] == "a"
    assert new["messages"][0]["content"] == "x"
    assert new["system"][0]["text"] == "x"
    assert request["messages"][0]["content"] == "a"


def test_a_path_selects_the_texts() -> None:
    assert Words(compile_path("messages[-1].content"))(asking("a", "b", "c")) == ["c"]


@pytest.mark.parametrize("request_", [{"text": ["q"]}, {"prompt": "q"}, ["q"]])
def test_of_other_requests_all_texts_are_seen(request_: Any) -> None:
    assert Words()(request_) == ["q"]


def test_a_request_that_is_nested_too_deeply_cannot_be_checked() -> None:
    value: Any = "q"
    for _ in range(50):
        value = [value]
    with pytest.raises(HookFailed, match="nested"):
        Words()(value)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        {"act": "explode"},
        {"act": "rewrite"},
        {"act": "tag", "tags": {"a": 1}},
        {"act": "tag", "tags": {"a": "x" * 65}},
        {"act": "tag", "tags": {f"t{n}": "x" for n in range(17)}},
    ],
)
def test_other_replies_of_a_program_are_failures(reply: Any) -> None:
    with pytest.raises(HookFailed):
        finding(reply)


def test_a_request_that_is_nested_too_deeply_elsewhere_is_a_failure_and_no_error() -> None:
    deep: Any = "q"
    for _ in range(900):
        deep = [deep]
    request = {**asking("secret"), "metadata": deep}
    words = Words(compile_path("messages[-1].content"))
    assert words(request) == ["secret"]
    with pytest.raises(HookFailed, match="nested"):
        words.replaced(request, {"secret": "x"})
    with pytest.raises(HookFailed, match="cannot be passed on"):
        encoded({"request": request})
    assert prompt_of({"messages": [{"role": "user", "content": deep}]}) == "user: "
