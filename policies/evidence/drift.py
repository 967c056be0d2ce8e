"""Detects when an arm has become worse or better than it was learned to be.

This is Page's cumulative sum (1954) over an arm's surprises (label less expectation), in both
directions: it grows by the part of a surprise beyond the slack, and never falls below 0. Above a
threshold, which is higher the noisier the arm is and the larger its surprises are, the arm has
changed. From then on the mean of its recent surprises is added to its expected quality, until the
regressor has learned the new state. Before that nothing is added: in quiet times the recent mean is
only noise. An arm that became worse stays suspect, and is tried now and then, until it is seen to
have become better.

A regressor that errs a little on some contexts has surprises that are not independent noise of mean
0: they are off for hundreds of labels, whenever the mix of requests differs. Over a long stream
this would alarm again and again. So surprises are taken relative to their own long-run mean, and
each alarm raises the threshold of the next ones, for some twenty thousand labels.
"""

from dataclasses import dataclass

SLACK = 0.1  # quality: smaller changes are left to the regressor's own forgetting
RARITY = 10.0  # its exponential is the order of labels between two false alarms
JUMP = 0.2  # of the squared size of large surprises: see `_threshold`
LABELS_MIN = 6  # a few surprises in a row are no alarm either
NOISE_RATE = 0.01  # of the surprises' moments
RATE = 0.04  # of the recent mean: about the last 25 labels
USUAL_RATE = 0.001  # of the long-run mean of the surprises: about the last 1,000 labels
WARY = 1.4  # factor on the threshold after each alarm ...
WARY_MAX = 4.0  # ... and its limit
CALM_RATE = 5e-5  # of the factor's return to 1: some twenty thousand labels
QUIET = 0.03  # a recent mean below which the regressor is taken to have caught up


@dataclass(frozen=True, slots=True)
class Change:
    """An arm's quality has changed by `amount` (negative: for the worse).

    since: how many of its labels ago the change began, as estimated from the sums.
    """

    arm: str
    amount: float
    since: int


class Drift:
    """Detects drift of one arm."""

    # The mutable state: the two sums with their lengths, the recent and the long-run mean, whether
    # the recent one counts, and how wary earlier alarms have made it.

    __slots__ = (
        "_down",
        "_down_for",
        "_fourth",
        "_noise",
        "_recent",
        "_up",
        "_up_for",
        "_usual",
        "_wary",
        "active",
        "fallen",
    )

    def __init__(self) -> None:
        self._down = self._up = self._recent = 0.0
        self._down_for = self._up_for = 0
        self._usual, self._wary = 0.0, 1.0
        self._noise = 0.1  # the variance of right and wrong is between 0 and 0.25
        self._fourth = 0.1  # ... and so is their fourth moment: surprises of about 1
        self.active = False
        self.fallen = False  # for the worse, and not yet for the better again

    @property
    def bias(self) -> float:
        """The correction to add to the arm's expected quality."""
        return self._recent if self.active else 0.0

    def observe(self, arm: str, surprise: float) -> Change | None:
        """Count a surprise, measured without the bias; return a change if one is detected."""
        expected = self.bias
        self._recent += RATE * (surprise - self._recent)
        if self.active and abs(self._recent) <= QUIET:
            self.active = False
        surprise -= expected + self._usual
        self._usual += USUAL_RATE * surprise
        self._wary += CALM_RATE * (1.0 - self._wary)
        threshold = self._wary * self._threshold()
        square = surprise * surprise
        self._noise += NOISE_RATE * (square - self._noise)
        self._fourth += NOISE_RATE * (square * square - self._fourth)
        self._down = max(0.0, self._down - surprise - SLACK)
        self._up = max(0.0, self._up + surprise - SLACK)
        self._down_for = self._down_for + 1 if self._down else 0
        self._up_for = self._up_for + 1 if self._up else 0
        if max(self._down, self._up) < threshold:
            return None
        down = self._down >= self._up
        if (self._down_for if down else self._up_for) < LABELS_MIN:
            return None
        since = self._down_for if down else self._up_for
        # The sum shows the size of the change before the recent mean has followed it; 10 more
        # labels without surprise stand for the runs of bad luck that alarms are made of.
        size = ((self._down if down else self._up) + SLACK * since) / (since + 10)
        self._recent = expected + (-size if down else size)
        self._down = self._up = 0.0
        self._down_for = self._up_for = 0
        self.active = True
        self.fallen = down
        self._wary = min(self._wary * WARY, WARY_MAX)
        return Change(arm, -size if down else size, since)

    def _threshold(self) -> float:
        """Return the sum above which to alarm.

        It follows the variance, as for normal noise, but one or two large surprises must not alarm.
        An arm that is nearly always right has a small variance, and surprises of 1: the ratio of
        the fourth moment to the second is the squared size of the surprises that matter.
        """
        large = JUMP * self._fourth / max(self._noise, 1e-9)
        return max(self._noise, large) / (2.0 * SLACK) * RARITY

    def save(self) -> list[float]:
        """Return the state."""
        lengths = [
            float(self._down_for),
            float(self._up_for),
            float(self.active),
            float(self.fallen),
        ]
        moments = [self._noise, self._fourth, self._usual, self._wary]
        return [self._down, self._up, self._recent, *lengths, *moments]

    def load(self, state: list[float]) -> None:
        """Load a saved state."""
        self._down, self._up, self._recent = map(float, state[:3])
        self._down_for, self._up_for, self.active = int(state[3]), int(state[4]), bool(state[5])
        self.fallen, self._noise, self._fourth = bool(state[6]), float(state[7]), float(state[8])
        # Snapshots that predate the long-run mean have neither.
        self._usual, self._wary = map(float, state[9:11] or (0.0, 1.0))
