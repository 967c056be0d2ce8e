import pytest

from tollway.gateway.registry.criteria import Criteria

ASKED = Criteria(accuracy=0.85, p95_ms=50, error_rate=0.001)


@pytest.mark.parametrize(
    ("known", "outcome"),
    [
        ({"accuracy": 0.85, "p95_ms": 50, "error_rate": 0.001}, "met"),
        ({"accuracy": 0.84, "p95_ms": 20, "error_rate": 0.0}, "missed"),
        ({"accuracy": 0.9, "p95_ms": 51}, "missed"),
        ({"accuracy": 0.9, "p95_ms": 20}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_what_is_not_known_is_not_met(known: dict[str, float], outcome: str) -> None:
    assert ASKED.judge(known).outcome == outcome


def test_a_judgement_says_what_is_missing() -> None:
    told = ASKED.judge({"accuracy": 0.8, "p95_ms": 20}).text
    assert told == (
        "accuracy is 0.8; at least 0.85 is asked; p95_ms is 20 ms; at most 50 ms is asked; "
        "error_rate is not known; at most 0.001 is asked"
    )


def test_nothing_asked_is_met() -> None:
    judged = Criteria().judge({})
    assert (judged.outcome, judged.text) == ("met", "no criteria")
