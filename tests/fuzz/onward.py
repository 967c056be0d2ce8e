"""What was read goes on, all the way that it goes in the gateway, and breaks nothing there."""

import asyncio
import math
import time
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any, cast

import h11

from tollway.backends import scoring
from tollway.backends.http.request_head import request_head
from tollway.backends.ports import StreamReader, WireProtocol
from tollway.backends.pricing import MAX_NANO, Price, parse_price
from tollway.backends.protocols.registry import protocol
from tollway.backends.types import UNBOUND, Call, Headers, HttpReply, Payload, Usage
from tollway.backends.validation import Constraint, Validator
from tollway.gateway.control_plane.budgets import BudgetEndpoints
from tollway.gateway.data_plane.headers import forwarded
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.estimation.token_rate import TokenRate
from tollway.gateway.estimation.usage_model import UsageModel
from tollway.gateway.features.encoder import CLIP
from tollway.gateway.features.extractor import FeatureExtractor
from tollway.gateway.observability.events import EventLog
from tollway.gateway.routing.metering import AttemptOutcome, Ending, evaluate_reply, evaluate_stream
from tollway.gateway.routing.plan import Target
from tollway.gateway.storage import journal_format
from tollway.gateway.storage.audit_log import MACHINE, AuditLog

QUOTE = Quote(1000, 2000, 4000)
ENDINGS = (
    Ending(latency_s=0.1, silence_s=0.0, whole=True),
    Ending(latency_s=0.1, silence_s=0.1, error="broken off"),
    Ending(latency_s=0.1, silence_s=0.1, abandoned="close"),
)
PLACES = ("x", "inputs[*].data", "messages[*].content", "instances", "inputs[0].data[-1]")


def forward(method: str, target: bytes, headers: Headers, body: bytes) -> None:
    """Assert that another parser reads exactly one request from what a backend gets."""
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
    context = FeatureExtractor(numeric=PLACES, text=PLACES, categorical=PLACES)(call)
    assert all(abs(number) <= CLIP for number in context.dense)
    for kind in ("number", "text", "list", None):
        clauses = [Constraint(at=place, kind=kind, range=(0, 1)) for place in PLACES]
        breach = Validator(clauses, "inputs").breach(payload.data)
        assert breach is None or len(breach.why) < 500


def settle(name: str, fields: Headers, body: bytes) -> None:
    """Assert that any reply is evaluated."""
    came = HttpReply(200, fields, None)  # type: ignore[arg-type] # its stream has been read
    for backend in priced_backends(name):
        call = Call(b"POST", b"/", [])
        _check(backend, evaluate_reply(backend, call, came, body, quote=QUOTE, latency_s=0.1))


def end(name: str, follower: StreamReader) -> None:
    """Assert that any finished stream is evaluated, with any content or head."""
    for backend in priced_backends(name):
        for told in (b"0.5", b"soon", b"1e300", b"nan"):
            headers = [(b"x-device-seconds", told)]
            for ending in ENDINGS:
                outcome = evaluate_stream(
                    backend, follower, headers, ending, quote=QUOTE, rate=TokenRate(), hold_nano=9
                )
                _check(backend, outcome)


def _check(backend: Target, outcome: AttemptOutcome) -> None:
    """Assert that an outcome can be charged, journalled, scored and learned from."""
    assert 0 <= outcome.cost_nano <= MAX_NANO
    answer = outcome.answer
    assert all(0 <= feature <= 1 for feature in answer.features)
    assert journal_format.unseal(
        journal_format.seal({"answer": answer.value, "error": outcome.error})
    )
    for scored in (scoring.exact(answer.value, 1), scoring.near(0.5)(answer.value, 1)):
        assert scored is None or 0 <= scored <= 1
    if outcome.usage is not None and not backend.price.is_fixed:
        _learn(backend.price, outcome.usage)


@lru_cache(maxsize=64)  # of the 48 outcomes of a stream most have one of a few usages
def _learn(price: Price, usage: Usage) -> None:
    """Assert that what is expected after a usage has a price."""
    learned = UsageModel("b")
    for _ in range(3):
        learned.learn({}, usage, UNBOUND, lambda key, log: log)
    for known in (UNBOUND, Usage(input_tokens=100.0, output_tokens=10.0, exact=False)):
        expected = learned.expected({}, known)
        expected_nano = price.cost_nano(expected)
        _, maximum = learned.bounds(expected, expected_nano, price, known)
        assert expected_nano >= 0
        assert 0 <= maximum <= MAX_NANO


@cache
def priced_backends(name: str) -> tuple[Target, ...]:
    """Return what an outcome reads of backends: a protocol, a price (of each kind), a contract."""
    expects = Validator([Constraint(at="outputs[0].data", kind="list", optional=True)], "outputs")
    tokens = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 2}
    seconds = {"device_usd_per_hour": 2.5}
    wire = protocol(name)
    return tuple(
        cast(
            Target,
            SimpleNamespace(
                credential=None, protocol=wire, price=parse_price(price), expects=expects
            ),
        )
        for price in ({"per_request_usd": 0.001}, tokens, seconds, {**tokens, **seconds})
    )


class _NoOffice:
    """A budget administration without budgets, which refuses every change."""

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
    endpoints = BudgetEndpoints(
        _NoOffice(),  # type: ignore[arg-type]
        _NoJournal(),  # type: ignore[arg-type]
        AuditLog(None),
        EventLog(time.time),
    )
    loop.run_until_complete(endpoints.change("day", body, MACHINE))
