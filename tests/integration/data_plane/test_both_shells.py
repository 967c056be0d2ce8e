"""The callback shell, with and without its fused path, and the coroutine shell do the same."""

import asyncio
import gc
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.contracts.wire_server import Wire, wire_server
from tests.support.raw_client import Client
from tests.support.until import until
from tollway.backends.http import pool
from tollway.gateway import settings as config
from tollway.gateway.data_plane import callback_shell
from tollway.gateway.data_plane.fused import path as fused_path
from tollway.gateway.data_plane.handler import DataPlane
from tollway.gateway.listener import server as front
from tollway.gateway.routing import attempts
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.security.keys import hash_key
from tollway.gateway.storage.journal_format import rows
from tollway.gateway.wiring import Gateway, build
from tollway.gateway.wiring.reload import Reloader
from tollway.gateway.wiring.scheduler import Scheduler

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif("TEST_SHELL" in os.environ, reason="it compares both"),
]

CONFIG = """
[server]
callbacks = {callbacks}
idempotency_s = 60

[journal]
dir = "journal"

[state]
dir = "state"

[ledger]
url = "memory://"

[[tenants]]
name = "acme"
key_hash = "{acme}"

[[tenants]]
name = "poor"
key_hash = "{poor}"

[[budgets]]
name = "all"
limit_usd = 100
window = "day"

[[budgets]]
name = "small"
limit_usd = 0.002
window = "day"
scope = {{ tenant = "poor" }}

[[backends]]
name = "a"
kind = "cpu"
protocol = "oip"
url = "{url}/a"
price = {{ per_request_usd = 0.00001 }}

[[backends]]
name = "b"
kind = "cpu"
protocol = "oip"
url = "{url}/b"
price = {{ per_request_usd = 0.0001 }}

[[backends]]
name = "c"
kind = "gpu"
protocol = "oip"
url = "{url}/c"
price = {{ per_request_usd = 0.0003 }}

[[backends]]
name = "bad"
kind = "cpu"
protocol = "oip"
url = "{url}/bad"
price = {{ per_request_usd = 0.00001 }}

[[backends]]
name = "chat-a"
kind = "gpu"
protocol = "openai"
url = "{url}/chat-a/v1"
price = {{ input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.4 }}

[[backends]]
name = "chat-b"
kind = "gpu"
protocol = "openai"
url = "{url}/chat-b/v1"
model = "theirs"
price = {{ input_usd_per_mtok = 1, output_usd_per_mtok = 4 }}

[[routes]]
name = "x"
path = "/v2/models/x/infer"
protocol = "oip"
backends = ["a", "b", "c"]
objective = "max_quality"
context = {{ numeric = ["inputs[0].data"], range = [0, 16] }}

[[routes]]
name = "cascade"
path = "/v2/models/cascade/infer"
protocol = "oip"
backends = ["a", "b", "c"]
objective = "min_cost"
accuracy_floor = 0.9
cascade = true
context = {{ numeric = ["inputs[0].data"], range = [0, 16] }}

[[routes]]
name = "floor"
path = "/v2/models/floor/infer"
protocol = "oip"
backends = ["a", "b", "c"]
objective = "min_cost"
accuracy_floor = 0.9
baseline = "b"
context = {{ numeric = ["inputs[0].data"], range = [0, 16] }}

[[routes]]
name = "kept"
path = "/v2/models/kept/infer"
protocol = "oip"
backends = ["a", "b"]
objective = "max_quality"
cache = {{ ttl_s = 3600, early = 0, fresh_share = 0 }}
context = {{ numeric = ["inputs[0].data"], range = [0, 16] }}

[[routes]]
name = "failing"
path = "/v2/models/failing/infer"
protocol = "oip"
backends = ["bad", "b"]
objective = "max_quality"
fallbacks = ["bad", "b"]

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["chat-a", "chat-b"]
objective = "max_quality"
context = {{ text = ["messages[*].content"] }}
"""
OIP = {
    "model_name": "m",
    "outputs": [{"name": "y", "shape": [1], "datatype": "INT64", "data": [1]}],
}
CHAT = {
    "id": "1",
    "object": "chat.completion",
    "model": "theirs",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"},
                 "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}  # fmt: skip


@dataclass
class Backends:
    """All backends on one port: what the n-th call of a path gets depends on n alone."""

    calls: Counter[bytes] = field(default_factory=Counter)

    async def __call__(self, wire: Wire) -> None:  # noqa: PLR0912 - one for each behaviour
        while True:
            head, body = await wire.request()
            name = head.split(b"/", 2)[1].split(b"/")[0]
            number = self.calls[name] = self.calls[name] + 1
            chat = name.startswith(b"chat")
            whole = json.dumps(CHAT if chat else OIP).encode()
            if chat and b'"stream":true' in body:
                delta = b'data: {"choices":[{"index":0,"delta":{"content":"yes"}}]}\n\n'
                usage = b'data: {"choices":[],"usage":%b}\n\n' % json.dumps(CHAT["usage"]).encode()
                await wire.say(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                    b"transfer-encoding: chunked\r\n\r\n"
                )
                for event in (delta, usage, b"data: [DONE]\n\n"):
                    await wire.say(b"%x\r\n%b\r\n" % (len(event), event))
                await wire.say(b"0\r\n\r\n")
            elif b"leave" in body:
                await wire.gone()
                return
            elif b"hang up" in body:
                return
            elif b"reset" in body:
                wire.reset()
                return
            elif b"half" in body:
                await wire.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
                return
            elif name == b"bad" or number % 23 == 0:
                await wire.say(b"HTTP/1.1 404 No\r\ncontent-length: 4\r\n\r\ngone")
            elif number % 11 == 0:  # in parts
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                await wire.say(head + b"content-length: %d\r\n\r\n" % len(whole) + whole[:5])
                await wire.say(whole[5:])
            elif number % 13 == 0:  # without a length
                await wire.say(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(whole), whole)
                )
            elif number % 17 == 0:  # and closes
                await wire.say(
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%b" % (len(whole), whole)
                )
                return
            elif number % 19 == 0:
                await wire.say(b"HTTP/1.1 422 No\r\ncontent-length: 2\r\n\r\n{}")
            else:
                await wire.say(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-tollway-id: theirs\r\n"
                    b"%bserver: s\r\nconnection: keep-alive\r\ncontent-length: %d\r\n\r\n%b"
                    % (b"date: then\r\n" if name == b"b" else b"", len(whole), whole)
                )


