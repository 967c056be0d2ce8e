"""The handwritten digits: one half to train on, the other half as traffic.

scikit-learn's bundled copy of the UCI "Optical Recognition of Handwritten Digits" test set: 1,797
images of 8 x 8 pixels, each pixel 0 (paper) to 16 (ink).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

CLASSES = 10
PIXELS = 64


@dataclass(frozen=True, slots=True)
class Half:
    """Images [n, 64] in 0..16, their true labels [n]."""

    images: Images
    labels: Labels


def halves(seed: int = 0) -> tuple[Half, Half]:
    """Return (898 to train on, 899 held out), stratified by digit; always the same for a seed."""
    # Imported here: it takes seconds, and most importers of this module need only its types.
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    images, labels = load_digits(return_X_y=True)
    split = train_test_split(
        images.astype(np.float32),
        labels.astype(np.int64),
        test_size=0.5,
        stratify=labels,
        random_state=seed,
    )
    return Half(split[0], split[2]), Half(split[1], split[3])


def traffic(held_out: Half, requests: int, seed: int = 0) -> Iterator[tuple[Images, int]]:
    """Yield (image [1, 64], true label), `requests` of them.

    The held-out half is gone through once, then again in a new order, until there are enough: with
    more than 899 requests an image comes back, so a learner meets it again.
    """
    rng = np.random.default_rng(seed)
    sent = 0
    while sent < requests:
        for index in rng.permutation(len(held_out.labels))[: requests - sent]:
            yield held_out.images[index : index + 1], int(held_out.labels[index])
            sent += 1
