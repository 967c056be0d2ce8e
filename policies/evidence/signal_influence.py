"""Limits how far one tenant's answers and labels move what a route's signals say to all tenants.

Clients write to signals: a judge, a schema of their own and `users` read what they send, and their
labels teach how far to trust each signal. So both are limited like labels (see `influence`), each
apart:

    what the policy learns from signals      an arm's predicted quality against the others'
    the anchor's mean score, by signal       its score against the others'
    the rates of a signal, by labels         by group of tenants, which must agree with the others
                                             (see `signal_labels`), up to the share of the traffic
"""

from collections.abc import Mapping
from typing import Any

from tollway.policies.evidence.influence import Influence
from tollway.policies.evidence.signal_labels import TRUSTED


class SignalInfluence:
    """How far to believe a tenant's answers and labels, of one route."""

    # The mutable state is that of the two limits.

    def __init__(self) -> None:
        self._scores = Influence()
        self._labels = Influence()

    def scored(
        self,
        tenant: str,
        share: float,
        predicted: Mapping[str, float],
        anchored: Mapping[str, float],
        expected: Mapping[str, float],
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return how far to believe what signals say of a request's answers, from 0 to 1.

        `share`: the tenant's share of the traffic. `predicted`: the quality by arm; `anchored`: the
        score of the anchor's answer by signal; `expected`: the quality that the policy expects of
        the arms. The beliefs are by arm and by signal.
        """
        known = {_arm(arm): quality for arm, quality in predicted.items()}
        known |= {_signal(name): score for name, score in anchored.items()}
        usual = {_arm(arm): quality for arm, quality in expected.items()}
        beliefs = self._scores.believe(tenant, share, known, usual)
        return (
            {arm: beliefs[_arm(arm)] for arm in predicted},
            {name: beliefs[_signal(name)] for name in anchored},
        )

    def labelled(self, reporter: str, share: float) -> str | None:
        """Return the group of a label's sender; None if it has sent more than its share.

        `share`: its share of the traffic, 1 for those whom the operator trusts.
        """
        if share >= 1.0:
            return TRUSTED
        return str(self._labels.group(reporter)) if self._labels.admits(reporter, share) else None

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {"scores": self._scores.save(), "labels": self._labels.save()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Load a saved state; ValueError, TypeError or KeyError, and no change, if damaged."""
        scores, labels = Influence(), Influence()
        scores.load(state["scores"])
        labels.load(state["labels"])
        self._scores, self._labels = scores, labels


def _arm(arm: str) -> str:
    return f"arm {arm}"


def _signal(name: str) -> str:
    return f"signal {name}"
