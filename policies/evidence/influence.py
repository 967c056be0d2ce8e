"""Limits how far the labels that tenants send may influence what all tenants share.

A tenant may label its own requests, and nothing stops it from lying. Its labels of an arm are
compared with the labels of all tenants, and count in full, in part or not at all:

    quantity              labels of a tenant that count <= its share of the traffic x all labels
    influence on an arm   |sum of belief x (label - reference)| <= INFLUENCE_MAX

The sum is over the tenant's labels and fades as others label the arm, at the rate at which the
arm's mean forgets. That mean moves by 0.01 x belief x (label - mean) a label, so a tenant moves it
by at most 0.01 x INFLUENCE_MAX from where the others have it, however many labels it sends. A label
that goes back towards the reference always counts in full.

The reference is a median of means: tenants are assigned to groups, and the reference is the median
of the groups' mean labels, weighted by their labels. Tenants with less than half of the labels
cannot move it far, and a group is large enough for its mean to be meaningful (Lugosi and Mendelson,
Mean estimation and regression under heavy-tailed distributions: a survey, Found. Comput. Math. 19,
2019, section 2.1). The reference covers the last 400 labels. Where that of the last 30 clearly
differs, the arm has changed for most tenants, and the reference covers the last 30.

An honest tenant loses little: its labels scatter around the reference, so deductions on one side
balance those on the other. What it may lose is what is true of its own requests only: see decision
0113.

Labels from three kinds of sender are not limited: a tenant with more than half of the traffic (what
is shared is mostly its own), a sender the operator trusts (the admin key, audits, tenants marked
`labeller`), and any tenant on a route that others hardly label.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

INFLUENCE_MAX = 0.8  # of a label, in either direction: less than 0.01 of an arm's mean quality
MEAN_RATE = 0.01  # of an arm's mean, as in `quality`
RATES = (1.0 / 400.0, 1.0 / 30.0)  # of the reference: one precise, one fast
GROUPS = 8  # of tenants: with 400 labels each has 50, and its mean is within 0.07 or so
LABELS_MIN = 10.0  # of others on an arm: with fewer, the policy's expectation counts too
OTHERS_MIN = 30.0  # labels of others on a route: with fewer there is no reference to compare with
NEGLIGIBLE = 1e-6  # of a label, after fading
CHANGED = 3.0  # standard errors between the two references
VARIANCE_MIN = 0.02  # of labels: an arm that was always right so far may still be wrong later
MAJORITY = 0.5  # of the traffic
MEMORY = 1000.0  # labels of a route over which quantities are compared
GRACE = 30.0  # labels beyond the share, to allow for chance


class Fading:
    """A sum that fades by a rate with every step of a clock that its owner keeps."""

    # The mutable state is the sum, and the step at which it was last updated.

    __slots__ = ("at", "value")

    def __init__(self, value: float = 0.0, at: float = 0.0) -> None:
        self.value = value
        self.at = at

    def now(self, clock: float, rate: float) -> float:
        """Return the sum at a step."""
        if clock > self.at:
            self.value *= (1.0 - rate) ** (clock - self.at)
            self.at = clock
        return self.value


class _LabelSums:
    """The number and the sum of labels of one arm, each at both rates."""

    # The mutable state is the sums, and the arm's label at which they were last updated.

    __slots__ = ("at", "counts", "sums")

    def __init__(self) -> None:
        self.at = 0.0
        self.counts = [0.0 for _ in RATES]
        self.sums = [0.0 for _ in RATES]

    def fade(self, clock: float) -> None:
        """Fade the sums to a given label of the arm."""
        if clock > self.at:
            for at, rate in enumerate(RATES):
                decay = (1.0 - rate) ** (clock - self.at)
                self.counts[at] *= decay
                self.sums[at] *= decay
            self.at = clock

    def add(self, quality: float) -> None:
        """Add a label."""
        for at in range(len(RATES)):
            self.counts[at] += 1.0
            self.sums[at] += quality


class _Arm:
    """The labels of one arm by group and by tenant, and how far each tenant has moved its mean."""

    # The mutable state is the count of labels, of those that counted, the sums by group and by
    # tenant, and the influences.

    __slots__ = ("clock", "counted", "groups", "influences", "tenants")

    def __init__(self) -> None:
        self.clock = self.counted = 0.0
        self.groups: dict[int, _LabelSums] = {}
        self.tenants: dict[str, _LabelSums] = {}
        self.influences: dict[str, Fading] = {}

    def add(self, tenant: str, group: int, quality: float) -> None:
        """Count a label, however far it is trusted."""
        self.clock += 1.0
        for sums in (
            self.groups.setdefault(group, _LabelSums()),
            self.tenants.setdefault(tenant, _LabelSums()),
        ):
            sums.fade(self.clock)
            sums.add(quality)

    def reference(self, tenant: str, group: int, share: float, expected: float) -> float:
        """Return the reference: the labels of the others, and of the sender within its share.

        `expected` stands in for labels that are still missing.
        """
        own = self.tenants.setdefault(tenant, _LabelSums())
        own.fade(self.clock)
        slow: list[tuple[float, float]] = []
        fast: list[tuple[float, float]] = []
        for number, labels in self.groups.items():
            labels.fade(self.clock)
            mine = own if number == group else _LabelSums()
            for at, means in enumerate((slow, fast)):
                count = labels.counts[at] - mine.counts[at]
                if count > NEGLIGIBLE:
                    means.append(((labels.sums[at] - mine.sums[at]) / count, count))
        others, lately = sum(count for _, count in slow), sum(count for _, count in fast)
        if others < LABELS_MIN:
            total = sum(mean * count for mean, count in slow)
            return (total + (LABELS_MIN - others) * expected) / LABELS_MIN
        for at, (means, total) in enumerate(((slow, others), (fast, lately))):
            weight = min(own.counts[at], total * share / (1.0 - share))
            if weight > NEGLIGIBLE:
                means.append((own.sums[at] / own.counts[at], weight))
        known = median(slow)
        if lately < 1.0:
            return known
        variance = max(known * (1.0 - known), VARIANCE_MIN)
        now = median(fast)
        return now if abs(now - known) > CHANGED * math.sqrt(variance / lately) else known

    def believe(self, tenant: str, off: float) -> float:
        """Return how far to trust a label that is `off` the reference, and count its influence."""
        influence = self.influences.setdefault(tenant, Fading(0.0, self.clock))
        # Only the others' labels fade it: a tenant's own labels must not age its own influence.
        before = influence.now(self.clock - 1.0, MEAN_RATE)
        influence.at = self.clock
        # On an arm with few labels each moves the mean by more than a hundredth: trust it that much
        # less.
        off *= max(1.0, 1.0 / (self.counted + 2.0) / MEAN_RATE)
        after = before + off
        if abs(after) > INFLUENCE_MAX and abs(after) > abs(before):
            after = max(min(after, INFLUENCE_MAX), -INFLUENCE_MAX)
            after = max(after, before) if off > 0.0 else min(after, before)
        influence.value = after
        return min(max((after - before) / off, 0.0), 1.0) if off else 1.0


class Influence:
    """Decides how far the labels of a route are trusted (20 us a label)."""

    # The mutable state is the labels of each arm, the tenants' groups, the recent number of labels,
    # how many each tenant sent, and how many of them were within its share.

    def __init__(self) -> None:
        self._arms: dict[str, _Arm] = {}
        self._groups: dict[str, int] = {}
        self._clock = self._labels = 0.0
        self._sent: dict[str, Fading] = {}
        self._counted: dict[str, Fading] = {}

    def believe(
        self,
        tenant: str,
        share: float,
        known: Mapping[str, float],
        expected: Mapping[str, float] = MappingProxyType({}),
    ) -> dict[str, float]:
        """Return how far the labels of a feedback are trusted, by arm, from 0 to 1.

        `share`: the sender's share of the route's traffic, 1 for a trusted sender. `known`: the
        quality of each arm's reply, in [0, 1]; `expected`: the policy's expectation of the arms.
        """
        if not self.admits(tenant, share):
            return dict.fromkeys(known, 0.0)
        alone = self._labels - self._sent[tenant].value < OTHERS_MIN
        free = alone or share > MAJORITY
        return {
            arm: self._believed(tenant, 1.0 if free else share, arm, q, expected.get(arm, q))
            for arm, q in known.items()
        }

    def admits(self, tenant: str, share: float) -> bool:
        """Count a label; return whether its tenant has not sent more than its share of them."""
        self._clock += 1.0
        self._labels += 1.0 - self._labels / MEMORY
        self._more(self._sent, tenant).value += 1.0
        counted = self._more(self._counted, tenant)
        if counted.value > share * self._labels + GRACE:
            return False
        counted.value += 1.0
        return True

    def group(self, tenant: str) -> int:
        """Return the group of a tenant."""
        return self._groups.setdefault(tenant, len(self._groups) % GROUPS)

    def _more(self, sums: dict[str, Fading], tenant: str) -> Fading:
        fading = sums.setdefault(tenant, Fading(0.0, self._clock))
        fading.now(self._clock, 1.0 / MEMORY)
        return fading

    def _believed(
        self, tenant: str, share: float, arm: str, quality: float, expected: float
    ) -> float:
        state = self._arms.setdefault(arm, _Arm())
        group = self.group(tenant)
        if share == 1.0:
            state.add(tenant, group, quality)
            belief = 1.0
        else:
            reference = state.reference(tenant, group, share, expected)
            state.add(tenant, group, quality)
            belief = state.believe(tenant, quality - reference)
        state.counted = min(state.counted + belief, 1.0 / MEAN_RATE)
        return belief

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {
            "clock": self._clock,
            "labels": self._labels,
            "groups": self._groups,
            "sent": _saved(self._sent),
            "counted": _saved(self._counted),
            "arms": {
                name: {
                    "clock": arm.clock,
                    "counted": arm.counted,
                    "groups": {str(group): _shown(sums) for group, sums in arm.groups.items()},
                    "tenants": {tenant: _shown(sums) for tenant, sums in arm.tenants.items()},
                    "influences": _saved(arm.influences),
                }
                for name, arm in self._arms.items()
            },
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Load a saved state; ValueError, TypeError or KeyError, and no change, if damaged."""
        arms = {str(name): _arm(saved) for name, saved in state["arms"].items()}
        groups = {str(tenant): int(group) for tenant, group in state["groups"].items()}
        sent, counted = _loaded(state["sent"]), _loaded(state["counted"])
        clock, labels = _finite(state["clock"]), _finite(state["labels"])
        self._arms, self._groups, self._sent, self._counted = arms, groups, sent, counted
        self._clock, self._labels = clock, labels


