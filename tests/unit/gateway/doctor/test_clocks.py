"""Which clock is said to be wrong."""

import pytest

from tollway.gateway.doctor.clocks import compared


@pytest.mark.parametrize(
    ("offsets_s", "state", "seen"),
    [
        ({}, "ok", "no other clock"),
        ({"a": 0.4, "the ledger": -0.1}, "ok", "within 2 s of the ledger, a"),
        ({"a": 61.0, "b": 60.0, "c": 59.9}, "warning", "60.0 s behind that of b"),
        ({"a": -3600.0}, "warning", "3600.0 s ahead of that of a"),
        ({"a": 0.0, "b": 0.1, "c": 90.0}, "warning", "not with c"),
    ],
)
def test_the_clock_of_most_is_believed(offsets_s: dict[str, float], state: str, seen: str) -> None:
    found = compared(offsets_s)
    assert found.state == state
    assert seen in found.seen
