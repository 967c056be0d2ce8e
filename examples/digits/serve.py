"""Serves one of the digits models over HTTP, speaking Open Inference Protocol v2.

    python -m examples.digits.serve --model cpu --port 9002
    curl localhost:9002/v2/models/digits-cpu

Each reply carries x-device-seconds, the measured device time of the inference. GET /stats returns
the sums. After SIGUSR1, GET /v2/health/ready says that the server is not ready: it is about to end.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a model: before numpy is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import signal
import socket
from pathlib import Path

import uvicorn

from . import train
from .app import App

ALIAS = "digits"


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.digits.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        choices=train.MODELS,
        required=True,
        help="rules: a hand-written scorecard; cpu: a small network in ONNX Runtime; "
        "large: a convolutional network on a GPU, else an ensemble",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one")
    parser.add_argument(
        "--dir", type=Path, default=train.FOLDER, help="where trained models are (%(default)s)"
    )
    parser.add_argument("--large", choices=("auto", "conv", "ensemble"), default="auto")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--delay-ms", type=float, default=0, help="wait before each inference")
    parser.add_argument("--fail-every", type=int, default=0, help="answer each n-th with a 500")
    return parser.parse_args(arguments)


def main() -> None:
    """Load the model, listen, and print the address."""
    chosen = options()
    model = train.get(chosen.model, chosen.dir, large=chosen.large, device=chosen.device)
    app = App(
        model,
        aliases=(ALIAS,),
        delay_s=chosen.delay_ms / 1000,
        fail_every=chosen.fail_every,
    )
    signal.signal(signal.SIGUSR1, lambda *_: setattr(app, "is_draining", True))
    listener = socket.create_server((chosen.host, chosen.port), backlog=1024)
    host, port = listener.getsockname()[:2]
    print(f"{model.name} on {model.device}", flush=True)
    print(f"listening on http://{host}:{port}", flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
