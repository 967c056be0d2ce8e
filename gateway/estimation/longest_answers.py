"""The longest recent answers by tenant: the tokens that a limit under a hard budget must allow.

Theory of operation. The figure rises at once to the length of a longer answer, but at most doubles,
so that one outlier does not make every later reservation large. It falls by half a percent with
each shorter answer, and faster while few answers were seen. It therefore stays near the 99 %
quantile, and few answers reach a limit of twice the figure. An answer that reaches it doubles the
figure: a model that starts to write more is cut off a few times at most.
"""

FIRST = 2048.0  # tokens, before any answer was seen; a limit of twice that suits most models
FALL = 0.005  # final relative decrease of the figure per answer
FALL_FIRST = 10  # a tenant's n-th answer lowers the figure by 1 / (10 + n)
RISE = 2.0  # greatest factor of one rise; an answer is visible only up to a limit of this factor


class Longest:
    """The longest answers of one backend's models on one route."""

    # The mutable state is a figure and a count by tenant. Tenants come from the configuration.

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}

    def of(self, tenant: str) -> float:
        """Return an upper bound on the tokens of nearly all of a tenant's answers (0.1 us)."""
        seen = self._seen.get(tenant)
        return FIRST if seen is None else seen[0]

    def see(self, tenant: str, tokens: float, limit: int) -> None:
        """Learn an answer's length and its limit; a limit of 0 means none.

        An answer whose limit is below the figure does not lower the figure.
        """
        figure, count = self._seen.get(tenant, (FIRST, 0))
        if tokens > figure:
            figure = min(tokens, RISE * figure)
        elif not 0 < limit < figure:
            figure = max(tokens, figure * (1.0 - max(FALL, 1.0 / (FALL_FIRST + count))))
        self._seen[tenant] = figure, count + 1

    def save(self) -> dict[str, list[float]]:
        """Return the figures."""
        return {tenant: [figure, count] for tenant, (figure, count) in self._seen.items()}

    def load(self, state: dict[str, list[float]]) -> None:
        """Load saved figures. Raises ValueError if they are damaged."""
        seen = {str(tenant): (float(one[0]), int(one[1])) for tenant, one in state.items()}
        if not all(0.0 < figure < 1e12 for figure, _ in seen.values()):
            raise ValueError(f"the saved answer lengths are damaged: {state}")
        self._seen = seen
