"""Computes the continuation value of an arm in a cascade: the value of asking another arm later.

After each reply the policy weighs accepting it against asking another arm. The mean gain in quality
and the mean cost of asking on depend on the shadow price. Both are credited to the arm that was
asked first: otherwise a cheap arm would be judged by its own answers alone. So the recent replies
of each arm are stored as the policy saw them, and can be evaluated at any price.
"""

from collections.abc import Callable, Mapping, Sequence

from tollway.policies.pacing.multiplier import Arms, Matrix
from tollway.policies.recent_contexts import RecentContexts
from tollway.policies.regressors.types import Table
from tollway.policies.types import ACCEPT, Context

KNOWN = 30  # replies of an arm after which its continuation value is known
ROWS = 400  # replies stored per arm
HOPE = 0.5  # assumed share of an expensive arm's cost that follows an arm not yet known


class ContinuationValue:
    """The recent replies of each arm, and the arms that could be asked after them."""

    # The mutable state is a window of offers by name of the arm that replied, and the arms' mean
    # costs.

    def __init__(self, table: Callable[[int], Table]) -> None:
        """`table` creates a table for the given number of contexts."""
        self._table = table
        self.windows: dict[str, RecentContexts] = {}

    def observe(
        self,
        context: Context,
        arms: Sequence[str],
        qualities: Sequence[float],
        costs_usd: Sequence[float],
    ) -> None:
        """Count a reply and the choices it left: ACCEPT it, or ask one of the other arms."""
        window = self.windows.get(context.held)
        if window is None:
            window = self.windows[context.held] = RecentContexts(ROWS, self._table(ROWS))
        window.add(context, arms, qualities, costs_usd)

    def known(self, arm: str) -> bool:
        """Whether the continuation value of `arm` is known."""
        return arm in self.windows and len(self.windows[arm]) >= KNOWN

    def after(self, price: float) -> dict[str, tuple[float, float]]:
        """Return (gain in quality, cost in dollars) of the choices after a reply, by arm."""
        after: dict[str, tuple[float, float]] = {}
        # Only more expensive arms follow an arm, so the most expensive are evaluated first.
        for held in sorted(self.windows, key=self._fewest):
            window = self.windows[held]
            if len(window) < KNOWN:
                continue
            quality, cost = Arms(*extended(window, after)).both(price)
            accepted = float(window.tables()[0][:, window.arms.index(ACCEPT)].mean())
            after[held] = (quality - accepted, cost)
        return after

    def _fewest(self, held: str) -> int:
        return len(self.windows[held].arms)

    def reprice(self, arm: str, ratio: float) -> None:
        """Scale an arm's costs by `ratio` after a price change."""
        for window in self.windows.values():
            window.reprice(arm, ratio)


def extended(
    window: RecentContexts, after: Mapping[str, tuple[float, float]]
) -> tuple[Matrix, Matrix]:
    """Return a window's (qualities, costs) with each arm's continuation value added."""
    qualities, costs = window.tables()
    gains = [after.get(arm, (0.0, 0.0)) for arm in window.arms]
    return qualities + [gain for gain, _ in gains], costs + [cost for _, cost in gains]
