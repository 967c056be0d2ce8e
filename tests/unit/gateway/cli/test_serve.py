"""How a serving process is set up."""

import gc
from collections.abc import Iterator

import pytest

from tollway.gateway.cli.serve import THRESHOLDS, collect_seldom


@pytest.fixture
def collector() -> Iterator[None]:
    """Leave the collector as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_lives_from_the_start_is_not_walked_again(collector: None) -> None:
    start = [[number] for number in range(1000)]
    collect_seldom()
    assert gc.get_freeze_count() >= len(start)
    assert not any(one is start for one in gc.get_objects())
    assert gc.get_threshold() == THRESHOLDS