def oip(values: list[float]) -> bytes:
    tensor = {"name": "x", "shape": [len(values)], "datatype": "FP32", "data": values}
    return json.dumps({"inputs": [tensor]}).encode()


def requests(rng: random.Random, count: int) -> Iterator[bytes]:
    """Yield requests of all kinds, most of them of the kind that the callback shell answers."""
    odd = [
        (b"x-tollway-max-cost-usd: 0.00005\r\n", b""),
        (b"x-tollway-max-cost-usd: 0.000000001\r\n", b""),
        (b"x-tollway-max-cost-usd: none\r\n", b""),
        (b"x-tollway-tags: team=%d\r\n", b""),
        (b"x-request-id: %d\r\n", b""),
        (b"idempotency-key: %d\r\n", b""),
        (b"x-tollway-deadline-ms: 20000\r\n", b""),
        (b"", b"no JSON"),
        (b"", b'{"inputs":[]}'),
        (b"expect: 100-continue\r\n", b""),
        (b"accept-encoding: gzip\r\n", b""),
        (b"content-encoding: br\r\n", b""),
    ]
    for number in range(count):
        path = rng.choice(
            [b"/v2/models/%b/infer" % n for n in (b"x", b"x", b"floor", b"cascade", b"failing")]
        )
        body = oip([round(rng.uniform(0, 16), 2) for _ in range(4)])
        key = rng.choices([b"acme", b"poor", b"nobody"], [20, 2, 1])[0]
        if rng.random() < 0.3:
            path = b"/v1/chat/completions"
            stream = rng.random() < 0.2
            words = " ".join(rng.choices(["when", "is", "the", "next", "train"], k=4))
            asked = {"model": "m", "messages": [{"role": "user", "content": words}]}
            body = json.dumps({**asked, "max_tokens": 5, "stream": stream}).encode()
            body = body.replace(b'"stream": true', b'"stream":true')
        more = other = b""
        if rng.random() < 0.25:
            more, other = rng.choice(odd)
            more, body = more.replace(b"%d", b"%d" % (number % 7)), other or body
        if rng.random() < 0.2:  # these are mostly answered from the cache
            path = b"/v2/models/kept/infer"
            body = other or oip([float(rng.randrange(4))])
            if rng.random() < 0.1:
                body = body[:-1] + b',"id":"%d"}' % rng.randrange(3)
        yield (
            b"POST %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\n"
            b"content-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
            % (path, key, more, len(body), body)
        )


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Read one reply, but for interim ones."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 100"):
            break
    if found := re.search(rb"content-length: (\d+)", head):
        return head + await reader.readexactly(int(found[1]))
    return head + await reader.readuntil(b"\r\n0\r\n\r\n")


MASKED = re.compile(
    rb"(x-tollway-decision: |via: [0-9.]+ tollway-|date: |server-timing: )[^\r]*"
    rb'|"(?:decision|decision_id|resets_at)": ?"[^"]*"'
    rb'|(?<="held_usd":)[0-9.e-]+'  # what a budget has lent follows the rate of spending
)
LENGTH = re.compile(rb"(?<=content-length: )[0-9]+")


