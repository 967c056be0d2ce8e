"""Tokens by bytes and silence: learned from whole streams, whether or not reasoning is itemised."""

import pytest

from tollway.backends.types import Details, Usage
from tollway.gateway.estimation.token_rate import TokenRate


def used(tokens: float, reasoning: float | None = None) -> Usage:
    more = None if reasoning is None else Details((("reasoning_tokens", reasoning),))
    return Usage(output_tokens=tokens, more=more)


def test_the_bytes_of_a_token_are_learned() -> None:
    rate = TokenRate()
    for _ in range(200):
        rate.learn(used(100), 500, 0.1)

    assert rate.tokens(5000, 0.0) == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("reasoning", [900.0, None])
def test_hidden_reasoning_is_learned_from_the_silence_itemised_or_not(
    reasoning: float | None,
) -> None:
    rate = TokenRate()
    for _ in range(200):
        rate.learn(used(1000, reasoning), 300, 9.0)

    assert rate.tokens(0, 4.5) == pytest.approx(450, rel=0.05)
    assert rate.tokens(300, 9.0) == pytest.approx(1000, rel=0.05)


def test_a_model_that_hides_nothing_is_not_charged_for_its_queue() -> None:
    rate = TokenRate()
    for _ in range(300):
        rate.learn(used(100), 450, 0.5)

    assert rate.tokens(0, 60.0) < 60


@pytest.mark.parametrize("tokens", [0.0, -3.0, float("nan")])
def test_a_usage_without_output_teaches_nothing(tokens: float) -> None:
    rate = TokenRate()
    rate.learn(used(tokens), 100, 1.0)

    assert rate == TokenRate()


def test_a_rate_survives_being_saved() -> None:
    rate = TokenRate()
    rate.learn(used(100, 30.0), 400, 1.0)

    assert TokenRate.load(rate.save()) == rate


@pytest.mark.parametrize("state", [[0, 1, 1, 1], [1, -1, 1, 1], [1, 1, float("nan"), 1], ["x"]])
def test_a_damaged_rate_is_refused(state: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        TokenRate.load(state)
