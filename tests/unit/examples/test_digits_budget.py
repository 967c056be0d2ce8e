"""When the demo calls a budget exact."""

from dataclasses import replace

import pytest

from examples.digits.budget import Stopped

EXACT = Stopped(
    statuses={200: 40, 402: 60},
    limit_nano=40_000_000,
    spent_nano=40_000_000,
    held_nano=0,
    price_nano=1_000_000,
)


def test_forty_answered_sixty_refused_and_forty_prices_charged_is_exact():
    assert EXACT.exact
    assert "40 answered, 60 refused" in EXACT.sentence()
    assert "exact" in EXACT.sentence()


@pytest.mark.parametrize(
    "change",
    [
        {"statuses": {200: 41, 402: 59}},
        {"statuses": {200: 39, 402: 61}},
        {"statuses": {200: 40, 402: 59, 503: 1}},
        {"spent_nano": 40_000_001},
        {"spent_nano": 39_999_999},
        {"held_nano": 1},
    ],
)
def test_anything_else_is_not(change):
    stopped = replace(EXACT, **change)

    assert not stopped.exact
    assert "NOT" in stopped.sentence()