def _arm(state: Mapping[str, Any]) -> _Arm:
    arm = _Arm()
    arm.clock, arm.counted = _finite(state["clock"]), _finite(state["counted"])
    arm.groups = {int(group): _sums(saved) for group, saved in state["groups"].items()}
    arm.tenants = {str(tenant): _sums(saved) for tenant, saved in state["tenants"].items()}
    arm.influences = _loaded(state["influences"])
    return arm


def _shown(sums: _LabelSums) -> list[float]:
    return [sums.at, *sums.counts, *sums.sums]


def _sums(state: Sequence[float]) -> _LabelSums:
    sums = _LabelSums()
    sums.at, *rest = [_finite(value) for value in state]
    if len(rest) != 2 * len(RATES):
        raise ValueError("a saved state whose sums do not fit")
    sums.counts, sums.sums = rest[: len(RATES)], rest[len(RATES) :]
    return sums


def median(weighted: Iterable[tuple[float, float]]) -> float:
    """Return the weighted median of (value, weight); between two halves, the middle."""
    ordered = sorted(weighted)
    half, below = sum(weight for _, weight in ordered) / 2.0, 0.0
    for at, (value, weight) in enumerate(ordered[:-1]):
        below += weight
        if math.isclose(below, half):
            return (value + ordered[at + 1][0]) / 2.0
        if below > half:
            return value
    return ordered[-1][0]


def _saved(sums: Mapping[str, Fading]) -> dict[str, Sequence[float]]:
    return {name: (one.value, one.at) for name, one in sums.items()}


def _loaded(sums: Mapping[str, Sequence[float]]) -> dict[str, Fading]:
    return {str(name): Fading(_finite(value), _finite(at)) for name, (value, at) in sums.items()}


def _finite(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError(f"a saved state with {value}")
    return number