def comparable(reply: bytes) -> bytes:
    """Return a reply without what differs between two runs."""
    masked = MASKED.sub(rb"\1", reply)
    return LENGTH.sub(b"", masked) if b'"held_usd":' in reply else masked


TIMES = ("id", "time", "latency_s", "device_s", "crc")


def told(row: dict[str, Any]) -> dict[str, Any]:
    if "cached" in row:
        row["cached"].pop("age_s")
    return {key: value for key, value in row.items() if key not in TIMES}


def journal(folder: Path) -> list[dict[str, Any]]:
    """Return all rows, without what differs between two runs."""
    paths = sorted((folder / "journal").glob("journal-*.jsonl"))
    return [told(row) for path in paths for row in rows(path)]


@dataclass
class Seen:
    """All that a run leaves."""

    replies: list[bytes]
    rows: list[dict[str, Any]]
    metrics: list[str]
    spent: list[tuple[str, int, int]]


def measured(gateway: Gateway) -> list[str]:
    """Return the metrics that time does not change."""
    text = gateway.exposition.render().decode()
    return sorted(
        line
        for line in text.splitlines()
        if line.startswith("tollway_")
        and not re.search(r"seconds|_info|created|bytes|loop|ledger|budget_(held|free|used)", line)
    )


@contextmanager
def counted(kinds: Counter[str]) -> Iterator[None]:
    """Count what the callback shell begins and hands over."""
    begin, hand_over = callback_shell.CallbackShell.begin, callback_shell.Progress.hand_over
    finish, fuse = fused_path.FusedRequest._finish, fused_path.FusedPath.begin
    repeat = callback_shell.CallbackShell._repeat

    def began(shell: Any, *args: Any) -> bool:
        has_begun = begin(shell, *args)
        kinds["begun"] += has_begun
        return has_begun

    def handed(progress: callback_shell.Progress) -> None:
        kinds["handed over"] += 1
        hand_over(progress)

    def fused(path: Any, *args: Any) -> bool:
        has_begun = fuse(path, *args)
        kinds["begun"] += has_begun
        return has_begun

    def finished(progress: Any, *args: Any) -> bool:
        is_finished = finish(progress, *args)
        kinds["fused"] += is_finished
        return is_finished

    def repeated(shell: Any, *args: Any) -> bool | None:
        drawn = repeat(shell, *args)
        kinds["repeated"] += drawn is None
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callback_shell.CallbackShell, "_repeat", repeated)
        patch.setattr(callback_shell.CallbackShell, "begin", began)
        patch.setattr(callback_shell.Progress, "hand_over", handed)
        patch.setattr(fused_path.FusedRequest, "_finish", finished)
        patch.setattr(fused_path.FusedPath, "begin", fused)
        yield


def troubled(rng: random.Random, count: int) -> Iterator[bytes]:
    """Yield requests whose clients leave and whose backends hang up, between good ones."""
    for _ in range(count):
        trouble = rng.choice(["none", "none", "leave", "hang up", "reset", "half"])
        path = b"/v2/models/%b/infer" % rng.choice([b"x", b"cascade"])
        body = oip([1.0, 2.0, 3.0, 4.0])[:-1] + b',"id":"%b"}' % trouble.encode()
        yield (
            b"POST %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer acme\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (path, len(body), body)
        )


def configured(url: str, callbacks: bool) -> str:
    """Return a configuration with one of the shells."""
    return CONFIG.format(
        callbacks=str(callbacks).lower(), url=url, acme=hash_key("acme"), poor=hash_key("poor")
    )


def revised(text: str) -> Iterator[str]:
    """Yield what a configuration is changed to: a price, a key, a budget, the backends."""
    text = text.replace("per_request_usd = 0.0001 ", "per_request_usd = 0.00012 ")
    yield text
    text = text.replace(hash_key("poor"), hash_key("another"))
    text = text.replace("limit_usd = 0.002", "limit_usd = 0.004")
    yield text
    yield text.replace('backends = ["a", "b", "c"]', 'backends = ["b", "c"]', 1)


