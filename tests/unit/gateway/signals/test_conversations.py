"""What the next request of a conversation says of the answer before."""

import pytest

from tests.support.chat_servers import asking
from tollway.gateway.signals import conversations
from tollway.gateway.signals.conversations import Conversations, said


def given(*texts: str, decision: str = "d1", tenant: str = "acme") -> Conversations:
    """Return conversations with one answer."""
    table = Conversations()
    table.answered(tenant, "chat", asking(*texts), decision, "cheap", 0.0)
    return table


def follow(table: Conversations, *texts: str, **more: object) -> tuple[str, float] | None:
    """Return (why, score) that a request gives the answer before."""
    feedback = more.get("feedback")
    assert feedback is None or isinstance(feedback, float)
    now_s = 1e6 if more.get("late") else 1.0
    hint = table.follow(
        str(more.get("tenant", "acme")), "chat", asking(*texts), feedback, now_s, 600.0
    )
    return None if hint is None else (hint.by, hint.score)


@pytest.mark.parametrize(
    ("first", "next_", "expected"),
    [
        (("hi",), ("hi",), ("asked_again", 0.0)),
        (("hi",), ("hi", "hello", "and?"), ("went_on", 1.0)),
        (("hi", "hello", "and?"), ("hi", "hello", "or?"), ("changed", 0.0)),
        (("hi",), ("ho",), None),
        (("hi",), ("ho", "hello", "and?"), None),
    ],
)
def test_a_request_scores_the_answer_before(
    first: tuple[str, ...], next_: tuple[str, ...], expected: tuple[str, float] | None
) -> None:
    assert follow(given(*first), *next_) == expected


def test_what_a_client_says_counts_instead() -> None:
    assert follow(given("hi"), "hi", "hello", "and?", feedback=0.0) == ("went_on", 0.0)


def test_an_answer_is_scored_once_and_only_by_its_tenant_and_in_time() -> None:
    table = given("hi")
    assert follow(table, "hi", tenant="other") is None
    assert follow(table, "hi", late=True) is None
    assert follow(table, "hi") is not None
    assert follow(table, "hi") is None


def test_the_same_request_again_and_again_is_a_program() -> None:
    table = given("ping")
    hints = []
    for n in range(2, 10):
        hints.append(follow(table, "ping"))
        table.answered("acme", "chat", asking("ping"), f"d{n}", "cheap", 0.0)
    assert [hint is not None for hint in hints] == [True] * 3 + [False] * 5


def test_what_is_kept_is_bounded_and_one_tenant_leaves_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversations, "ANSWERS_MAX", 10)
    table = Conversations()
    for n in range(50):
        table.answered("greedy", "chat", asking(f"q{n}"), "d", "cheap", 0.0)
    table.answered("acme", "chat", asking("hi"), "d1", "cheap", 0.0)
    assert follow(table, "hi") == ("asked_again", 0.0)
    assert len(table._asked) == 6
    table.expire(1000.0, 600.0)
    assert not table._asked
    assert not table._counts


@pytest.mark.parametrize(("text", "score"), [("good", 1.0), (" BAD ", 0.0), ("0.5", 0.5)])
def test_feedback_of_a_header_is_read(text: str, score: float) -> None:
    assert said(text) == score


@pytest.mark.parametrize("text", ["fine", "2", "nan", "-1", ""])
def test_other_feedback_of_a_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        said(text)
