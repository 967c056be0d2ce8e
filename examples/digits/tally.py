"""Counts what happened: accuracy and spend of each way to route, and the hull they must beat."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt

from .client import Answer


@dataclass(frozen=True, slots=True)
class Row:
    """One way to answer the traffic: how many requests, the share right, dollars in all."""

    name: str
    requests: int
    accuracy: float
    spend_usd: float

    @property
    def usd_per_request(self) -> float:
        """Dollars a request."""
        return self.spend_usd / self.requests


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a way to route gains and loses against always asking the most accurate backend."""

    saving: float
    points_lost: float


def accuracy(answers: Sequence[Answer]) -> float:
    """Return the share of right answers; an unanswered request is not right."""
    return sum(answer.right for answer in answers) / len(answers)


def compare(row: Row, best: Row) -> Comparison:
    """Compare with the most accurate backend: share of its cost saved, points of accuracy lost."""
    return Comparison(
        saving=1 - row.usd_per_request / best.usd_per_request,
        points_lost=(best.accuracy - row.accuracy) * 100,
    )


def hull(fixed: Sequence[Row], usd_per_request: float) -> float:
    """Return the best accuracy of any mix of fixed backends at a mean cost a request.

    A mix sends a fixed share of the traffic to each backend, whatever the request: at most two of
    them, by linear programming's basic solutions. ValueError below the cheapest backend.
    """
    affordable = [row.accuracy for row in fixed if row.usd_per_request <= usd_per_request]
    if not affordable:
        raise ValueError(f"no mix of the backends costs as little as ${usd_per_request}")
    mixes = [
        low.accuracy
        + (usd_per_request - low.usd_per_request)
        / (high.usd_per_request - low.usd_per_request)
        * (high.accuracy - low.accuracy)
        for low, high in product(fixed, repeat=2)
        if low.usd_per_request <= usd_per_request < high.usd_per_request
    ]
    return max(affordable + mixes)


def interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share that was seen `count` times."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return middle - half, middle + half


def document(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows as the JSON file holds them."""
    return [
        {
            "name": row.name,
            "requests": row.requests,
            "accuracy": row.accuracy,
            "spend_usd": row.spend_usd,
        }
        for row in rows
    ]
