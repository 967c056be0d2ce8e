"""A lower bound on a mean from many predictions and few labels, valid at all times.

A judge predicts the quality of every answer, and a few answers have a true label. With f the
prediction and y the label,

    mean of y  =  mean of f over all answers  +  mean of (y - f) over the labelled ones

The second term, the rectifier, corrects whatever bias the predictions have (prediction-powered
inference: Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, Science 382, 2023). Each term gets a
lower bound that holds at all times together (`confidence_sequences`) with a part of the error
probability, and their sum is the bound. The better the predictions, the fewer labels are needed;
with bad ones it is lower than the labels' own bound, but never too high. The labelled answers must
be a random sample, as they must be without predictions.
"""

from typing import Any

from tollway.policies.evidence.confidence_sequences import LowerBound

ALPHA_PREDICTED = 0.15  # of the error probability: of predictions there are many
BOLDNESS = 0.8  # of the maximum stake on errors: they are small, but for a few


class PredictionPowered:
    """A lower bound on a mean in [0, 1]."""

    # The mutable state is that of the two bounds.

    def __init__(self, *, alpha: float) -> None:
        """`alpha`: the probability that the bound is ever too high."""
        self._predicted = LowerBound(alpha=ALPHA_PREDICTED * alpha)
        # Its mean is near 0, or the predictions are of no use: half the range is searched, finely.
        self._rectifier = LowerBound(
            low=-0.5, high=0.5, alpha=(1.0 - ALPHA_PREDICTED) * alpha, boldness=BOLDNESS
        )

    def predict(self, value: float, least: float = 0.0) -> None:
        """Count the prediction of an answer, known beforehand to be at least `least`."""
        self._predicted.observe(value, least)

    def rectify(self, value: float, least: float = -1.0) -> None:
        """Count a label less its prediction, known beforehand to be at least `least`."""
        self._rectifier.observe(value, least)

    @property
    def value(self) -> float:
        """The lower bound."""
        return max(self._predicted.value + self._rectifier.value, 0.0)

    def reset(self) -> None:
        """Restart without evidence."""
        self._predicted.reset()
        self._rectifier.reset()

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {"predicted": self._predicted.save(), "rectifier": self._rectifier.save()}

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        self._predicted.load(state["predicted"])
        self._rectifier.load(state["rectifier"])
