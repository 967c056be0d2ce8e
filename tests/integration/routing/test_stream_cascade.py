"""A cascade decides on the beginning of a stream, which it holds back, and on whole replies."""

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.http_client import http_client
from tests.support.streams import ASK, CONFIG, END, Model, chunk, row_of, usage
from tests.support.until import until
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.listener.request_head import HeadLimits
from tollway.policies.sampling import certain
from tollway.policies.types import ACCEPT, Arm, Choice, Context

pytestmark = pytest.mark.integration

ROUTE = "cascade = true\nconfidence = { hold_tokens = 2 }"


def config(one: str, two: str, more: str = "") -> str:
    return (
        CONFIG.format(one=one, two=two, route=ROUTE).replace(
            'policy = "fixed"\npolicy_options = { arm = "one" }\n', ""
        )
        + more
    )


class Scripted:
    """Asks `one` first, and then accepts or escalates as told; remembers the contexts."""

    def __init__(self, tollway: Running, then: str) -> None:
        self.then = then
        self.contexts: list[Context] = []
        tollway.gateway.routes["chat"].policy.choose = self  # type: ignore[method-assign]

    def __call__(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        self.contexts.append(context)
        names = tuple(arm.name for arm in arms)
        at = names.index(self.then if ACCEPT in names else "one")
        costs = tuple(arm.cost_usd for arm in arms)
        return Choice(
            names, certain(len(names), at), at, (0.5,) * len(names), costs, 0.0, "best", 0
        )


async def spent_nano(tollway: Running) -> int:
    (budget,) = (await tollway.get("/_tollway/budgets"))["budgets"]
    return int(budget["spent_nano"])


async def attempts_of(tollway: Running, decision: str) -> list[dict[str, Any]]:
    attempts: list[dict[str, Any]] = (await tollway.get(f"/_tollway/decisions/{decision}"))[
        "attempts"
    ]
    return attempts


def test_an_accepted_stream_goes_on_after_the_tokens_that_were_held_back(tmp_path: Path) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        start = chunk("Hello ") + chunk("there, ")
        one = Model(start, chunk("you", "stop"), usage(100, 50), END, gate=gate)
        async with serving(one) as a, serving(Model()) as b:
            async with running(config(a, b), tmp_path) as tollway:
                policy = Scripted(tollway, ACCEPT)
                path = tollway.url + "/v1/chat/completions"
                async with tollway.client.stream("POST", path, json=ASK) as reply:
                    pieces = reply.aiter_raw()
                    got = await anext(pieces)  # before the rest is made
                    assert got.startswith(chunk("Hello "))
                    gate.set()
                    got += b"".join([piece async for piece in pieces])
                assert got == start + chunk("you", "stop") + END
                attempt = await row_of(tollway, reply.headers["x-tollway-decision"])
                assert (attempt["cost_nano"], attempt["provenance"]) == (600_000, "usage")
                assert attempt["answer"] == "Hello there, you"
                assert [context.held for context in policy.contexts] == ["", "one"]
                assert policy.contexts[1].reply[-2] == 1.0  # it is a beginning
                assert await spent_nano(tollway) == 600_000

    run(main)


@pytest.mark.parametrize("streams", [True, False])
def test_an_escalated_stream_is_closed_and_charged_for_what_it_will_be_billed(
    streams: bool, tmp_path: Path
) -> None:
    async def main() -> None:
        one = Model(chunk("I think ") + chunk("perhaps "), END, gate=asyncio.Event())
        whole = {
            "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }
        two: Any = Upstream(body=orjson.dumps(whole))
        if streams:
            two = Model(chunk("Yes.", "stop"), usage(100, 50), END)
        async with serving(one) as a, serving(two) as b:
            async with running(config(a, b), tmp_path) as tollway:
                policy = Scripted(tollway, "two")
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                assert reply.headers["x-tollway-backend"] == "two"
                if streams:
                    assert reply.content == chunk("Yes.", "stop") + END
                else:
                    assert reply.json() == whole
                await asyncio.wait_for(one.left.wait(), 30)
                decision = reply.headers["x-tollway-decision"]
                await row_of(tollway, decision)
                cheap, dear = await attempts_of(tollway, decision)
                assert (dear["cost_nano"], dear["provenance"]) == (1_200_000, "usage")
                assert (cheap["provenance"], cheap["abandoned"]) == ("estimated", "escalated")
                assert cheap["cost_nano"] >= cheap["expected_nano"] > 0
                assert policy.contexts[1].reply[14] > 0  # it hedges
                assert await spent_nano(tollway) == cheap["cost_nano"] + dear["cost_nano"]

    run(main)


def test_a_held_stream_is_sent_if_its_escalation_fails(tmp_path: Path) -> None:
    async def main() -> None:
        parts = chunk("Hello ") + chunk("there, "), chunk("you", "stop"), usage(100, 50), END
        async with serving(Model(*parts)) as a, serving(Upstream(status=500)) as b:
            async with running(config(a, b), tmp_path) as tollway:
                Scripted(tollway, "two")
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                assert reply.headers["x-tollway-backend"] == "one"
                assert reply.headers["x-tollway-reason"] == "escalation_failed"
                assert reply.content == parts[0] + parts[1] + END
                decision = reply.headers["x-tollway-decision"]

                async def settled() -> bool:
                    first, _ = await attempts_of(tollway, decision)
                    return bool(first["provenance"] == "usage")

                await until(settled, every_s=0.02)
                first, second = await attempts_of(tollway, decision)
                assert (first["cost_nano"], second["status"]) == (600_000, 500)
                rows = tollway.journalled("settlement")
                assert [(row["attempt"], row["cost_nano"]) for row in rows] == [(0, 600_000)]
                assert await spent_nano(tollway) == 600_000

    run(main)


def test_a_client_that_leaves_during_an_escalation_ends_both_calls(tmp_path: Path) -> None:
    async def main() -> None:
        one = Model(chunk("Hello ") + chunk("there, "), END, gate=asyncio.Event())
        two = Upstream(hold=asyncio.Event())
        async with serving(one) as a, serving(two) as b:
            listener = limited_protocol(HeadLimits())
            async with running(config(a, b), tmp_path, http=listener) as tollway:
                Scripted(tollway, "two")
                async with http_client() as leaver:
                    asking = asyncio.ensure_future(
                        leaver.post(tollway.url + "/v1/chat/completions", json=ASK)
                    )
                    await until(lambda: two.calls == 1)
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                await asyncio.wait_for(one.left.wait(), 30)

                await until(lambda: tollway.gateway.recent)
                decision = tollway.gateway.recent[0]

                async def settled() -> bool:
                    attempts = await attempts_of(tollway, decision)
                    return [one["provenance"] for one in attempts] == ["estimated"] * 2

                await until(settled, every_s=0.02)
                cheap, dear = await attempts_of(tollway, decision)
                assert (cheap["abandoned"], dear["error"]) == ("close", "client left")
                assert await spent_nano(tollway) == cheap["cost_nano"] + dear["cost_nano"] > 0

    run(main)


def test_a_stream_that_ends_while_it_is_held_back_is_sent_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Model(chunk("Hi", "stop"), usage(100, 50), END)) as a:
            async with serving(Model()) as b:
                async with running(config(a, b), tmp_path) as tollway:
                    policy = Scripted(tollway, ACCEPT)
                    path = tollway.url + "/v1/chat/completions"
                    reply = await tollway.client.post(path, json=ASK)
                    assert reply.content == chunk("Hi", "stop") + END
                    assert policy.contexts[1].reply[-2] == 0.0  # all of it is known
                    attempt = await row_of(tollway, reply.headers["x-tollway-decision"])
                    assert attempt["cost_nano"] == 600_000

    run(main)


def test_a_stream_that_breaks_off_while_it_is_held_back_falls_back(tmp_path: Path) -> None:
    async def main() -> None:
        one = Model(chunk("H"), cut=True)
        two = Model(chunk("Yes.", "stop"), usage(100, 50), END)
        async with serving(one) as a, serving(two) as b:
            async with running(config(a, b), tmp_path) as tollway:
                Scripted(tollway, ACCEPT)
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                assert reply.headers["x-tollway-backend"] == "two"
                assert reply.content == chunk("Yes.", "stop") + END

    run(main)


def test_an_error_after_an_event_without_text_is_the_refusal_that_it_stands_for(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        told = {"error": {"message": "slow down", "type": "rate_limit_error", "code": 429}}
        error = b"data: %b\n\n" % orjson.dumps(told)
        two = Model(chunk("Yes.", "stop"), usage(100, 50), END)
        async with serving(Model(chunk(), error, END)) as a, serving(two) as b:
            async with running(config(a, b), tmp_path) as tollway:
                Scripted(tollway, ACCEPT)
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                assert reply.headers["x-tollway-backend"] == "two"
                assert reply.content == chunk("Yes.", "stop") + END
                decision = reply.headers["x-tollway-decision"]
                await row_of(tollway, decision)
                first, second = await attempts_of(tollway, decision)
                assert (first["status"], first["cost_nano"]) == (429, 0)
                assert await spent_nano(tollway) == second["cost_nano"] == 1_200_000

    run(main)


def told(value: Any) -> bytes:
    choice = {"index": 0, "message": {"content": "7"}, "logprobs": value, "finish_reason": "stop"}
    used = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    return orjson.dumps({"id": "c", "choices": [choice], "usage": used})


def test_log_probabilities_are_asked_for_read_and_hidden(tmp_path: Path) -> None:
    async def main() -> None:
        content = [{"token": "7", "logprob": math.log(0.25), "bytes": [55], "top_logprobs": []}]
        one = Upstream(body=told({"content": content, "refusal": None}))
        async with serving(one) as a, serving(Upstream()) as b:
            async with running(config(a, b), tmp_path) as tollway:
                policy = Scripted(tollway, ACCEPT)
                path = tollway.url + "/v1/chat/completions"
                plain = {name: value for name, value in ASK.items() if name != "stream"}
                reply = await tollway.client.post(path, json=plain)
                assert orjson.loads(one.requests[-1][3])["logprobs"] is True
                assert reply.content == told(None)
                assert int(reply.headers["content-length"]) == len(told(None))
                assert policy.contexts[1].reply[0] == pytest.approx(0.25)
                asked = await tollway.client.post(path, json={**plain, "logprobs": True})
                assert asked.content == one.body

    run(main)


def test_a_backend_that_refuses_log_probabilities_is_asked_without_them(tmp_path: Path) -> None:
    class Reasoning(Upstream):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def heard() -> Any:
                message = await receive()
                refused = b"logprobs" in message.get("body", b"")
                self.status = 400 if refused else 200
                error = {"error": {"message": "'logprobs' is not supported with this model."}}
                self.body = orjson.dumps(error) if refused else told(None)
                return message

            await super().__call__(scope, heard, send)

    async def main() -> None:
        one = Reasoning()
        async with serving(one) as a, serving(Upstream()) as b:
            async with running(config(a, b), tmp_path) as tollway:
                Scripted(tollway, ACCEPT)
                path = tollway.url + "/v1/chat/completions"
                plain = {name: value for name, value in ASK.items() if name != "stream"}
                for _ in range(2):
                    reply = await tollway.client.post(path, json=plain)
                    assert (reply.status_code, reply.content) == (200, told(None))
                assert one.calls == 3  # the refusal is remembered

    run(main)
