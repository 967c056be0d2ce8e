"""Decides which answers to audit: to ask the reference too, and compare.

Where labels are scarce, an audit buys one. A label teaches most where the policy hardly knows which
arm is better, on arms with few labels, and on answers that are seldom drawn, because there will not
be another soon. So

    worth       = sqrt(FEW / (FEW + labels of the arm)) / sqrt(propensity) / (1 + gap / GAP)
    probability = share * (LEAST + (1 - LEAST) * worth / mean worth)

with gap the distance of the answering arm's score from the best of the others. Every answer keeps a
probability of at least LEAST times the mean, so that every label can be weighted by its
probability. The mean is the requested share, corrected for audits drawn too often or too rarely.

Audits also have a budget: they may cost `budget_share` of what the requests cost. Each request adds
its part to a balance, and each audit is paid from it beforehand. Audits that exceed the balance are
skipped, so that the budget is never exceeded. The share is lowered to what the balance earns, so
that it is seldom empty.
"""

import math
from random import Random
from typing import Any

from tollway.policies.types import Choice

GAP = 0.05  # quality: at this distance from the next arm a label is worth half
FEW = 30.0  # labels of an arm after which the next one is worth markedly less
LABELS_MAX = 300.0  # with more labels an arm is known, but still worth an occasional audit
RARE_MAX = 100.0  # times rarer than certain: for rarer answers the worth no longer grows
LEAST = 0.25  # of the mean probability, for every answer
MOST = 10.0  # times the mean probability, for any answer
OWED_MAX = 3.0  # audits that the mean may be ahead or behind
RATE = 0.01  # of the running means: about the last hundred requests
BALANCE_MAX = 20  # audits' worth: a quiet period must not be followed by a burst


class Auditor:
    """Draws the answers to audit on one route."""

    # The mutable state: the running means of worth, of spending and of an audit's cost, the audits
    # owed to the mean, the balance in nano-dollars, the maximum cost of the last audit that was not
    # free, and each arm's labels.

    def __init__(self, *, share: float, budget_share: float | None = None) -> None:
        """`share` of all answers in the mean; `budget_share` of their cost, None: no budget."""
        self.revise(share=share, budget_share=budget_share)
        self._worth = 0.0
        self._spent_nano = 0.0
        self._audit_nano = 0.0
        self._paid_nano = 0
        self._owed = 0.0
        self.balance_nano = 0
        self.labels: dict[str, float] = {}

    def revise(self, *, share: float, budget_share: float | None = None) -> None:
        """Change the shares, and keep what was learned and the balance."""
        if not 0.0 < share <= 1.0 or (budget_share is not None and not budget_share > 0.0):
            raise ValueError(f"an audit share of {share}, a budget share of {budget_share}")
        self._share = share
        self._budget_share = budget_share

    def draw(
        self, arm: str, choice: Choice, *, spent_nano: int, audit_nano: int, rng: Random
    ) -> float:
        """Return the probability with which this answer is audited, or 0.0 if it is not.

        arm: the arm that answered; choice: the choice that led to it; spent_nano: the cost of the
        request; audit_nano: the maximum cost of the audit.
        """
        self._earn(spent_nano, audit_nano)
        probability = self._probability(self._value(arm, choice))
        if not self._affords(audit_nano):
            return 0.0
        if rng.random() >= probability:
            return 0.0
        self.charge(audit_nano)
        return probability

    def _value(self, arm: str, choice: Choice) -> float:
        """Return what a label of this answer is worth, without a unit."""
        price, at = choice.shadow_price, choice.index
        scores = [
            quality - price * cost
            for quality, cost in zip(choice.quality_hat, choice.cost_hat_usd, strict=True)
        ]
        others = scores[:at] + scores[at + 1 :]
        gap = abs(scores[at] - max(others)) if others else 1.0
        known = math.sqrt(FEW / (FEW + self.labels.get(arm, 0.0)))
        rare = math.sqrt(min(1.0 / choice.propensity, RARE_MAX))
        return rare * known / (1.0 + gap / GAP)

    def _probability(self, worth: float) -> float:
        self._worth += (RATE if self._worth else 1.0) * (worth - self._worth)
        rate = self.rate
        relative = min(LEAST + (1.0 - LEAST) * worth / self._worth, MOST)
        # The audits owed are paid back within some hundred requests, by at most half as many again.
        corrected = rate * relative * (1.0 + 0.5 * self._owed / OWED_MAX)
        probability = min(corrected, 1.0)
        self._owed = min(max(self._owed + rate - probability, -OWED_MAX), OWED_MAX)
        return probability

    @property
    def rate(self) -> float:
        """The share of answers that is audited now, in the mean."""
        if self._budget_share is None or not self._audit_nano:
            return self._share
        return min(self._share, self._budget_share * self._spent_nano / self._audit_nano)

    def _earn(self, spent_nano: int, audit_nano: int) -> None:
        first = not self._audit_nano
        self._spent_nano += (1.0 if first else RATE) * (spent_nano - self._spent_nano)
        self._audit_nano += (1.0 if first else RATE) * (audit_nano - self._audit_nano)
        if self._budget_share is not None:
            earned = self.balance_nano + int(self._budget_share * spent_nano)
            # Auditing a reply of the reference itself is free, so it says nothing about the maximum
            # cost.
            self._paid_nano = audit_nano or self._paid_nano
            self.balance_nano = min(earned, max(BALANCE_MAX * self._paid_nano, self.balance_nano))

    def _affords(self, audit_nano: int) -> bool:
        return self._budget_share is None or self.balance_nano >= audit_nano

    def charge(self, amount_nano: int) -> None:
        """Charge an audit's cost to the balance; a negative amount returns what was not spent."""
        if self._budget_share is not None:
            self.balance_nano -= amount_nano

    def learned(self, arm: str) -> None:
        """Count a label of an arm."""
        self.labels[arm] = min(self.labels.get(arm, 0.0) + 1.0, LABELS_MAX)

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {
            "means": [self._worth, self._spent_nano, self._audit_nano, self._owed],
            "balance_nano": self.balance_nano,
            "paid_nano": self._paid_nano,
            "labels": self.labels,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        means = [float(mean) for mean in state["means"]]
        self._worth, self._spent_nano, self._audit_nano, self._owed = means
        balance_nano = state["balance_nano"] if "balance_nano" in state else state["purse_nano"]
        self.balance_nano, self._paid_nano = int(balance_nano), int(state["paid_nano"])
        self.labels = {str(arm): float(count) for arm, count in state["labels"].items()}
