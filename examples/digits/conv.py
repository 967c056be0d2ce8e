"""The large model on a GPU: a convolutional network in PyTorch, timed with CUDA events.

It runs on a processor too (`--large conv --device cpu`), so that the code can be tried anywhere;
then its seconds are processor seconds. PyTorch is imported here and nowhere else, and only when
this model is asked for.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .data import CLASSES, Half, Images
from .ensemble import shifted
from .model import Reading, Stopwatch

EPOCHS = 30
BATCH = 128


class Conv:
    """A convolutional network on one device."""

    name = "digits-large"
    platform = "pytorch_torch"

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network.to(device).eval()
        self._device = device
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
        self.device = f"{where}, PyTorch {torch.__version__}, convolutional network"
        self.read(np.zeros((1, 64), dtype=np.float32))  # the first call loads the kernels

    def read(self, images: Images) -> Reading:
        """Read images [n, 64]; on a GPU the seconds include the copies there and back."""
        if self._device.type != "cuda":
            with Stopwatch() as watch:
                probabilities = self._probabilities(images)
            return Reading(probabilities, watch.device_s)
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        probabilities = self._probabilities(images)
        ended.record()
        ended.synchronize()
        return Reading(probabilities, started.elapsed_time(ended) / 1000)

    @torch.inference_mode()
    def _probabilities(self, images: Images) -> np.ndarray:
        pixels = torch.from_numpy(images / np.float32(16)).to(self._device).view(-1, 1, 8, 8)
        return np.asarray(self._network(pixels).softmax(dim=1).cpu().numpy(), dtype=np.float32)


def usable_gpu() -> bool:
    """Return whether there is a GPU that CUDA can use."""
    return bool(torch.cuda.is_available())


def device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the GPU where there is one."""
    return torch.device(("cuda" if usable_gpu() else "cpu") if name == "auto" else name)


def train(half: Half, path: Path, where: torch.device, say: Callable[[str], None]) -> Path:
    """Train on the images as they are and shifted by a pixel; write the weights to `path`."""
    torch.manual_seed(0)
    network = _network().to(where).train()
    images = torch.from_numpy(shifted(half.images / np.float32(16))).to(where).view(-1, 1, 8, 8)
    labels = torch.from_numpy(np.tile(half.labels, 5)).to(where)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels), device=where).split(BATCH):
            loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    say(f"large: convolutional network, last loss {loss.item():.4f}")
    torch.save(network.cpu().state_dict(), path)
    return path


def load(path: Path, where: torch.device) -> Conv:
    """Read a network that `train` wrote."""
    network = _network()
    network.load_state_dict(torch.load(path, weights_only=True))
    return Conv(network, where)


def _network() -> nn.Sequential:
    return nn.Sequential(
        *_block(1, 64),
        *_block(64, 64),
        nn.MaxPool2d(2),
        *_block(64, 128),
        *_block(128, 128),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(128 * 4, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, CLASSES),
    )


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
