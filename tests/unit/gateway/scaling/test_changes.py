"""When replicas are changed: the rates, and what is tried again under which id."""

from dataclasses import replace

import pytest

from tollway.gateway.scaling.actuators.port import Change
from tollway.gateway.scaling.changes import Applied, Rates, begun, due, ended, retry_wait_s

RATES = Rates(interval_s=30.0, per_hour=3)


def change(replicas: int, number: int = 1) -> Change:
    return Change(f"id-{number}", "gpu", None, replicas, "measured", "why")


def test_nothing_is_done_if_the_replicas_are_set_already() -> None:
    assert due(RATES, Applied(replicas=3), change(3), 100.0) == ""


def test_a_change_that_has_not_ended_is_made_again_under_its_id() -> None:
    first = change(3, 1)
    state = begun(Applied(replicas=2), first, 100.0)
    assert due(RATES, state, change(3, 2), 101.0) == first
    assert begun(state, first, 200.0) == state


def test_a_change_back_is_made_while_another_has_not_ended() -> None:
    """What the unfinished change did is unknown, so what was set before must be set again."""
    state = begun(Applied(replicas=2), change(3, 1), 100.0)
    assert due(RATES, state, change(2, 2), 200.0) == change(2, 2)


def test_changes_keep_their_distance_and_their_number_in_an_hour() -> None:
    state = ended(begun(Applied(), change(3), 100.0), change(3), made=True, now_s=101.0)
    assert "30 s" in str(due(RATES, state, change(4), 129.0))
    assert due(RATES, state, change(4), 130.0) == change(4)
    full = replace(state, changed=(100.0, 200.0, 300.0))
    assert "3 changes" in str(due(RATES, full, change(4), 400.0))
    assert due(RATES, full, change(4), 3701.0) == change(4)


def test_a_failure_is_tried_again_after_a_growing_pause() -> None:
    state = begun(Applied(), change(3), 100.0)
    state = ended(state, change(3), made=False, now_s=110.0)
    assert isinstance(due(RATES, state, change(3, 2), 124.0), str)
    assert due(RATES, state, change(3, 2), 125.0) == change(3)
    assert [retry_wait_s(count) for count in (1, 2, 3, 50)] == [15.0, 30.0, 60.0, 600.0]


@pytest.mark.parametrize("state", [Applied(), begun(Applied(2), change(3), 5.0)])
def test_a_state_survives_the_store(state: Applied) -> None:
    assert Applied.of(state.document()) == state
