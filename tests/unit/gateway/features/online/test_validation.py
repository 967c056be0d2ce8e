"""Validation: missing, mistyped and outlying values, and drift against what requests got."""

from random import Random

from tollway.gateway.features.online.model import Feature, FeatureGroup
from tollway.gateway.features.online.validation import ENOUGH, examine

GROUP = FeatureGroup(
    "user",
    (Feature("spend", low=0.0, high=100.0), Feature("tier", "category"), Feature("note", "text")),
)


def rows(count: int, seed: int, middle: float = 50.0, gold: float = 0.3) -> list[dict[str, object]]:
    rng = Random(seed)
    return [
        {
            "spend": min(100.0, max(0.0, rng.gauss(middle, 10.0))),
            "tier": "gold" if rng.random() < gold else "free",
            "note": "hello",
        }
        for _ in range(count)
    ]


def test_a_source_that_has_what_requests_got_is_sound() -> None:
    findings = examine(GROUP, rows(500, 1), rows(500, 2))
    assert [one.problems for one in findings] == [[], [], []]
    assert findings[0].psi is not None
    assert findings[2].psi is None  # of texts there is none


def test_drift_of_numbers_and_categories_is_seen() -> None:
    spend, tier, _ = examine(GROUP, rows(500, 1, middle=70.0, gold=0.8), rows(500, 2))
    assert "has drifted" in spend.problems[0]
    assert "has drifted" in tier.problems[0]


def test_a_few_values_say_nothing_of_drift() -> None:
    spend, *_ = examine(GROUP, rows(ENOUGH - 1, 1, middle=90.0), rows(500, 2))
    assert spend.psi is None


def test_values_of_another_type_out_of_range_or_missing_are_counted() -> None:
    given = [
        {"spend": "12", "tier": 1.5},
        {"spend": 900.0, "tier": "gold"},
        {"spend": 5, "tier": "gold"},
        {"tier": None},
    ]
    spend, tier, note = examine(GROUP, given, [])
    assert (spend.missing, spend.mistyped, spend.outside) == (0.25, 1 / 3, 1 / 3)
    assert tier.mistyped == 1 / 3
    assert note.problems == ["no entity has it"]
