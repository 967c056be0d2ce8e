"""Keeps the mean quality at a floor, and decides how much may be saved and by which policy.

There are two loops. The inner loop aims: the shadow price is the highest at which the expected mean
quality is still at the floor, plus a margin, plus the accumulated shortfall. It is the pacer's
algorithm applied to quality.

The outer loop verifies. The regressors' own expectations cannot certify a floor, because a
misspecified regressor holds it only by its own estimate. So a random share of the requests goes to
the baseline arm, which is declared to hold the floor. With q_b the baseline's quality and L a lower
bound on the learned policy's own quality, from propensity-weighted labels and valid at all times
(`confidence_sequences`), the share of the learned policy is the largest for which the mix is not
below the floor, less a slack:

    share = (q_b - (floor - slack)) / (q_b - L), at most 1 and at least a tenth

At first nothing is known, L = 0, and most requests go to the baseline. As labels arrive, L rises
and the learned policy is released. Without a baseline, the learned policy has all requests. (Where
the baseline is hardly above the floor, a tenth is more than the formula gives: the labels then cost
a tenth of the learned policy's shortfall.) When a detector refutes that the learned policy holds
the floor, the evidence is reset.
"""

from typing import Any

from tollway.policies.acceptance import AcceptanceRule
from tollway.policies.evidence.confidence_sequences import Detector, LowerBound
from tollway.policies.evidence.prediction_powered import PredictionPowered
from tollway.policies.pacing.multiplier import Market, Prices, price_for_quality
from tollway.policies.types import Notice

HORIZON = 100.0  # labels over which a shortfall is made good
CREDIT = 5.0  # maximum surplus that may be used up, in labels; small, so that luck is not spent
DEBT = 50.0  # maximum shortfall that is remembered
SHARE_MIN = 0.1  # of the learned policy: without labels of its own it could never be released
FLICKER = 0.005  # quality above the floor at which an infeasible floor is feasible again
ALPHA_POWERED = 0.7  # of alpha, for the bound by predictions and labels where there are any
TEXTS = {
    "floor_released": "the learned policy is shown to hold the floor; it has all requests now",
    "floor_refuted": "the learned policy is shown to miss the floor; the baseline takes over",
    "floor_infeasible": "no choice of backends is expected to reach the floor; the best is taken",
    "floor_feasible": "the floor is expected to be within reach again",
}


