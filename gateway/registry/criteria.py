"""Criteria: compares what a version must reach with what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["met", "missed", "unknown"]
_UNITS = {"accuracy": "", "p95_ms": " ms", "error_rate": "", "value_usd": " USD"}
_AT_LEAST = frozenset({"accuracy", "value_usd"})


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a version must reach; None where nothing is asked."""

    accuracy: float | None = None
    p95_ms: float | None = None
    error_rate: float | None = None
    value_usd: float | None = None

    def judge(self, known: Mapping[str, float]) -> "Judgement":
        """Compare with what is known, by the names of the criteria.

        `missed` if any is missed, else `unknown` if any is not known, else `met`.
        """
        sentences, missed, unknown = [], False, False
        for name, unit in _UNITS.items():
            wanted = getattr(self, name)
            if wanted is None:
                continue
            value = known.get(name)
            bound = f"{'at least' if name in _AT_LEAST else 'at most'} {wanted:g}{unit}"
            if value is None:
                unknown = True
                sentences.append(f"{name} is not known; {bound} is asked")
                continue
            reached = value >= wanted if name in _AT_LEAST else value <= wanted
            missed = missed or not reached
            sentences.append(f"{name} is {value:.4g}{unit}; {bound} is asked")
        outcome: Outcome = "missed" if missed else "unknown" if unknown else "met"
        return Judgement(outcome, tuple(sentences))


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome of a comparison, with a sentence for each criterion."""

    outcome: Outcome
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """All sentences in one line."""
        return "; ".join(self.sentences) or "no criteria"
