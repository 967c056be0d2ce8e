"""Figures of many simulated rollouts: how they ended, how soon, and whom they harmed."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tollway.simulations.rollouts.play import Outcome


@dataclass(frozen=True, slots=True)
class Figures:
    """What many plays of one scenario have in common; times in seconds, None if there are none."""

    scenario: str
    judge: str
    plays: int
    promoted: float
    rolled_back: float
    undecided: float
    rollback_median_s: float | None
    rollback_p95_s: float | None
    promotion_median_s: float | None
    harmed_median: float

    def document(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return asdict(self)


def of(scenario: str, judge: str, outcomes: Sequence[Outcome]) -> Figures:
    """Return the figures of the plays of a scenario."""
    back = sorted(one.seconds for one in outcomes if one.outcome == "rolled_back")
    ahead = [one.seconds for one in outcomes if one.outcome == "promoted"]
    count = len(outcomes)
    return Figures(
        scenario=scenario,
        judge=judge,
        plays=count,
        promoted=len(ahead) / count,
        rolled_back=len(back) / count,
        undecided=1.0 - (len(ahead) + len(back)) / count,
        rollback_median_s=statistics.median(back) if back else None,
        rollback_p95_s=back[min(int(0.95 * len(back)), len(back) - 1)] if back else None,
        promotion_median_s=statistics.median(ahead) if ahead else None,
        harmed_median=statistics.median(one.harmed for one in outcomes),
    )


HEAD = (
    *("SCENARIO", "JUDGE", "PLAYS", "PROMOTED", "ROLLED BACK", "UNDECIDED"),
    *("ROLLBACK", "P95", "PROMOTION", "HARMED"),
)


def row(one: Figures) -> tuple[str, ...]:
    """Return the figures as cells below HEAD."""
    times = (one.rollback_median_s, one.rollback_p95_s, one.promotion_median_s)
    return (
        one.scenario,
        one.judge,
        str(one.plays),
        *(f"{share:.1%}" for share in (one.promoted, one.rolled_back, one.undecided)),
        *("-" if at is None else f"{at:.0f} s" for at in times),
        f"{one.harmed_median:.0f}",
    )
