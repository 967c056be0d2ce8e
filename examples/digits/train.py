"""Trains the digits models once, and loads them from then on.

Trained models are stored in a folder under a key of the library versions and of this code, so a
change to either trains them again. Training takes a few seconds on one core.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path

from .data import Half, halves
from .model import Model

FOLDER = Path(".tollway/digits")
MODELS = ("rules", "cpu", "large")
_LIBRARIES = ("numpy", "scikit-learn", "skl2onnx", "onnxruntime", "torch")


def get(
    name: str,
    folder: Path = FOLDER,
    *,
    large: str = "auto",
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Model:
    """Return a model, trained now or before.

    `large` is `conv` (PyTorch), `ensemble` (scikit-learn), or `auto`: conv where PyTorch finds a
    GPU. `device` is where conv runs: `cuda`, `cpu` or `auto`.
    """
    if name == "rules":
        from .rules import Rules  # noqa: PLC0415 - each server imports only its own model's library

        return Rules()
    folder = folder / _key()
    folder.mkdir(parents=True, exist_ok=True)
    half = halves()[0]
    if name == "cpu":
        return _cpu(half, folder, say)
    if large == "auto":
        large = "conv" if _has_gpu() else "ensemble"
    return _conv(half, folder, device, say) if large == "conv" else _ensemble(half, folder, say)


def _cpu(half: Half, folder: Path, say: Callable[[str], None]) -> Model:
    from . import small  # noqa: PLC0415

    served = folder / "small.served"
    if not served.exists():
        _write(served, small.train(half, folder, say).name.encode())
    return small.Small(folder / served.read_text())


def _ensemble(half: Half, folder: Path, say: Callable[[str], None]) -> Model:
    from . import ensemble  # noqa: PLC0415

    return ensemble.load(
        _once(folder / "ensemble.pickle", lambda path: ensemble.train(half, path, say))
    )


def _conv(half: Half, folder: Path, device: str, say: Callable[[str], None]) -> Model:
    from . import conv  # noqa: PLC0415

    where = conv.device(device)
    return conv.load(
        _once(folder / "conv.pt", lambda path: conv.train(half, path, where, say)), where
    )


def _once(path: Path, make: Callable[[Path], object]) -> Path:
    """Make a file unless it exists; an interrupted run leaves no partial file."""
    if not path.exists():
        unfinished = path.with_name(path.name + ".unfinished")
        make(unfinished)
        unfinished.replace(path)
    return path


def _write(path: Path, content: bytes) -> None:
    _once(path, lambda unfinished: unfinished.write_bytes(content))


def _has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    from . import conv  # noqa: PLC0415

    return conv.usable_gpu()


def _key() -> str:
    """Return a short name for the code and the libraries that a trained model depends on."""
    digest = hashlib.sha256()
    for name in ("data", "small", "ensemble", "conv"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    for library in _LIBRARIES:
        if importlib.util.find_spec(library.replace("scikit-learn", "sklearn")):
            digest.update(f"{library} {importlib.metadata.version(library)}".encode())
    return digest.hexdigest()[:12]


def main() -> None:
    """Train all models, and print the accuracy of each on the held-out half."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits.train", description=__doc__)
    parser.add_argument("--dir", type=Path, default=FOLDER, help="where to keep them (%(default)s)")
    parser.add_argument("--large", choices=("auto", "conv", "ensemble"), default="auto")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    options = parser.parse_args()
    held_out = halves()[1]
    for name in MODELS:
        model = get(name, options.dir, large=options.large, device=options.device)
        read = model.read(held_out.images).probabilities
        right = (read.argmax(axis=1) == held_out.labels).mean()
        print(f"{name}: accuracy {right:.4f} on the held-out half, on {model.device}")


if __name__ == "__main__":
    main()
