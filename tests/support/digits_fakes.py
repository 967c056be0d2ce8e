"""A model that needs no training, and an ASGI application called without a network."""

import json
from dataclasses import dataclass

import numpy as np

from examples.digits.app import App
from examples.digits.data import Images
from examples.digits.model import Reading


class Brightest:
    """Predicts the position of the brightest of the first ten pixels; 2 s a batch."""

    name = "brightest"
    platform = "test"
    device = "nothing"

    def read(self, images: Images) -> Reading:
        weights = images[:, :10] + np.float32(1)
        return Reading(weights / weights.sum(axis=1, keepdims=True), device_s=2.0)


@dataclass
class Got:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


async def call(
    app: App, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> Got:
    sent: list[dict] = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
    }

    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, rest = sent
    head = {k.decode(): v.decode() for k, v in start["headers"]}
    return Got(start["status"], head, rest["body"])


def image(digit: int) -> list[float]:
    """Return the pixels that Brightest reads as a digit."""
    pixels = [0.0] * 64
    pixels[digit] = 16.0
    return pixels


def request(*digits: int, **more: object) -> bytes:
    data = [pixel for digit in digits for pixel in image(digit)]
    tensor = {"name": "image", "shape": [len(digits), 64], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()