class Floor:
    """Keeps the mean quality at a floor."""

    # The mutable state of a floor is the shortfall in answers, the bets on the learned policy's
    # quality, the expected quality of the baseline, the resulting share of the learned policy, and
    # the last state reported of it.

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
        self._alpha = alpha
        self._lower = LowerBound(alpha=alpha)
        self._powered: PredictionPowered | None = None
        # The detector works on losses (1 - quality): the claim is that their mean is at most this.
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
        """Count an answer that was given: its quality, and its evidence on the learned policy.

        value: the estimate of the learned policy's quality; least, most: see `off_policy.Estimate`.
        part: the learned policy's own share of such requests, so that one answer which stands for
        ten does not add a shortfall of ten. Returns the notices for the operator.
        """
        self.estimate += (quality - self.estimate) / self._horizon
        owed = self.owed + part * (self.floor + self._margin - value)
        self.owed = min(max(owed, -CREDIT), DEBT)
        refuted = self._failing.observe(1.0 - value, 1.0 - most)
        if refuted:
            self._failing.reset()
            self._lower.reset()
            if self._powered is not None:
                self._powered.reset()
        self._lower.observe(value, least)
        self._share()
        if refuted:
            return self._notice("floor_refuted", released=False)
        if self.share == 1.0 and not self._released:
            return self._notice("floor_released", released=True)
        return None

    def acceptance(self, cheap: str, baseline: str, declared: float | None) -> AcceptanceRule:
        """Return a rule on which replies of `cheap` to accept; `declared`: of the baseline."""
        return AcceptanceRule(
            cheap,
            baseline,
            floor=self.floor,
            declared=self.floor if declared is None else declared,
            margin=self._margin,
            slack=self._slack,
            alpha=self._alpha,
        )

    def released(self, lower_bound: float) -> Notice:
        """Return the notice that a rule with this lower bound is used from now on."""
        figures = {"lower_bound": lower_bound, "floor": self.floor}
        return Notice("floor_released", TEXTS["floor_released"], figures)

    def _notice(self, kind: str, *, released: bool) -> Notice:
        self._released = released
        return Notice(kind, TEXTS[kind], {"lower_bound": self.lower_bound, "floor": self.floor})

    def reach(self, best: float) -> Notice | None:
        """Set the quality that the best arm for each request is expected to reach, at any cost."""
        if best < self.floor and self._feasible:
            self._feasible, kind = False, "floor_infeasible"
        elif best >= min(self.floor + FLICKER, 1.0) and not self._feasible:
            self._feasible, kind = True, "floor_feasible"
        else:
            return None
        return Notice(kind, TEXTS[kind], {"best": best, "floor": self.floor})

    def compare(self, own_usd: float, baseline_usd: float, baseline: float) -> None:
        """Set the expected cost of holding the floor, and the baseline's expected cost and quality.

        If the learned policy alone costs more than the baseline and the baseline holds the floor,
        the learned policy gains nothing: it is kept to the share it learns from.
        """
        self.baseline = baseline
        self._in_vain = own_usd > baseline_usd and baseline >= self.floor
        self._share()

    def _share(self) -> None:
        aim = self.floor - self._slack
        holds = max(self.baseline, self.floor)  # it is declared to
        if self._in_vain:
            self.share = SHARE_MIN
        elif self.lower_bound >= aim:
            self.share = 1.0
        else:
            self.share = max((holds - aim) / (holds - self.lower_bound), SHARE_MIN)

    @property
    def lower_bound(self) -> float:
        """Lower bound on the learned policy's own quality: the better of two, if there are two."""
        if self._powered is None:
            return self._lower.value
        return max(self._lower.value, self._powered.value)

    def follow(self, value: float, belief: float, credit: float = CREDIT) -> None:
        """Aim by an estimate of the learned policy's quality that is right in the mean only.

        It counts in proportion to the belief in it, as part of a label; it certifies nothing.
        `credit`: the maximum surplus, in labels, that such estimates may add up to.
        """
        self.estimate += belief * (value - self.estimate) / self._horizon
        owed = self.owed + belief * (self.floor + self._margin - value)
        self.owed = min(max(owed, min(self.owed, -credit)), DEBT)

    def predict(self, value: float, least: float) -> None:
        """Count the predicted quality of an answer, which may have no label."""
        self._with_predictions().predict(value, least)

    def rectify(self, value: float, least: float) -> None:
        """Count by how much the label of a predicted answer differs from its prediction."""
        self._with_predictions().rectify(value, least)
        self._share()

    def _with_predictions(self) -> PredictionPowered:
        """Return the bound by predictions and labels; the two bounds share alpha from then on."""
        if self._powered is None:
            self._powered = PredictionPowered(alpha=ALPHA_POWERED * self._alpha)
            self._lower.revise(alpha=(1.0 - ALPHA_POWERED) * self._alpha)
        return self._powered

    @property
    def guarded(self) -> bool:
        """Whether the baseline gets a share of the requests to protect the floor."""
        return self.share < 1.0

    @property
    def target(self) -> float:
        """The mean quality to aim at now."""
        return min(self.floor + self._margin + self.owed / self._horizon, 1.0)

    def prices(self, market: Market) -> Prices:
        """Return the highest shadow prices at which the expected quality is on target."""
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
            **({} if self._powered is None else {"powered": self._powered.save()}),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        self._lower.load(state["lower"])
        if "powered" in state:
            self._with_predictions().load(state["powered"])
        self._failing.load(state["failing"])
        self.owed, self.estimate = float(state["owed"]), float(state["estimate"])
        self.baseline = float(state["baseline"])
        self._released, self._feasible, self._in_vain = map(bool, state["told"])
        self._share()
