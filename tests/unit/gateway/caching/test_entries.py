"""Entries know how old they are, and survive being packed."""

from random import Random

import pytest

from tests.support.kept_answers import entry
from tollway.gateway.caching.entry import DEAD, EARLY, FRESH, STALE, Entry, packed, unpacked


def test_an_entry_is_fresh_then_stale_then_dead() -> None:
    rng = Random(0)
    times = {1000.0: FRESH, 1059.9: FRESH, 1060.0: STALE, 1099.9: STALE, 1100.0: DEAD}
    assert {at: entry().state(at, 0.0, rng) for at in times} == times


def test_early_expiry_becomes_likelier_as_the_expiry_comes_near() -> None:
    rng = Random(0)

    def share(left_s: float) -> float:
        states = [entry().state(1060.0 - left_s, 1.0, rng) for _ in range(2000)]
        return states.count(EARLY) / len(states)

    assert share(30.0) == 0.0
    # P(took x beta x -ln(u) >= left) = exp(-left / took)
    assert share(2.0) == pytest.approx(0.135, abs=0.03)
    assert share(0.1) == pytest.approx(0.905, abs=0.03)


def test_an_entry_is_what_it_was_when_it_is_unpacked() -> None:
    made = entry(b"ab\ncd", pieces=(2, 3), echoed="q")
    read = unpacked(packed(made))
    assert {name: getattr(read, name) for name in Entry.__slots__} == {
        name: getattr(made, name) for name in Entry.__slots__
    }


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data.replace(b'"format":1', b'"format":2'),
        lambda data: b"",
        lambda data: b"[]\nbody",
        lambda data: data.replace(b'"times_s"', b'"time"'),
    ],
)
def test_damaged_bytes_are_refused(damage: object) -> None:
    with pytest.raises(ValueError, match=r".*"):
        unpacked(damage(packed(entry())))  # type: ignore[operator]
