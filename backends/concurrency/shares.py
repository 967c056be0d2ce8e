"""Shares: how many of a limited number of places one party may have.

A party may have at most SHARE times as many places as are free (a dynamic threshold: Choudhury,
Hahne 1998). So one alone gets 8/9 of the places, two that take all they can get 8/17 each, and some
are always free for the next one.
"""

SHARE = 8


class Shares:
    """The places that each party has."""

    # The mutable state is those numbers.
    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def take(self, party: str, free: int) -> bool:
        """Take a place, and return True; False if the party has its share of the `free` ones."""
        own = self._taken.get(party, 0)
        if own > SHARE * free:
            return False
        self._taken[party] = own + 1
        return True

    def leave(self, party: str) -> None:
        """Return a place that was taken."""
        own = self._taken[party] - 1
        if own:
            self._taken[party] = own
        else:
            del self._taken[party]
