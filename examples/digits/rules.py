"""The cheapest model: a hand-written scorecard, in rules.toml.

The gateway reads the same file with the same code for a backend of kind `rules`, so the answers are
the same in the gateway and in this server.
"""

from pathlib import Path

import numpy as np

from tollway.backends.rules.file import load

from .data import CLASSES, Images
from .model import Reading, Stopwatch

FILE = Path(__file__).with_name("rules.toml")


class Rules:
    """A scorecard, evaluated in plain Python."""

    name = "digits-rules"
    platform = "tollway_rules"
    device = "one processor thread, plain Python, a scorecard of rows and columns"

    def __init__(self, file: Path = FILE) -> None:
        self._decide = load(file)

    def read(self, images: Images) -> Reading:
        """Read images [n, 64]."""
        with Stopwatch() as watch:
            rulings = [self._decide({"inputs": [{"data": image}]}) for image in images.tolist()]
        probabilities = np.array([ruling.probabilities for ruling in rulings], dtype=np.float32)
        assert probabilities.shape == (len(images), CLASSES), "rules.toml scores every digit"
        return Reading(probabilities, watch.device_s)
