"""The longest answers of late, by tenant: how many tokens the limit under a hard budget must leave.

Theory of operation. The figure rises at once to an answer that was longer, though at most to twice
what it was, so that one outlier does not make every later hold large; it falls by half a percent
with each answer that was shorter, faster while few were seen. So it stays near the 99 % quantile,
and a limit of twice that is reached by few answers. One that does reach it doubles the figure: a
model that begins to write more is cut off a few times at most.
"""

FIRST = 2048.0  # tokens, before any answer was seen; a limit of twice that suits most models
FALL = 0.005  # by which the figure falls with each answer, in the end
FALL_FIRST = 10  # the n-th answer of a tenant lowers it by 1 / (10 + n)
RISE = 2.0  # a limit of so many times the figure is what an answer can show of a longer one


class Longest:
    """The longest answers of one backend's models on one route."""

    # The mutable state is a figure and a count by tenant. Tenants come from the configuration.

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}

    def of(self, tenant: str) -> float:
        """Return how many tokens nearly all answers of a tenant have at most (0.1 us)."""
        seen = self._seen.get(tenant)
        return FIRST if seen is None else seen[0]

    def see(self, tenant: str, tokens: float, limit: int) -> None:
        """Take the length of an answer, and the limit that it was given; 0 where it had none.

        An answer that could not have been long lowers nothing.
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
        """Take saved figures; ValueError where they are damaged."""
        seen = {str(tenant): (float(one[0]), int(one[1])) for tenant, one in state.items()}
        if not all(0.0 < figure < 1e12 for figure, _ in seen.values()):
            raise ValueError(f"not the lengths of answers: {state}")
        self._seen = seen
