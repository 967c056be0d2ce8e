"""Importance weights of labels: a label that was unlikely to be requested counts for more answers.

A label's weight is 1 / probability, relative to the recent mean of 1 / probability over the same
source's labels on the route. The mean weight is therefore 1 for each source separately, and the
probabilities that one source reports never change the weight of another source's labels.
"""

WEIGHT_MAX = 4.0  # largest weight of a label that was unlikely to be requested
WEIGHT_RATE = 0.05  # learning rate of the mean: about the last twenty labels


class Weights:
    """Converts probabilities into weights."""

    # The mutable state is the recent mean of 1 / probability by route and source. Sources are the
    # tenants of the configuration, the admin key and the audits.

    def __init__(self) -> None:
        self._odds: dict[tuple[str, str], float] = {}

    def weigh(self, route: str, by: str, probability: float) -> float:
        """Count a label and return its weight, from above 0 to WEIGHT_MAX."""
        odds = 1.0 / probability
        mean = self._odds.get((route, by), odds)
        self._odds[route, by] = mean + WEIGHT_RATE * (odds - mean)
        return min(odds / mean, WEIGHT_MAX)
