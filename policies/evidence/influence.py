"""How far the labels that tenants send may enter what all tenants share.

A tenant may label its own requests, and nothing stops it from lying. What it says of an arm is held
against what all say of it, and counts in full, in part or not at all:

    quantity              labels of a tenant that count <= its share of the traffic x all labels
    influence on an arm   |sum of belief x (label - reference)| <= INFLUENCE_MAX

The sum is over the tenant's labels and fades as others label the arm, at the rate at which the
arm's mean forgets. That mean moves by 0.01 x belief x (label - mean) a label, so a tenant moves it
by at most 0.01 x INFLUENCE_MAX from where the others have it, however many labels it sends. A label
that goes back towards the reference always counts in full.

The reference is a median of means: tenants are dealt into groups, and the median of the groups'
mean labels is taken, weighted by their labels. Who has less than half of the labels cannot move it
far, and a group is large enough for its mean to mean something (Lugosi and Mendelson, Mean
estimation and regression under heavy-tailed distributions: a survey, Found. Comput. Math. 19, 2019,
section 2.1). It is that of the last 400 labels; where that of the last 30 is clearly another, the
arm has changed for most tenants, and it is that.

An honest tenant loses little: its labels scatter around the reference, so what is taken off on one
side is taken off on the other. What it may lose is what is true of its own requests only: see
decision 0113.

Not held against anything: who has more than half of the traffic (what is shared is mostly its own),
whom the operator trusts (the admin key, audits, tenants marked `labeller`), and whoever labels a
route that others hardly label.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

INFLUENCE_MAX = 0.8  # of a label, either way: less than 0.01 of an arm's mean quality
MEAN_RATE = 0.01  # of an arm's mean, as `quality` has it
RATES = (1.0 / 400.0, 1.0 / 30.0)  # of the reference: well known, and soon known
GROUPS = 8  # of tenants: with 400 labels each has 50, whose mean is within 0.07 or so
LABELS_MIN = 10.0  # of others on an arm: of fewer, what the policy expects is part of the reference
OTHERS_MIN = 30.0  # labels of others on a route: with fewer there is nothing to hold against
NEGLIGIBLE = 1e-6  # of a label, that was faded
CHANGED = 3.0  # standard errors between the two references
VARIANCE_MIN = 0.02  # of labels: an arm that was always right is not known to be so for ever
MAJORITY = 0.5  # of the traffic
MEMORY = 1000.0  # labels of a route over which quantities are compared
GRACE = 30.0  # labels beyond the share, for luck


class Fading:
    """A sum that fades by a rate with every step of a clock that its owner keeps."""

    # The mutable state is the sum, and the step it was last brought up to.

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


class _Said:
    """Labels of one arm, how many and their sum, each at both rates."""

    # The mutable state is the sums, and the label of the arm that they were last brought up to.

    __slots__ = ("at", "counts", "sums")

    def __init__(self) -> None:
        self.at = 0.0
        self.counts = [0.0 for _ in RATES]
        self.sums = [0.0 for _ in RATES]

    def fade(self, clock: float) -> None:
        """Bring the sums up to a label of the arm."""
        if clock > self.at:
            for at, rate in enumerate(RATES):
                kept = (1.0 - rate) ** (clock - self.at)
                self.counts[at] *= kept
                self.sums[at] *= kept
            self.at = clock

    def add(self, quality: float) -> None:
        """Take a label."""
        for at in range(len(RATES)):
            self.counts[at] += 1.0
            self.sums[at] += quality


class _Arm:
    """What is said of one arm: by each group and tenant, and how far each tenant has moved it."""

    # The mutable state is the count of labels, of those that counted, what was said by groups and
    # by tenants, and the influences.

    __slots__ = ("clock", "counted", "groups", "influences", "tenants")

    def __init__(self) -> None:
        self.clock = self.counted = 0.0
        self.groups: dict[int, _Said] = {}
        self.tenants: dict[str, _Said] = {}
        self.influences: dict[str, Fading] = {}

    def hear(self, sync: str, group: int, quality: float) -> None:
        """Take a label, however far it is believed."""
        self.clock += 1.0
        for said in (
            self.groups.setdefault(group, _Said()),
            self.tenants.setdefault(sync, _Said()),
        ):
            said.fade(self.clock)
            said.add(quality)

    def reference(self, sync: str, group: int, share: float, expected: float) -> float:
        """Return what the others say, and the teller itself as far as its share goes.

        `expected` stands for what they do not say yet.
        """
        own = self.tenants.setdefault(sync, _Said())
        own.fade(self.clock)
        slow: list[tuple[float, float]] = []
        fast: list[tuple[float, float]] = []
        for number, said in self.groups.items():
            said.fade(self.clock)
            mine = own if number == group else _Said()
            for at, means in enumerate((slow, fast)):
                count = said.counts[at] - mine.counts[at]
                if count > NEGLIGIBLE:
                    means.append(((said.sums[at] - mine.sums[at]) / count, count))
        others, lately = sum(count for _, count in slow), sum(count for _, count in fast)
        if others < LABELS_MIN:
            told = sum(mean * count for mean, count in slow)
            return (told + (LABELS_MIN - others) * expected) / LABELS_MIN
        for at, (means, total) in enumerate(((slow, others), (fast, lately))):
            weight = min(own.counts[at], total * share / (1.0 - share))
            if weight > NEGLIGIBLE:
                means.append((own.sums[at] / own.counts[at], weight))
        known = _median(slow)
        if lately < 1.0:
            return known
        variance = max(known * (1.0 - known), VARIANCE_MIN)
        now = _median(fast)
        return now if abs(now - known) > CHANGED * math.sqrt(variance / lately) else known

    def believe(self, sync: str, off: float) -> float:
        """Return how far a label that is `off` the reference is believed, and count that."""
        influence = self.influences.setdefault(sync, Fading(0.0, self.clock))
        # Faded by the others' labels alone: one's own do not make what one did any older.
        before = influence.now(self.clock - 1.0, MEAN_RATE)
        influence.at = self.clock
        # Of an arm with few labels each moves more than a hundredth: so much the less is believed.
        off *= max(1.0, 1.0 / (self.counted + 2.0) / MEAN_RATE)
        after = before + off
        if abs(after) > INFLUENCE_MAX and abs(after) > abs(before):
            after = max(min(after, INFLUENCE_MAX), -INFLUENCE_MAX)
            after = max(after, before) if off > 0.0 else min(after, before)
        influence.value = after
        return min(max((after - before) / off, 0.0), 1.0) if off else 1.0


class Influence:
    """Decides how far the labels of a route are believed (20 us a label)."""

    # The mutable state is what was said of each arm, the tenants' groups, how many labels there
    # were lately, how many each tenant sent, and how many of them were within its share.

    def __init__(self) -> None:
        self._arms: dict[str, _Arm] = {}
        self._groups: dict[str, int] = {}
        self._clock = self._labels = 0.0
        self._sent: dict[str, Fading] = {}
        self._counted: dict[str, Fading] = {}

    def believe(
        self,
        sync: str,
        share: float,
        known: Mapping[str, float],
        expected: Mapping[str, float] = MappingProxyType({}),
    ) -> dict[str, float]:
        """Take what a feedback says of arms; return how far each is believed, from 0 to 1.

        `share`: the teller's share of the route's traffic, 1 for who is trusted. `known`: the
        quality of each arm's reply, in [0, 1]; `expected`: what the policy expects of the arms.
        """
        self._clock += 1.0
        self._labels += 1.0 - self._labels / MEMORY
        sent = self._more(self._sent, sync)
        sent.value += 1.0
        counted = self._more(self._counted, sync)
        if counted.value > share * self._labels + GRACE:
            return dict.fromkeys(known, 0.0)
        counted.value += 1.0
        alone = self._labels - sent.value < OTHERS_MIN
        free = alone or share > MAJORITY
        return {
            arm: self._believed(sync, 1.0 if free else share, arm, q, expected.get(arm, q))
            for arm, q in known.items()
        }

    def _more(self, sums: dict[str, Fading], sync: str) -> Fading:
        fading = sums.setdefault(sync, Fading(0.0, self._clock))
        fading.now(self._clock, 1.0 / MEMORY)
        return fading

    def _believed(
        self, sync: str, share: float, arm: str, quality: float, expected: float
    ) -> float:
        said = self._arms.setdefault(arm, _Arm())
        group = self._groups.setdefault(sync, len(self._groups) % GROUPS)
        if share == 1.0:
            said.hear(sync, group, quality)
            belief = 1.0
        else:
            reference = said.reference(sync, group, share, expected)
            said.hear(sync, group, quality)
            belief = said.believe(sync, quality - reference)
        said.counted = min(said.counted + belief, 1.0 / MEAN_RATE)
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
                    "groups": {str(group): _shown(said) for group, said in arm.groups.items()},
                    "tenants": {tenant: _shown(said) for tenant, said in arm.tenants.items()},
                    "influences": _saved(arm.influences),
                }
                for name, arm in self._arms.items()
            },
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take a saved state; ValueError, TypeError or KeyError, and no change, where damaged."""
        arms = {str(name): _arm(told) for name, told in state["arms"].items()}
        groups = {str(sync): int(group) for sync, group in state["groups"].items()}
        sent, counted = _loaded(state["sent"]), _loaded(state["counted"])
        clock, labels = _finite(state["clock"]), _finite(state["labels"])
        self._arms, self._groups, self._sent, self._counted = arms, groups, sent, counted
        self._clock, self._labels = clock, labels


def _arm(state: Mapping[str, Any]) -> _Arm:
    arm = _Arm()
    arm.clock, arm.counted = _finite(state["clock"]), _finite(state["counted"])
    arm.groups = {int(group): _said(told) for group, told in state["groups"].items()}
    arm.tenants = {str(tenant): _said(told) for tenant, told in state["tenants"].items()}
    arm.influences = _loaded(state["influences"])
    return arm


def _shown(said: _Said) -> list[float]:
    return [said.at, *said.counts, *said.sums]


def _said(state: Sequence[float]) -> _Said:
    said = _Said()
    said.at, *rest = [_finite(value) for value in state]
    if len(rest) != 2 * len(RATES):
        raise ValueError("a saved state whose sums do not fit")
    said.counts, said.sums = rest[: len(RATES)], rest[len(RATES) :]
    return said


def _median(weighted: Iterable[tuple[float, float]]) -> float:
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
