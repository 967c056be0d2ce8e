"""The small model: a tiny neural network, exported to ONNX, on one processor thread.

At export it is also quantised to 8-bit weights; the quicker of the two is served, as long as the
quantised one loses no more than 0.2 points of accuracy on the training half. (For one layer of 24
units that is usually the plain one: there is more to convert than to multiply.)
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from .data import PIXELS, Half, Images
from .model import Reading, Stopwatch

ACCURACY_LOSS_MAX = 0.002


class Small:
    """An ONNX model in ONNX Runtime, on one thread."""

    name = "digits-cpu"
    platform = "onnxruntime_onnx"

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.device = f"one processor thread, ONNX Runtime {onnxruntime.__version__}, {path.name}"

    def read(self, images: Images) -> Reading:
        """Read images [n, 64]."""
        with Stopwatch() as watch:
            (probabilities,) = self._session.run(["probabilities"], {"image": images})
        return Reading(probabilities, watch.device_s)


def train(half: Half, folder: Path, say: Callable[[str], None]) -> Path:
    """Train, export and quantise; return the file to serve. `folder` keeps both, and why.json."""
    network = make_pipeline(
        MinMaxScaler((0, 1)).fit(np.array([[0.0] * PIXELS, [16.0] * PIXELS])),
        MLPClassifier((24,), alpha=0.1, max_iter=1000, random_state=0),
    )
    network[-1].fit(half.images / 16, half.labels)
    plain, quantised = folder / "small.onnx", folder / "small.int8.onnx"
    plain.write_bytes(_export(network))
    _quantise(plain, quantised)
    measured = {path.name: _measure(path, half) for path in (plain, quantised)}
    accuracy, seconds = measured[plain.name]
    accuracy_int8, seconds_int8 = measured[quantised.name]
    helps = seconds_int8 < seconds and accuracy_int8 >= accuracy - ACCURACY_LOSS_MAX
    served = quantised if helps else plain
    why = {
        name: {"train_accuracy": round(accuracy, 4), "us_per_image": round(seconds * 1e6, 1)}
        for name, (accuracy, seconds) in measured.items()
    }
    (folder / "small.json").write_text(json.dumps({"served": served.name, **why}, indent=1))
    say(f"small: {served.name} served; " + ", ".join(f"{k} {v}" for k, v in why.items()))
    return served


def _export(network: object) -> bytes:
    exported = convert_sklearn(
        network,
        initial_types=[("image", FloatTensorType([None, PIXELS]))],
        options={"zipmap": False},
        target_opset=17,
    )
    return bytes(exported.SerializeToString())


def _quantise(plain: Path, quantised: Path) -> None:
    logging.disable(logging.WARNING)  # its advice to pre-process is for convolutions
    try:
        quantize_dynamic(plain, quantised, weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)


def _measure(path: Path, half: Half) -> tuple[float, float]:
    """Return (accuracy on the training half, seconds an image, one at a time)."""
    model = Small(path)
    right = model.read(half.images).probabilities.argmax(axis=1) == half.labels
    started_s = time.perf_counter()
    for index in range(len(half.images)):
        model.read(half.images[index : index + 1])
    return float(right.mean()), (time.perf_counter() - started_s) / len(half.images)
