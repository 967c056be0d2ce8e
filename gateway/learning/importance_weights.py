"""For how many answers a label stands: one that was unlikely to be asked for stands for more.

The weight of a label is 1 / probability relative to the mean of that among the same teller's labels
on the route lately, so weights are 1 in the mean for each teller by itself: what one of them claims
of its probabilities never changes the weight of another's labels.
"""

WEIGHT_MAX = 4.0  # a label that was unlikely to be asked for counts for at most so many
WEIGHT_RATE = 0.05  # of the mean that weights are relative to: about the last twenty labels


class Weights:
    """Turns probabilities into weights."""

    # The mutable state is, by route and teller, the mean of 1 / probability of the labels lately.
    # Tellers are the tenants of the configuration, the admin key and the audits.

    def __init__(self) -> None:
        self._odds: dict[tuple[str, str], float] = {}

    def weigh(self, route: str, by: str, probability: float) -> float:
        """Count a label and return its weight, from above 0 to WEIGHT_MAX."""
        odds = 1.0 / probability
        mean = self._odds.get((route, by), odds)
        self._odds[route, by] = mean + WEIGHT_RATE * (odds - mean)
        return min(odds / mean, WEIGHT_MAX)
