"""Decides which answers are worth auditing: asked of the reference too, and compared.

Where labels are scarce an audit buys one. Which answer it is bought for matters: a label teaches
most where the policy hardly knows which arm is worth more, of arms that have few, and of answers
that are seldom drawn: there will not be another soon. So

    worth       = sqrt(FEW / (FEW + labels of the arm)) / sqrt(propensity) / (1 + gap / GAP)
    probability = share * (LEAST + (1 - LEAST) * worth / mean worth)

with gap the distance of the answering arm's score from the best of the others. Every answer keeps
a chance of LEAST times the mean, so that every label can be weighted by what was likely; and the
mean is the share asked for, corrected by what was drawn too much or too little.

Money bounds it too: audits may cost `budget_share` of what the requests cost. A purse takes that in
with each request and pays for each audit beforehand; what the purse lacks is not bought, so that it
is never exceeded. The share is lowered to what the purse earns, so that it is seldom empty.
"""

import math
from random import Random
from typing import Any

from tollway.policies.types import Choice

GAP = 0.05  # quality: at this distance from the next arm a label is worth half
FEW = 30.0  # labels of an arm from which on the next one is worth markedly less
LABELS_MAX = 300.0  # beyond these an arm is known, and stays worth a look
RARE_MAX = 100.0  # times rarer than certain: beyond, no label is worth more
LEAST = 0.25  # of the mean probability, for every answer
MOST = 10.0  # times the mean probability, for any
OWED_MAX = 3.0  # audits that the mean may be ahead or behind
RATE = 0.01  # of the running means: about the last hundred requests
PURSE_MAX = 20  # audits' worth: a lull is not followed by a spree


class Auditor:
    """Draws the answers to audit on one route."""

    # The mutable state: the running means of worth, of spending and of an audit's cost, what is
    # owed to the mean in audits, the purse in nano-dollars, what the last audit that cost
    # something could cost, and each arm's labels.

    def __init__(self, *, share: float, budget_share: float | None = None) -> None:
        """`share` of all answers in the mean; `budget_share` of what they cost, None: no bound."""
        self.revise(share=share, budget_share=budget_share)
        self._worth = 0.0
        self._spent_nano = 0.0
        self._audit_nano = 0.0
        self._paid_nano = 0
        self._owed = 0.0
        self.purse_nano = 0
        self.labels: dict[str, float] = {}

    def revise(self, *, share: float, budget_share: float | None = None) -> None:
        """Take other shares, and keep what was learned and saved up."""
        if not 0.0 < share <= 1.0 or (budget_share is not None and not budget_share > 0.0):
            raise ValueError(f"an audit share of {share}, a budget share of {budget_share}")
        self._share = share
        self._budget_share = budget_share

    def draw(
        self, arm: str, choice: Choice, *, spent_nano: int, audit_nano: int, rng: Random
    ) -> float:
        """Return the probability with which this answer is audited, 0.0 where it is not.

        arm: whose answer it is; choice: the one that led to it; spent_nano: what the request has
        cost; audit_nano: what an audit may cost at most.
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
        """Return what a label of this answer is worth, in no unit."""
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
        # What is owed is paid back within some hundred requests, but at most half as fast again.
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
            earned = self.purse_nano + int(self._budget_share * spent_nano)
            # A reply of the reference's own is audited for nothing: it says nothing of the cap.
            self._paid_nano = audit_nano or self._paid_nano
            self.purse_nano = min(earned, max(PURSE_MAX * self._paid_nano, self.purse_nano))

    def _affords(self, audit_nano: int) -> bool:
        return self._budget_share is None or self.purse_nano >= audit_nano

    def charge(self, amount_nano: int) -> None:
        """Take what an audit costs from the purse; below 0, give back what it did not."""
        if self._budget_share is not None:
            self.purse_nano -= amount_nano

    def learned(self, arm: str) -> None:
        """Count a label of an arm."""
        self.labels[arm] = min(self.labels.get(arm, 0.0) + 1.0, LABELS_MAX)

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {
            "means": [self._worth, self._spent_nano, self._audit_nano, self._owed],
            "purse_nano": self.purse_nano,
            "paid_nano": self._paid_nano,
            "labels": self.labels,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take a saved state."""
        means = [float(mean) for mean in state["means"]]
        self._worth, self._spent_nano, self._audit_nano, self._owed = means
        self.purse_nano, self._paid_nano = int(state["purse_nano"]), int(state["paid_nano"])
        self.labels = {str(arm): float(count) for arm, count in state["labels"].items()}