async def run(
    folder: Path, callbacks: bool, seed: int, asked: Callable[[random.Random], Iterator[bytes]]
) -> Seen:
    replies = []
    async with wire_server(Backends()) as backend:
        text = configured(backend.url, callbacks)
        changes = revised(text)
        gateway = build(config.parse(text, {}, folder=folder), rng=random.Random(seed))
        gateway.scheduler = Scheduler([])  # nothing depends on when a job runs
        gateway.caching.clock = lambda: 1000.0  # no remembered draw grows old
        async with front.serving(gateway.app) as address:
            reader, writer = await Client(address).open()
            for number, request in enumerate(asked(random.Random(seed))):
                if b'"leave"' in request:
                    calls = len(backend.requests)
                    writer.write(request)
                    await until(lambda: len(backend.requests) > calls)  # noqa: B023
                    writer.close()
                    await until(lambda: gateway.in_flight.count == 0)
                    reader, writer = await Client(address).open()
                    continue
                if number % 40 == 39:
                    writer.close()
                    reader, writer = await Client(address).open()
                for one in gateway.backends.values():
                    one.breaker.succeeded()  # when an open one is tried again depends on time
                if number % 100 == 99 and (changed := next(changes, "")):
                    read = partial(config.parse, changed, {}, folder=folder)
                    await Reloader(gateway, read).reload()
                if number % 50 == 49:
                    for route in gateway.routes.values():
                        route.policy.resolve()
                writer.write(request)
                replies.append(comparable(await answer(reader)))
            writer.close()
            assert gateway.in_flight.count == 0
            metrics = measured(gateway)
            await gateway.reservations.sync_now()
            spent = [
                (one.budget.name, one.spent_nano, one.unaccounted_nano)
                for one in gateway.reservations.status()
            ]
    return Seen(replies, journal(folder), metrics, spent)


def compare(
    folder: Path, seed: int, asked: Callable[[random.Random], Iterator[bytes]]
) -> Counter[str]:
    """Compare what all leave of the same requests; count those of the callback shell."""
    kinds: Counter[str] = Counter()
    for name in ("fused", "callbacks", "coroutines"):
        (folder / name).mkdir()

    async def all_ways() -> tuple[Seen, Seen, Seen]:
        async with asyncio.timeout(150):
            with counted(kinds):
                fused = await run(folder / "fused", True, seed, asked)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(DataPlane, "_fused", lambda plane, judged: None)
                unfused = await run(folder / "callbacks", True, seed, asked)
            return fused, unfused, await run(folder / "coroutines", False, seed, asked)

    fused, *others = uvloop.run(all_ways())
    for other in others:
        for ours, theirs in zip(fused.replies, other.replies, strict=True):
            assert ours.split(b"\r\n") == theirs.split(b"\r\n")
        for row, their_row in zip(fused.rows, other.rows, strict=True):
            assert row == their_row
        assert fused.metrics == other.metrics
        assert fused.spent == other.spent
    return kinds


@pytest.mark.parametrize("seed", range(3))
def test_both_shells_answer_charge_and_record_the_same(seed: int, tmp_path: Path) -> None:
    kinds = compare(tmp_path, seed, partial(requests, count=400))
    assert kinds["begun"] > 300 and 20 < kinds["handed over"] < kinds["begun"] / 2
    assert kinds["repeated"] > 10 and kinds["fused"] > 80


@pytest.mark.parametrize("seed", range(3))
def test_both_shells_do_the_same_about_clients_that_leave_and_backends_that_hang_up(
    seed: int, tmp_path: Path
) -> None:
    kinds = compare(tmp_path, seed, partial(troubled, count=80))
    assert kinds["begun"] == 80 and kinds["handed over"] > 20


BROKEN: dict[str, list[tuple[Any, str]]] = {
    "addressed": [(fused_path, "addressed"), (attempts, "addressed")],
    "request_head": [
        (fused_path, "request_head"), (pool, "known_request_head"), (pool, "request_head")
    ],
}  # fmt: skip


@pytest.mark.parametrize("step", ["addressed", "request_head"])
def test_a_call_that_cannot_be_written_ends_on_every_path_as_on_the_others(
    step: str, tmp_path: Path
) -> None:
    def fails(*args: Any) -> bytes:
        raise ValueError("a line break")

    with pytest.MonkeyPatch.context() as patch:
        for module, name in BROKEN[step]:
            patch.setattr(module, name, fails)
        kinds = compare(tmp_path, 0, partial(requests, count=40))
    assert kinds["fused"] == 0 and kinds["begun"] > 20


def test_an_idle_connection_keeps_nothing_of_its_last_request(tmp_path: Path) -> None:
    async def alive() -> list[int]:
        async with wire_server(Backends()) as backend:
            gateway = build(config.parse(configured(backend.url, True), {}, folder=tmp_path))
            async with front.serving(gateway.app) as address:
                reader, writer = await Client(address).open()
                kinds: Counter[str] = Counter()
                with counted(kinds):
                    asked = troubled(random.Random(0), 40)
                    for request in [one for one in asked if b'"none"' in one][:5]:
                        writer.write(request)
                        await answer(reader)
                gc.collect()
                found = gc.get_objects()
                writer.close()
                assert kinds["begun"] == 5
                kept = (callback_shell.Progress, InferenceRequest, RequestState)
                return [sum(type(one) is kind for one in found) for kind in kept]

    assert uvloop.run(alive()) == [0, 0, 0]
