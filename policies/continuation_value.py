"""What it is worth, in a cascade, that an arm's reply may still be passed over for a better one.

After each reply the policy weighs accepting it against asking on. By how much that raises quality
in the mean, and what it costs in the mean, depends on the price of money, and belongs to the arm
that was asked first: without it a cheap arm would be judged by its own answers alone. So the recent
replies of each arm are kept as the policy saw them, and weighed anew at any price.
"""

from collections.abc import Callable, Mapping, Sequence

from tollway.policies.pacing.multiplier import Arms, Matrix
from tollway.policies.recent_contexts import RecentContexts
from tollway.policies.regressors.types import Table
from tollway.policies.types import ACCEPT, Context

KNOWN = 30  # replies of an arm from which on what follows them is known
ROWS = 400  # replies kept of each arm
HOPE = 0.5  # of a dear arm's cost: what it is hoped to take on top of an arm not yet known


class ContinuationValue:
    """The recent replies of each arm, and the arms that could be asked after them."""

    # The mutable state is a window of offers by name of the arm in hand, and the arms' mean costs.

    def __init__(self, table: Callable[[int], Table]) -> None:
        """`table` makes a table of so many contexts."""
        self._table = table
        self.windows: dict[str, RecentContexts] = {}

    def observe(
        self,
        context: Context,
        arms: Sequence[str],
        qualities: Sequence[float],
        costs_usd: Sequence[float],
    ) -> None:
        """Count a reply and what could be done with it: ACCEPT it, or ask one of the others."""
        window = self.windows.get(context.held)
        if window is None:
            window = self.windows[context.held] = RecentContexts(ROWS, self._table(ROWS))
        window.add(context, arms, qualities, costs_usd)

    def known(self, arm: str) -> bool:
        """Whether what follows a reply of `arm` is known."""
        return arm in self.windows and len(self.windows[arm]) >= KNOWN

    def after(self, price: float) -> dict[str, tuple[float, float]]:
        """Return by arm (gain in quality, cost in dollars) of what follows its replies."""
        after: dict[str, tuple[float, float]] = {}
        # An arm is followed by dearer ones only, so these are weighed first.
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
        """Take over that an arm's price has become `ratio` times what it was."""
        for window in self.windows.values():
            window.reprice(arm, ratio)


def extended(
    window: RecentContexts, after: Mapping[str, tuple[float, float]]
) -> tuple[Matrix, Matrix]:
    """Return a window's (qualities, costs) with what follows each arm's reply added to them."""
    qualities, costs = window.tables()
    gains = [after.get(arm, (0.0, 0.0)) for arm in window.arms]
    return qualities + [gain for gain, _ in gains], costs + [cost for _, cost in gains]
