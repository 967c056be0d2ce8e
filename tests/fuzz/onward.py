"""What was read goes on, all the way that it goes in the gateway, and breaks nothing there."""

import asyncio
import math
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import h11

from backends.http1_connection import request_head
from backends.pricing import MAX_NANO, Price, parse_price
from backends.registry import protocol
from backends.types import UNBOUND, Call, Follower, Headers, Payload, Reply, Usage, WireProtocol
from gateway import journal, score
from gateway.context import CLIP
from gateway.contract import Clause, Contract
from gateway.counter import Counter
from gateway.estimator import Quote
from gateway.features import Features
from gateway.headers import forwarded
from gateway.metering import Ending, Verdict, judge, relayed
from gateway.route import Backend
from gateway.token_rate import TokenRate
from gateway.usage_model import UsageModel

QUOTE = Quote(1000, 2000, 4000)
ENDINGS = (
    Ending(latency_s=0.1, silence_s=0.0, whole=True),
    Ending(latency_s=0.1, silence_s=0.1, error="broken off"),
    Ending(latency_s=0.1, silence_s=0.1, abandoned="close"),
)
PLACES = ("x", "inputs[*].data", "messages[*].content", "instances", "inputs[0].data[-1]")


def forward(method: str, target: bytes, headers: Headers, body: bytes) -> None:
    """Assert that another parser reads exactly the one request that a backend is sent."""
    call = Call(method.encode(), target, forwarded(headers, b"gw")[0], body)
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(request_head(call, b"backend") + body)
    read = peer.next_event()
    assert isinstance(read, h11.Request)
    assert (read.method, read.target) == (call.method, target)
    seen = b""
    while isinstance(event := peer.next_event(), h11.Data):
        seen += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert seen == body
    assert peer.trailing_data == (b"", False)


def choose(wire: WireProtocol, call: Call, payload: Payload) -> None:
    """Assert that a request's features are finite, and that a contract can be held against it."""
    call.payload = payload
    assert 0 <= wire.bound(call, payload).output_tokens < math.inf
    hash(tuple(wire.prompt(payload)))
    context = Features(numeric=PLACES, text=PLACES, categorical=PLACES)(call)
    assert all(abs(number) <= CLIP for number in context.dense)
    for kind in ("number", "text", "list", None):
        clauses = [Clause(at=place, kind=kind, range=(0, 1)) for place in PLACES]
        breach = Contract(clauses, "inputs").breach(payload.data)
        assert breach is None or len(breach.why) < 500


def settle(name: str, fields: Headers, body: bytes) -> None:
    """Assert that a reply is judged, whatever it says."""
    came = Reply(200, fields, None)  # type: ignore[arg-type] # its stream has been read
    for backend in priced_backends(name):
        call = Call(b"POST", b"/", [])
        _check(backend, judge(backend, call, came, body, quote=QUOTE, latency_s=0.1))


def end(name: str, follower: Follower) -> None:
    """Assert that a stream that is over is judged, whatever it, or its head, said."""
    for backend in priced_backends(name):
        for told in (b"0.5", b"soon", b"1e300", b"nan"):
            headers = [(b"x-device-seconds", told)]
            for ending in ENDINGS:
                verdict = relayed(
                    backend, follower, headers, ending, quote=QUOTE, rate=TokenRate(), hold_nano=9
                )
                _check(backend, verdict)


def _check(backend: Backend, verdict: Verdict) -> None:
    """Assert that a verdict can be charged, written down, scored, and learned from."""
    assert 0 <= verdict.cost_nano <= MAX_NANO
    answer = verdict.answer
    assert all(0 <= feature <= 1 for feature in answer.features)
    assert journal.unseal(journal.seal({"answer": answer.value, "error": verdict.error}))
    for scored in (score.exact(answer.value, 1), score.near(0.5)(answer.value, 1)):
        assert scored is None or 0 <= scored <= 1
    if verdict.usage is not None and not backend.price.is_fixed:
        _learn(backend.price, verdict.usage)


def _learn(price: Price, usage: Usage) -> None:
    """Assert that what is expected after a usage has a price."""
    learned = UsageModel("b")
    for _ in range(3):
        learned.learn({}, usage, UNBOUND, lambda key, log: log)
    for known in (UNBOUND, Usage(input_tokens=100.0, output_tokens=10.0, exact=False)):
        expected = learned.expected({}, known)
        _, maximum = learned.bounds(expected, price, known)
        assert price.cost_nano(expected) >= 0
        assert 0 <= maximum <= MAX_NANO


@cache
def priced_backends(name: str) -> tuple[Backend, ...]:
    """Return what a verdict reads of backends: a protocol, a price (of each kind), a contract."""
    expects = Contract([Clause(at="outputs[0].data", kind="list", optional=True)], "outputs")
    tokens = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 2}
    seconds = {"device_usd_per_hour": 2.5}
    wire = protocol(name)
    return tuple(
        cast(
            Backend,
            SimpleNamespace(
                credential=None, protocol=wire, price=parse_price(price), expects=expects
            ),
        )
        for price in ({"per_request_usd": 0.001}, tokens, seconds, {**tokens, **seconds})
    )


class _NoOffice:
    """An office without a budget: it says so whatever is asked."""

    async def list(self) -> list[Any]:
        return []

    async def show(self, *asked: Any) -> Any:
        raise KeyError(*asked[:1])

    set_limit = credit = release = reset = show


class _NoJournal:
    def append(self, *rows: Any) -> None:
        raise AssertionError("nothing was changed")


def change(body: bytes, loop: asyncio.AbstractEventLoop) -> None:
    """Ask for a change of a budget that there is not: always refused."""
    counter = Counter(_NoOffice(), _NoJournal())  # type: ignore[arg-type]
    loop.run_until_complete(counter.change("day", body))
