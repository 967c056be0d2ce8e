"""Combines partial labels into whole ones: bets on a mean are made with whole answers only.

A partly trusted label may not be weighted by its trust: a loss of less weight would be a gain to a
bound on losses, and a part that depends on the label would make the bet unfair. So the parts are
added up, and each time they reach a whole, the current label is counted, in full.
"""


class Whole:
    """Decides which labels count in full."""

    # The mutable state is the sum of the parts that are not a whole yet.

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = 0.0

    def add(self, part: float) -> bool:
        """Add a label's part in (0, 1]; return whether this label counts."""
        self._parts += part
        if self._parts < 1.0:
            return False
        self._parts -= 1.0
        return True
