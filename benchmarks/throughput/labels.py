"""Feeds a route with labels before it is measured, so that its policy has learned something."""

import http.client
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

from benchmarks.throughput.cases import Case

BATCH = 100  # the maximum of one call
RIGHT = {"c": 0.80, "a": 0.92, "b": 0.99, "chat-a": 0.80, "chat-b": 0.92, "chat-c": 0.99}
"""The share of right answers of each backend: the more expensive, the greater."""

Label = Callable[[str, Random], dict[str, object]]
"""Makes the judgement of an answer, given its backend."""


@dataclass(frozen=True, slots=True)
class FloorState:
    """How a route with an accuracy floor stands: the learned policy's share of the requests.

    `guarded`: whether the rest goes to the baseline. `labels`: those fed so far.
    """

    share: float
    lower_bound: float
    guarded: bool
    labels: int


def by_backend(backend: str, rng: Random) -> dict[str, object]:
    """Judge an answer right as often as its backend is."""
    return {"correct": rng.random() < RIGHT[backend]}


def first_class(backend: str, rng: Random) -> dict[str, object]:
    """Give the true label: class 0."""
    return {"label": 0}


def feed(
    port: int, case: Case, headers: dict[str, str], admin_key: str, count: int, label: Label
) -> None:
    """Send `count` requests one after the other and judge all answers; SystemExit on a failure."""
    rng, connection = Random(0), http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    bodies = cycle(case.bodies)
    while count > 0:
        answers = islice(_answers(connection, case, headers, bodies), min(count, BATCH))
        items = [{"decision": one, **label(backend, rng)} for one, backend in answers]
        _judge(connection, items, admin_key)
        count -= len(items)
    connection.close()


def _answers(
    connection: http.client.HTTPConnection,
    case: Case,
    headers: dict[str, str],
    bodies: Iterator[str],
) -> Iterator[tuple[str, str]]:
    """Yield (decision, backend) of one request after the other."""
    fields = {"content-type": "application/json", **headers, **case.headers}
    for body in bodies:
        connection.request("POST", case.path, body, fields)
        reply = connection.getresponse()
        text = reply.read()
        if reply.status != 200:
            raise SystemExit(f"{case.path} answered {reply.status}: {text[:500]!r}")
        yield reply.headers["x-tollway-decision"], reply.headers["x-tollway-backend"]


def _judge(
    connection: http.client.HTTPConnection, items: list[dict[str, object]], admin_key: str
) -> None:
    fields = {"content-type": "application/json", "authorization": f"Bearer {admin_key}"}
    connection.request("POST", "/_tollway/feedback", json.dumps(items), fields)
    reply = connection.getresponse()
    text = reply.read()
    results = [one["result"] for one in json.loads(text).get("results", [])]
    if results.count("learned") < len(items):
        raise SystemExit(f"not all labels were learned: {text[:500]!r}")


def floor_state(exposition: str, route: str, labels: int) -> FloorState:
    """Read the state of a route's floor from the text of /metrics; SystemExit if it has none."""

    def value(name: str) -> float:
        found = re.search(rf'^{name}{{route="{route}"}} (\S+)$', exposition, re.MULTILINE)
        if found is None:
            raise SystemExit(f"/metrics has no {name} of the route {route!r}")
        return float(found[1])

    return FloorState(
        share=value("tollway_floor_share"),
        lower_bound=value("tollway_floor_lower_bound"),
        guarded=bool(value("tollway_floor_guarded")),
        labels=labels,
    )
