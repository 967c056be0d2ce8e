"""Measures a model's device-seconds and the cost of an inference, by batch size.

    python -m examples.digits.measure --model large --usd-per-hour 2.50

The same command on a machine with a GPU (and PyTorch) measures the GPU, with CUDA events.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from . import train
from .data import Images, halves
from .model import Model


@dataclass(frozen=True, slots=True)
class Row:
    """Device-seconds of a batch (median and 95th percentile), and dollars for one image in it."""

    batch: int
    device_s: float
    device_s_p95: float
    usd_per_image: float


def measure(
    model: Model, images: Images, batches: list[int], repeats: int, usd_per_hour: float
) -> list[Row]:
    """Read `repeats` batches of each size, after a few that are not counted."""
    rows = []
    for batch in batches:
        some = images[np.arange(batch) % len(images)]
        for _ in range(max(3, repeats // 10)):
            model.read(some)
        seconds = [model.read(some).device_s for _ in range(repeats)]
        median, p95 = (float(np.quantile(seconds, q)) for q in (0.5, 0.95))
        rows.append(Row(batch, median, p95, median / batch * usd_per_hour / 3600))
    return rows


def main() -> None:
    """Print a table, and with --json write it."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.digits.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=train.MODELS, default="large")
    parser.add_argument("--batches", default="1,8,64,512", help="sizes (%(default)s)")
    parser.add_argument("--repeats", type=int, default=200, help="batches of each (%(default)s)")
    parser.add_argument(
        "--usd-per-hour", type=float, required=True, help="cost of the device per hour"
    )
    parser.add_argument("--dir", type=Path, default=train.FOLDER)
    parser.add_argument("--large", choices=("auto", "conv", "ensemble"), default="auto")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    chosen = parser.parse_args()
    model = train.get(chosen.model, chosen.dir, large=chosen.large, device=chosen.device)
    sizes = [int(size) for size in chosen.batches.split(",")]
    rows = measure(model, halves()[1].images, sizes, chosen.repeats, chosen.usd_per_hour)
    print(f"{model.name} on {model.device}, at ${chosen.usd_per_hour}/hour")
    print(f"{'batch':>6} {'device-seconds':>15} {'95 %':>12} {'$ per inference':>16}")
    for row in rows:
        seconds = f"{row.device_s:15.7f} {row.device_s_p95:12.7f}"
        print(f"{row.batch:6d} {seconds} {row.usd_per_image:16.3e}")
    if chosen.json:
        document = {
            "model": model.name,
            "device": model.device,
            "usd_per_hour": chosen.usd_per_hour,
            "rows": [asdict(row) for row in rows],
        }
        chosen.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
