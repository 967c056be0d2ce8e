"""An Open Inference Protocol client that sends many requests at a time, and the true labels.

Nothing here knows how the gateway works: the same code asks a model server directly.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from .data import Images
from .http1 import Http


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's outcome: status, and if answered, the backend and whether it was right.

    `cost_usd` is from the reply's header, 0 if a server was called directly.
    """

    status: int
    right: bool = False
    backend: str = ""
    decision: str = ""
    cost_usd: float = 0.0


class Client:
    """Sends requests to one base address over keep-alive connections."""

    def __init__(self, http: Http, key: str | None = None) -> None:
        self._http = http
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}

    async def ask(self, model: str, image: Images, label: int) -> Answer:
        """Ask a model for one image [1, 64] whose true label is known here."""
        tensor = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": image[0].tolist()}
        reply = await self._http.post(
            f"/v2/models/{model}/infer", {"inputs": [tensor]}, self._headers
        )
        if reply.status != 200:
            return Answer(reply.status)
        outputs = {output["name"]: output["data"] for output in reply.json()["outputs"]}
        return Answer(
            status=200,
            right=outputs["label"][0] == label,
            backend=reply.headers.get("x-tollway-backend", ""),
            decision=reply.headers.get("x-tollway-decision", ""),
            cost_usd=float(reply.headers.get("x-tollway-cost-usd", 0)),
        )

    async def tell(self, decision: str, label: int) -> None:
        """Send the true label of a decision as feedback."""
        document = {"decision": decision, "label": label}
        reply = await self._http.post("/_tollway/feedback", document, self._headers)
        if reply.status >= 400:
            raise RuntimeError(f"feedback got status {reply.status}: {reply.body!r}")

    async def get(self, path: str) -> dict[str, Any]:
        """Return a JSON document; RuntimeError if there is none."""
        reply = await self._http.get(path, self._headers)
        if reply.status != 200:
            raise RuntimeError(f"{path} returned status {reply.status}: {reply.body!r}")
        return dict(reply.json())

    async def status(self, path: str) -> int:
        """Return the status of the reply to a path."""
        return (await self._http.get(path, self._headers)).status


@asynccontextmanager
async def connect(url: str, key: str | None = None) -> AsyncIterator[Client]:
    """Yield a client of one address, and close its connections at the end."""
    http = Http(url)
    try:
        yield Client(http, key)
    finally:
        await http.aclose()


async def drive(
    requests: Iterable[tuple[Images, int]],
    ask: Callable[[Images, int], Awaitable[Answer]],
    concurrency: int,
    seen: Callable[[Answer], None],
) -> list[Answer]:
    """Send all requests, `concurrency` at a time; return the answers in the order they came."""
    queue, answers = iter(requests), []

    async def worker() -> None:
        for image, label in queue:  # shared by all workers: each takes the next
            answer = await ask(image, label)
            answers.append(answer)
            seen(answer)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    return answers
