"""The large model where there is no GPU: three support vector machines that vote.

They are trained on every image of the training half as it is and shifted by one pixel in each of
four directions. Their summed decision values, sharpened by a temperature that is fitted on images
none of them saw, give the probabilities.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from .data import Half, Images
from .model import Reading, Stopwatch, softmax


class Ensemble:
    """Support vector machines, one processor thread."""

    name = "digits-large"
    platform = "sklearn_ensemble"

    def __init__(self, members: list[SVC], sharpness: float) -> None:
        self._members = members
        self._sharpness = sharpness
        vectors = sum(len(member.support_) for member in members)
        self.device = (
            f"one processor thread, scikit-learn {sklearn.__version__}, "
            f"{len(members)} support vector machines, {vectors} support vectors"
        )

    def read(self, images: Images) -> Reading:
        """Read images [n, 64]."""
        with Stopwatch() as watch:
            probabilities = softmax(
                self._sharpness * _votes(self._members, images / np.float32(16))
            )
        return Reading(probabilities, watch.device_s)


def train(half: Half, path: Path, say: Callable[[str], None]) -> Path:
    """Train the ensemble and write it to `path`."""
    images = half.images / np.float32(16)
    fit, held, fit_labels, held_labels = train_test_split(
        images, half.labels, test_size=1 / 3, stratify=half.labels, random_state=0
    )
    sharpness = _sharpness(_votes(_fit(fit, fit_labels), held), held_labels)
    say(f"large: support vector machines, sharpness {sharpness:.1f}")
    path.write_bytes(pickle.dumps((_fit(images, half.labels), sharpness)))
    return path


def load(path: Path) -> Ensemble:
    """Read an ensemble that `train` wrote (a pickle: only ever of one's own making)."""
    return Ensemble(*pickle.loads(path.read_bytes()))


def shifted(images: Images) -> Images:
    """Return images [n, 64] as they are and moved by a pixel each way: [5 n, 64]."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    moves = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.concatenate(
        [padded[:, y : y + 8, x : x + 8].reshape(len(images), 64) for y, x in moves]
    )


def _fit(images: Images, labels: NDArray[np.int64]) -> list[SVC]:
    more, their_labels = shifted(images), np.tile(labels, 5)
    members = [
        SVC(C=10, gamma=0.6),
        SVC(C=10, gamma=0.3),
        SVC(C=1, kernel="poly", degree=3, gamma=0.3, coef0=1),
    ]
    return [member.fit(more, their_labels) for member in members]


def _votes(members: list[SVC], images: Images) -> NDArray[np.float64]:
    return np.asarray(sum(member.decision_function(images) for member in members))


def _sharpness(votes: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the factor under which the true labels are the likeliest."""
    rows = np.arange(len(labels))
    factors = np.geomspace(0.1, 10, 60)
    losses = [-np.log(softmax(f * votes)[rows, labels] + 1e-12).mean() for f in factors]
    return float(factors[int(np.argmin(losses))])
