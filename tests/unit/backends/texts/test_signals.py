"""Refusals, hedging and agreement of texts."""

import pytest

from tollway.backends.texts.signals import agreement, hedges, refuses


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I'm sorry, but I can't help with that.", 1.0),
        ("I\u2019m unable to answer this question.", 1.0),
        ("As an AI language model, I have no opinion.", 1.0),
        ("The answer is 42.", 0.0),
        ("She said that he can't swim." * 5, 0.0),
        ("x " * 300 + "I'm sorry", 0.0),  # a refusal stands at the beginning
        ("", 0.0),
    ],
)
def test_a_refusal_is_known_by_its_beginning(text: str, said: float) -> None:
    assert refuses(text) == said


def test_hedging_is_a_share_of_the_words() -> None:
    assert hedges("The capital is Paris.") == 0.0
    assert hedges("I think it might be Paris, but I am not sure.") == 1.0
    assert 0.0 < hedges("word " * 100 + "perhaps") < 0.5


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ("Yes.", "yes", 1.0, 1.0),
        ("So we get 3 + 4 = 7.", "Adding both gives 7", 0.9, 1.0),
        ("So we get 3 + 4 = 7.", "So we get 3 + 4 = 8.", 0.0, 0.5),
        (r"thus \boxed{x^2}", r"hence it is \boxed{x^2}, in 3 steps", 0.9, 1.0),
        ("1,000", "1000", 0.9, 1.0),
        ("a red house", "blue sea", 0.0, 0.0),
        ("", "words", 0.0, 0.0),
    ],
)
def test_texts_agree_by_their_final_answer_or_by_their_words(
    one: str, other: str, low: float, high: float
) -> None:
    assert low <= agreement(one, other) <= high
    assert agreement(one, other) == agreement(other, one)
