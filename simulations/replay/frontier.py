"""The cost-quality frontier of a log: what each further point of accuracy costs.

Theory of operation. Four lines, each estimated from the log with intervals (see estimators.py):
every arm alone; mixes of arms, that is the hull, the bar for any router; the learned router, the
rule argmax q - price x c with q as known before each decision; and hindsight, the same rule
with q fitted to the other half of the whole log, which no router had at the time. With this model
and these features a router cannot do better than hindsight; a log does not show what other features
could achieve.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tollway.simulations.replay import outcome_model
from tollway.simulations.replay.estimators import Estimate
from tollway.simulations.replay.logs import BadLog, Floats, Log
from tollway.simulations.replay.replay import Outcome, Replay, fixed

PRICES = 8  # shadow prices at which the learned router is evaluated, besides 0


@dataclass(frozen=True, slots=True)
class Point:
    """A point of one line: `kind` is `arm`, `mix`, `learned`, `hindsight`, `logged` or `asked`.

    `usd_per_point` is the cost of one more point of accuracy per 1,000 requests, from the previous
    point on the line's own hull; None for its first point, and for points below that hull.
    """

    kind: str
    outcome: Outcome
    usd_per_point: float | None = None

    @property
    def place(self) -> tuple[float, float] | None:
        """Cost per request in dollars, and quality; None if the log could not support either."""
        cost, quality = self.outcome.cost_usd, self.outcome.quality
        if isinstance(cost, Estimate) and isinstance(quality, Estimate):
            return cost.value, quality.value
        return None


def frontier(replay: Replay, asked: Sequence[Outcome] = ()) -> list[Point]:
    """Return the points of all lines, each line sorted by cost; BadLog if nothing has a cost."""
    log = replay.log
    if not log.priced:
        raise BadLog("a frontier needs costs; name their column with --cost")
    arms = [Point("arm", replay.ask(target)) for target in fixed(log)]
    on_hull = hull([point for point in arms if point.place])
    off_hull = [point for point in arms if point not in on_hull]
    names = [point.outcome.label.removeprefix("fixed:arm=") for point in on_hull]
    return [
        Point("logged", replay.logged()),
        *priced(on_hull),
        *off_hull,
        *_mixes(replay, names),
        *_line(replay, "learned", replay.qualities),
        *_line(replay, "hindsight", _hindsight(log)),
        *(Point("asked", outcome) for outcome in asked),
    ]


def hull(points: Sequence[Point]) -> list[Point]:
    """Return the points that no mix of others beats at their cost, sorted by cost."""
    corners: list[Point] = []
    for point in sorted(points, key=_place):
        cost, quality = _place(point)
        if corners and quality <= _place(corners[-1])[1]:
            continue
        while len(corners) > 1 and not _above(
            _place(corners[-2]), _place(corners[-1]), (cost, quality)
        ):
            corners.pop()
        corners.append(point)
    return corners


def _above(
    first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]
) -> bool:
    """Whether the middle lies above the line from first to last."""
    rise = (middle[1] - first[1]) * (last[0] - first[0])
    return rise > (last[1] - first[1]) * (middle[0] - first[0])


def _place(point: Point) -> tuple[float, float]:
    assert point.place is not None
    return point.place


def priced(on_hull: Sequence[Point]) -> list[Point]:
    """Return the points of a hull, each with its marginal cost over the previous one."""
    points = list(on_hull[:1])
    for before, point in pairwise(on_hull):
        cost, quality = (new - old for new, old in zip(_place(point), _place(before), strict=True))
        points.append(replace(point, usd_per_point=cost * 1000.0 / (quality * 100.0)))
    return points


def _mixes(replay: Replay, names: Sequence[str]) -> Iterator[Point]:
    """Yield even mixes of neighbours on the hull: it is straight between them."""
    log = replay.log
    for one, other in pairwise(names):
        shares = np.array([0.5 * (arm in {one, other}) for arm in log.arms]) * log.offered
        lost = shares.sum(axis=1) == 0.0
        shares[lost] = log.offered[lost]
        shares /= shares.sum(axis=1, keepdims=True)
        yield Point("mix", replay.outcome(f"half {one}, half {other}", shares))


def _line(replay: Replay, kind: str, qualities: Floats) -> list[Point]:
    """Return a rule's points by cost, from shadow price 0 to one where the cheapest arm wins."""
    by_choice: dict[bytes, Point] = {}
    for price in [0.0, *_prices(qualities, replay.costs)]:
        taken = choices(replay.log, qualities, replay.costs, price)
        if taken.tobytes() not in by_choice:
            label = f"{kind}, ${10.0 / price:.3g} per point" if price else f"{kind}, any cost"
            by_choice[taken.tobytes()] = Point(kind, replay.outcome(label, taken))
    points = list(by_choice.values())
    best = {p.outcome.label: p for p in priced(hull([p for p in points if p.place]))}
    points = [best.get(point.outcome.label, point) for point in points]
    return sorted(points, key=lambda point: point.place or (np.inf, 0.0))


def _prices(qualities: Floats, costs: Floats) -> list[float]:
    """Return shadow prices, in quality per dollar, over the range where choices change."""
    gain = np.ptp(qualities, axis=1)
    extra = np.ptp(costs, axis=1)
    ratio = gain[extra > 0.0] / extra[extra > 0.0]
    ratio = ratio[ratio > 0.0]
    if not len(ratio):
        return []
    low, high = np.quantile(ratio, [0.02, 0.98])
    return [float(price) for price in np.geomspace(low / 30.0, high * 3.0, PRICES)]


def choices(log: Log, qualities: Floats, costs: Floats, price: float) -> Floats:
    """Return the rule's probabilities (n x K): 1 for the arm of most quality - price x cost."""
    worth = np.where(log.offered, qualities - price * costs, -np.inf)
    # The cheapest arm wins a tie, also at price 0.
    worth -= 1e-9 * costs / max(float(costs.max()), 1e-300)
    taken: Floats = np.zeros_like(qualities)
    taken[np.arange(len(log)), worth.argmax(axis=1)] = 1.0
    return taken


def _hindsight(log: Log) -> Floats:
    """Return the qualities of each half of the log, as fitted to the other half."""
    odd: NDArray[np.bool_] = np.arange(len(log)) % 2 == 1
    scores = np.empty((len(log), len(log.arms)))
    for half in (odd, ~odd):
        scores[half] = outcome_model.fitted(log, ~half)[half]
    return scores
