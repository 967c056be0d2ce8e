"""What is counted of a group's look-ups, for metrics."""

from collections import Counter, deque

MEMORY, WARM, COLD = "memory", "redis", "source"
TIERS = (MEMORY, WARM, COLD)
KEPT = 512  # latest latencies of a tier


class LookupCounts:
    """The counts of one group."""

    # The mutable state: answers by tier, values by mark, what else happened, latest ages and times.
    def __init__(self) -> None:
        self.answers: Counter[str] = Counter(dict.fromkeys(TIERS, 0))
        self.marks: Counter[str] = Counter()
        self.queries = 0
        self.failures = 0
        self.early = 0
        self.invalidated = 0
        self.crowded = 0
        self.stale_age_s = 0.0
        self.seconds: dict[str, deque[float]] = {tier: deque(maxlen=KEPT) for tier in TIERS}

    def served(self, mark: str, age_s: float) -> None:
        """Count a request's values by their mark."""
        self.marks[mark] += 1
        if mark == "stale":
            self.stale_age_s = age_s

    def quantile_s(self, tier: str, share: float) -> float:
        """Return a quantile of the latest answers' latencies of a tier; 0 without any."""
        known = sorted(self.seconds[tier])
        return known[min(len(known) - 1, int(share * len(known)))] if known else 0.0
