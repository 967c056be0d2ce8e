"""Merges what several senders' labels say of a signal, without those that contradict the rest.

What a signal is worth is learned from answers that have a score and a label, and a tenant may send
false labels. The limit of labels (`influence`) is not enough here: labels that contradict a signal
as often in one direction as in the other have the usual mean. So labels are counted by group of
senders, and a group counts if both its rates, the mean score of right and of wrong answers, are
within OUTLYING standard errors of the reference: that of the senders whom the operator trusts, or,
until those have sent TRUSTED_MIN labels, the median of the groups, weighted by their labels (a
median of means, as in `influence`). Senders with less than half of the labels cannot move it far.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from tollway.policies.evidence.influence import median

TRUSTED = ""
"""The group of those whom the operator trusts: the admin key, audits, tenants marked `labeller`."""

TRUSTED_MIN = 20.0  # labels
OUTLYING = 3.0  # standard errors
RATE = (0.02, 0.98)  # bounds of a rate whose standard error is wanted: few labels prove no 0 or 1

Rate = tuple[float, float]
"""A mean score and its variance."""
Rates = tuple[Rate, Rate]
"""Those of right and of wrong answers."""


@dataclass(slots=True)
class LabelSums:
    """The number of right and of wrong answers, and of those that passed; each may be a part."""

    right: float = 0.0
    passed: float = 0.0
    wrong: float = 0.0
    passed_wrong: float = 0.0

    def add(self, score: float, quality: float) -> None:
        """Count a labelled answer."""
        self.right += quality
        self.passed += quality * score
        self.wrong += 1.0 - quality
        self.passed_wrong += (1.0 - quality) * score

    def fade(self, keep: float) -> None:
        """Keep this share of the evidence."""
        self.right *= keep
        self.passed *= keep
        self.wrong *= keep
        self.passed_wrong *= keep

    @classmethod
    def of(cls, several: Iterable[Self]) -> Self:
        """Return the sum of several."""
        total = cls()
        for one in several:
            total.right += one.right
            total.passed += one.passed
            total.wrong += one.wrong
            total.passed_wrong += one.passed_wrong
        return total

    def rates(self) -> Rates:
        """Return the mean score and its variance, of right and of wrong answers."""
        return _rate(self.passed, self.right), _rate(self.passed_wrong, self.wrong)

    def save(self) -> list[float]:
        """Return the state, in the order of the constructor."""
        return [self.right, self.passed, self.wrong, self.passed_wrong]


def merged(groups: Mapping[str, Mapping[str, LabelSums]]) -> dict[str, LabelSums]:
    """Return the sums by arm of the groups that count, of sums by group and arm."""
    if not groups:
        return {}
    totals = {group: LabelSums.of(own.values()) for group, own in groups.items()}
    rates = {group: total.rates() for group, total in totals.items()}
    references = _references(totals, rates)
    counting = [group for group in rates if group == TRUSTED or _agrees(rates[group], references)]
    arms = {arm for group in counting for arm in groups[group]}
    return {
        arm: LabelSums.of(groups[group][arm] for group in counting if arm in groups[group])
        for arm in arms
    }


def _references(totals: Mapping[str, LabelSums], rates: Mapping[str, Rates]) -> Rates:
    """Return both rates that groups must be near, each with its variance."""
    trusted = totals.get(TRUSTED)
    if trusted is not None and trusted.right + trusted.wrong >= TRUSTED_MIN:
        return rates[TRUSTED]
    weights = [one.right + one.wrong for one in totals.values()]
    of_right, of_wrong = (
        median(zip([own[at][0] for own in rates.values()], weights, strict=True)) for at in (0, 1)
    )
    return (of_right, 0.0), (of_wrong, 0.0)


def _agrees(rates: Rates, references: Rates) -> bool:
    """Whether both rates of a group are near the reference."""
    return all(
        abs(rate - reference) <= OUTLYING * math.sqrt(variance + error)
        for (rate, variance), (reference, error) in zip(rates, references, strict=True)
    )


def _rate(passed: float, count: float) -> Rate:
    rate = (passed + 0.5) / (count + 1.0)
    near = min(max(rate, RATE[0]), RATE[1])
    return rate, near * (1.0 - near) / (count + 1.0)
