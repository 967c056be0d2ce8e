"""Turns measured quality against the promised one into how much may be saved, and by whom.

Two loops. The inner one aims: the price of money is the highest at which the expected mean quality
still is at the floor, plus a margin, plus what is owed from before: the pacer's machine on the
other axis.

The outer one doubts. What the heads expect cannot certify a floor (a misspecified one holds it in
its own eyes only), so a share of the requests, drawn by lot, goes to the baseline arm, which is
declared to hold it. With q_b the baseline's quality and L a lower bound on the learned policy's
own, from propensity-weighted labels and valid at all times (`confidence`), the share of the learned
policy is the largest whose mix is not below the floor, less a slack:

    share = (q_b - (floor - slack)) / (q_b - L), at most 1 and at least a tenth

Nothing is known at first, L = 0, and most requests go to the baseline. As labels come L rises, and
the policy is released. Without a baseline nothing is drawn, and the policy has all requests. (A
tenth is more than the formula's where the baseline is hardly above the floor: the price of labels
is then a tenth of what the learned policy falls short by.) When a detector refutes that it holds
the floor, the evidence begins anew.
"""

from typing import Any

from tollway.policies.evidence.confidence_sequences import Detector, LowerBound
from tollway.policies.pacing.multiplier import Market, Prices, price_for_quality
from tollway.policies.types import Notice

HORIZON = 100.0  # labels over which a shortfall is made good
CREDIT = 5.0  # labels' worth of surplus that may be used up: small, or good luck is gambled away
DEBT = 50.0  # the shortfall that is remembered
SHARE_MIN = 0.1  # of the learned policy: without labels of its own it could never be released
FLICKER = 0.005  # quality: how far the best must be above the floor again to be said to reach it
TEXTS = {
    "floor_released": "the learned policy is shown to hold the floor; it has all requests now",
    "floor_refuted": "the learned policy is shown to miss the floor; the baseline takes over",
    "floor_infeasible": "no choice of backends is expected to reach the floor; the best is taken",
    "floor_feasible": "the floor is expected to be within reach again",
}


class Floor:
    """Keeps the mean quality at a floor."""

    # The mutable state of a floor is what is owed, in answers, the bets on the learned policy's
    # quality, what is expected of the baseline, what follows from these for the learned policy's
    # share, and what was last told of it.

    def __init__(
        self,
        floor: float,
        *,
        margin: float = 0.001,
        horizon: float = HORIZON,
        slack: float = 0.02,
        alpha: float = 0.05,
        alarm: float = 0.001,
    ) -> None:
        if not 0.0 <= floor <= 1.0:
            raise ValueError(f"a floor of {floor}, not in [0, 1]")
        self.floor = floor
        self._margin = margin
        self._horizon = horizon
        self._slack = slack
        self._lower = LowerBound(alpha=alpha)
        # In losses (1 - quality), whose mean is claimed to be at most this.
        self._failing = Detector(1.0 - floor + slack, alpha=alarm)
        self.owed = 0.0
        self.estimate = floor
        self.baseline = floor
        self._released = False
        self._feasible = True
        self._in_vain = False
        self._share()

    def observe(
        self, quality: float, value: float, least: float, most: float, part: float = 1.0
    ) -> Notice | None:
        """Count an answer that was given: its quality, and what it says of the learned policy.

        value: the estimate of the learned policy's quality; least, most: see `value.Estimate`.
        part: the share of such requests that is the learned policy's own, so that one answer which
        stands for ten does not owe ten. Returns what an operator should hear of it.
        """
        self.estimate += (quality - self.estimate) / self._horizon
        owed = self.owed + part * (self.floor + self._margin - value)
        self.owed = min(max(owed, -CREDIT), DEBT)
        refuted = self._failing.observe(1.0 - value, 1.0 - most)
        if refuted:
            self._failing.reset()
            self._lower.reset()
        self._lower.observe(value, least)
        self._share()
        if refuted:
            return self._say("floor_refuted", released=False)
        if self.share == 1.0 and not self._released:
            return self._say("floor_released", released=True)
        return None

    def _say(self, kind: str, *, released: bool) -> Notice:
        self._released = released
        return Notice(kind, TEXTS[kind], {"lower_bound": self.lower_bound, "floor": self.floor})

    def reach(self, best: float) -> Notice | None:
        """Take what the best arm for each request is expected to reach, whatever it costs."""
        if best < self.floor and self._feasible:
            self._feasible, kind = False, "floor_infeasible"
        elif best >= min(self.floor + FLICKER, 1.0) and not self._feasible:
            self._feasible, kind = True, "floor_feasible"
        else:
            return None
        return Notice(kind, TEXTS[kind], {"best": best, "floor": self.floor})

    def compare(self, own_usd: float, baseline_usd: float, baseline: float) -> None:
        """Take what holding the floor is expected to cost, and what the baseline would, and bring.

        A learned policy that costs more than the baseline by itself has nothing to offer, while
        the baseline holds the floor: it is kept to the share it learns from.
        """
        self.baseline = baseline
        self._in_vain = own_usd > baseline_usd and baseline >= self.floor
        self._share()

    def _share(self) -> None:
        aim = self.floor - self._slack
        holds = max(self.baseline, self.floor)  # it is declared to
        if self._in_vain:
            self.share = SHARE_MIN
        elif self._lower.value >= aim:
            self.share = 1.0
        else:
            self.share = max((holds - aim) / (holds - self._lower.value), SHARE_MIN)

    @property
    def lower_bound(self) -> float:
        """What the learned policy's own quality is at least."""
        return self._lower.value

    @property
    def guarded(self) -> bool:
        """Whether the baseline has a share of the requests for the floor's sake."""
        return self.share < 1.0

    @property
    def target(self) -> float:
        """The mean quality to aim at now."""
        return min(self.floor + self._margin + self.owed / self._horizon, 1.0)

    def prices(self, market: Market) -> Prices:
        """Return the highest prices of money at which the expected quality is on target."""
        return price_for_quality(market, self.target)

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {
            "owed": self.owed,
            "estimate": self.estimate,
            "baseline": self.baseline,
            "told": [self._released, self._feasible, self._in_vain],
            "lower": self._lower.save(),
            "failing": self._failing.save(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take a saved state."""
        self._lower.load(state["lower"])
        self._failing.load(state["failing"])
        self.owed, self.estimate = float(state["owed"]), float(state["estimate"])
        self.baseline = float(state["baseline"])
        self._released, self._feasible, self._in_vain = map(bool, state["told"])
        self._share()
