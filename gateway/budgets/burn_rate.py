"""Burn rates: how fast budgets are spent, and how long they last at that rate."""

import math

from tollway.gateway.budgets.model import BudgetStatus

SAMPLES = 360  # kept of each budget: a period of an hour has one every 10 s


class SpendRates:
    """Measures how fast each budget is spent, from its status at earlier times."""

    # The mutable state is what each budget had spent at earlier times of its current window.

    def __init__(self, period_s: float, least_s: float = 0.0) -> None:
        """Measure over the last `period_s` (0: since the previous measurement), and not over less
        than `least_s`.
        """
        self._period_s = period_s
        self._least_s = least_s
        self._spent: dict[str, tuple[int, list[tuple[float, int]]]] = {}

    def nano_per_s(self, status: BudgetStatus, now_s: float) -> float | None:
        """Record what a budget has spent, and return nano-dollars per second; None if its window
        has not been observed for long enough.
        """
        name, start_s = status.budget.name, status.window_start_s
        if self._spent.get(name, (None,))[0] != start_s:
            self._spent[name] = (start_s, [])
        samples = self._spent[name][1]
        while len(samples) > 1 and samples[1][0] <= now_s - self._period_s:
            samples.pop(0)
        rate = None
        if samples:
            then_s, before_nano = samples[0]
            if now_s > then_s and now_s - then_s >= self._least_s:
                rate = max(0, status.spent_nano - before_nano) / (now_s - then_s)
        if not samples or now_s - samples[-1][0] >= self._period_s / SAMPLES:
            samples.append((now_s, status.spent_nano))
        return rate


def mean_nano_per_s(status: BudgetStatus, now_s: float) -> float:
    """Return the mean spending rate since the window's start; 0 for a lifetime budget."""
    if not status.window_start_s:
        return 0.0
    return status.spent_nano / max(1.0, now_s - status.window_start_s)


def lasts_s(status: BudgetStatus, nano_per_s: float) -> float:
    """Return after how many seconds a budget is used up at a rate; infinite at a rate of 0."""
    if not nano_per_s:
        return math.inf
    return max(0, status.limit_nano - status.used_nano) / nano_per_s


def burn_rate(status: BudgetStatus, nano_per_s: float) -> float | None:
    """Return a rate as a multiple of the rate that spends exactly the limit in the whole window.

    None for a lifetime budget and for a limit of 0. The recording rules of Prometheus,
    `tollway:budget_burn:ratio_*`, compute the same.
    """
    if status.resets_at_s is None or not status.limit_nano:
        return None
    return nano_per_s * (status.resets_at_s - status.window_start_s) / status.limit_nano
