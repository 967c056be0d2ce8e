"""Turns of keys."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tollway.gateway.routing.key_ring import Key, pick


def ring(*weights: int) -> list[Key]:
    credential: Any = SimpleNamespace(allows=lambda now_s: True)
    return [Key(credential, weight) for weight in weights]


@pytest.mark.parametrize("weights", [(1,), (1, 1), (3, 1), (5, 1, 1), (7, 11, 13)])
def test_each_round_has_every_key_as_often_as_its_weight(weights: tuple[int, ...]) -> None:
    keys, total = ring(*weights), sum(weights)
    for _ in range(3):
        turns = Counter(pick(keys) for _ in range(total))
        assert turns == dict(enumerate(weights))


def test_turns_are_spread_over_a_round() -> None:
    keys = ring(5, 1, 1)
    assert [pick(keys) for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]


def test_a_key_that_comes_back_has_no_turns_to_catch_up() -> None:
    keys = ring(1, 1)
    for _ in range(1000):
        pick(keys[1:])
    assert Counter(pick(keys) for _ in range(4)) == {0: 2, 1: 2}


def test_a_resting_key_may_not_be_used() -> None:
    (key,) = ring(1)
    key.rest.begin(10.0, 5.0, "")
    assert not key.allows(14.9)
    assert key.allows(15.0)
