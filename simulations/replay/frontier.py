"""The cost-quality frontier of a log: what each further point of accuracy costs, and to whom.

Theory of operation. Four lines, each estimated from the log with intervals (see estimators.py):
every arm by itself; their mixes, which is the hull, the bar for any router; the learned router, the
rule argmax q - price x c with q as it was known before each decision; and hindsight, the same rule
with q fitted to the other half of the whole log, which nobody had at the time. A router cannot do
better than hindsight with this model and these features; what could be known of a request by other
features a log does not tell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tollway.simulations.replay import outcome_model
from tollway.simulations.replay.estimators import Estimate
from tollway.simulations.replay.logs import Floats, Log
from tollway.simulations.replay.replay import Outcome, Replay, fixed

PRICES = 8  # of money, at which the learned router is asked, beside 0


@dataclass(frozen=True, slots=True)
class Point:
    """A point of one line: `kind` is `arm`, `mix`, `learned`, `hindsight`, `logged` or `asked`.

    `usd_per_point` is what a point of accuracy more costs, per 1,000 requests, from the point
    before on the line's own hull; None where there is none before, and for points below that hull.
    """

    kind: str
    outcome: Outcome
    usd_per_point: float | None = None

    @property
    def place(self) -> tuple[float, float] | None:
        """Cost per request in dollars and quality; None where the log could not tell."""
        cost, quality = self.outcome.cost_usd, self.outcome.quality
        if isinstance(cost, Estimate) and isinstance(quality, Estimate):
            return cost.value, quality.value
        return None


def frontier(replay: Replay, asked: Sequence[Outcome] = ()) -> list[Point]:
    """Return the points of all lines, each line by cost."""
    log = replay.log
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
    """Return the points that no mix of others beats at their cost, by cost."""
    found: list[Point] = []
    for point in sorted(points, key=_place):
        cost, quality = _place(point)
        if found and quality <= _place(found[-1])[1]:
            continue
        while len(found) > 1 and not _above(_place(found[-2]), _place(found[-1]), (cost, quality)):
            found.pop()
        found.append(point)
    return found


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
    """Return the points of a hull with what each costs beyond the one before."""
    found = list(on_hull[:1])
    for before, point in pairwise(on_hull):
        cost, quality = (new - old for new, old in zip(_place(point), _place(before), strict=True))
        found.append(replace(point, usd_per_point=cost * 1000.0 / (quality * 100.0)))
    return found


def _mixes(replay: Replay, names: Sequence[str]) -> Iterator[Point]:
    """Yield even mixes of neighbours on the hull: between them it is a line."""
    log = replay.log
    for one, other in pairwise(names):
        shares = np.array([0.5 * (arm in {one, other}) for arm in log.arms]) * log.offered
        lost = shares.sum(axis=1) == 0.0
        shares[lost] = log.offered[lost]
        shares /= shares.sum(axis=1, keepdims=True)
        yield Point("mix", replay.outcome(f"half {one}, half {other}", shares))


def _line(replay: Replay, kind: str, qualities: Floats) -> list[Point]:
    """Return a rule's points by cost, from the price of money 0 to one where nothing is bought."""
    found: dict[bytes, Point] = {}
    for price in [0.0, *_prices(qualities, replay.costs)]:
        taken = choices(replay.log, qualities, replay.costs, price)
        if taken.tobytes() not in found:
            label = f"{kind}, ${price and 10.0 / price:.3g} a point" if price else f"{kind}, best"
            found[taken.tobytes()] = Point(kind, replay.outcome(label, taken))
    points = list(found.values())
    best = {p.outcome.label: p for p in priced(hull([p for p in points if p.place]))}
    points = [best.get(point.outcome.label, point) for point in points]
    return sorted(points, key=lambda point: point.place or (np.inf, 0.0))


def _prices(qualities: Floats, costs: Floats) -> list[float]:
    """Return prices of money, in quality per dollar, over the range where choices change."""
    gain = np.ptp(qualities, axis=1)
    extra = np.ptp(costs, axis=1)
    ratio = gain[extra > 0.0] / extra[extra > 0.0]
    ratio = ratio[ratio > 0.0]
    if not len(ratio):
        return []
    low, high = np.quantile(ratio, [0.02, 0.98])
    return [float(price) for price in np.geomspace(low / 30.0, high * 3.0, PRICES)]


def choices(log: Log, qualities: Floats, costs: Floats, price: float) -> Floats:
    """Return the rule's probabilities (n x K): all on the arm with the best quality less price."""
    worth = np.where(log.offered, qualities - price * costs, -np.inf)
    # Of equals the cheapest: at the price 0 as well.
    worth -= 1e-9 * costs / max(float(costs.max()), 1e-300)
    taken: Floats = np.zeros_like(qualities)
    taken[np.arange(len(log)), worth.argmax(axis=1)] = 1.0
    return taken


def _hindsight(log: Log) -> Floats:
    """Return qualities as fitted to the other half of the log, each half's by the other."""
    odd: NDArray[np.bool_] = np.arange(len(log)) % 2 == 1
    found = np.empty((len(log), len(log.arms)))
    for half in (odd, ~odd):
        found[half] = outcome_model.fitted(log, ~half)[half]
    return found
