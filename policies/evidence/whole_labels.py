"""Makes whole labels of parts: bets on a mean are made with whole answers only.

A label that is believed in part may not be weighed by that: a loss of less weight is a gain to a
bound on losses, and a part that depends on the label would make the bet unfair. So every label
brings its part, and each time the parts make a whole one label is counted, and counted in full.
"""


class Whole:
    """Says which labels count in full."""

    # The mutable state is the parts that do not make a whole yet.

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = 0.0

    def add(self, part: float) -> bool:
        """Take a label's part in (0, 1]; say whether this label counts."""
        self._parts += part
        if self._parts < 1.0:
            return False
        self._parts -= 1.0
        return True
