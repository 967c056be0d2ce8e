"""The interface of every model here: read images, and report how long the device was busy."""

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .data import Images

Probabilities = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reading:
    """Probabilities [n, 10] of each digit, and the seconds that the device was busy."""

    probabilities: Probabilities
    device_s: float


class Model(Protocol):
    """A model of handwritten digits; `device` says in words what it runs on."""

    name: str
    platform: str
    device: str

    def read(self, images: Images) -> Reading:
        """Read images [n, 64] with pixels in 0..16."""


class Stopwatch:
    """Measures the processor seconds of the thread that runs the model.

    Processor time, not wall time: a busy machine must not make an inference look more expensive.
    """

    def __enter__(self) -> "Stopwatch":
        self._started_s = time.thread_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self.device_s = time.thread_time() - self._started_s


def softmax(scores: NDArray[np.floating]) -> Probabilities:
    """Turn scores [n, classes] into probabilities that add up to 1 in each row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)
