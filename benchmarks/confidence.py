"""Measures what a cascade gains from the confidence of texts, and what it adds to a first token.

    python benchmarks/confidence.py                       # four minutes
    python benchmarks/confidence.py --requests 600 --seeds 2 --json confidence.json

Two simulated chat servers answer sums through a real gateway, in one process. Nothing of a sum
shows how hard it is. The cheap server is right in 70 % of the cases and costs a twentieth of the
other, which is right in 95 %. Its tokens' probabilities are lower where it is wrong (AUC about
0.85); a third of its wrong answers hedge, and a fifth break the JSON schema that each request
demands. A share of the requests gets a label. The route's objective is the value of correct answers
less cost, so one number, the net value per request, compares all. `hull`: the best mix of the two
servers at the same cost.

For the first token, a server streams a token every `--every-ms`. The figure is how many tokens'
time later the first byte comes than by a route without a cascade.
"""

import argparse
import asyncio
import contextlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import orjson

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.harness import serving  # noqa: E402
from tollway.gateway import settings  # noqa: E402
from tollway.gateway.wiring import Gateway, build  # noqa: E402

CHEAP_RIGHT, DEAR_RIGHT = 0.70, 0.95
CHEAP_USD, DEAR_USD, VALUE_USD = 0.0005, 0.01, 0.05
PATH = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}

CONFIG = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "cheap"
kind = "gpu"
protocol = "openai"
url = "{cheap}"
price = {{ per_request_usd = 0.0005 }}
[[backends]]
name = "dear"
kind = "gpu"
protocol = "openai"
url = "{dear}"
price = {{ per_request_usd = 0.01 }}
[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["cheap", "dear"]
objective = "value"
value_per_correct_usd = 0.05
context = {{ text = ["messages[*].content"] }}
score = {{ exact = "choices[0].message.content" }}
{route}
"""

ROUTES = {
    "before the call": "",
    "cascade, text alone": "cascade = true\nconfidence = { logprobs = false }",
    "cascade, text and log-probabilities": "cascade = true",
    "always cheap": 'policy = "fixed"\npolicy_options = { arm = "cheap" }',
    "always dear": 'policy = "fixed"\npolicy_options = { arm = "dear" }',
}


def said(total: int) -> str:
    return f'{{"sum": {total}}}'


class Chat:
    """A chat server that is right with a given probability, and less sure where it is wrong."""

    def __init__(self, right: float, seed: int) -> None:
        self._right, self._rng = right, Random(seed)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked = orjson.loads((await receive())["body"])
        rng = self._rng
        total = sum(map(int, asked["messages"][-1]["content"].split("plus")))
        right = rng.random() < self._right
        text = said(total if right else total + rng.choice((-10, -1, 1, 10)))
        if not right and rng.random() < 1 / 3:
            text = said(total + 1).replace("}", ', "note": "I think, but I am not sure"}')
        elif not right and rng.random() < 0.3:
            text = f"The sum is {total + 1}."
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
        choice |= {"logprobs": None, "finish_reason": "stop"}
        if asked.get("logprobs"):
            mean = 1 / (1 + math.exp(-(rng.gauss(2.2 if right else 0.7, 1.0))))
            tokens = [{"token": "7", "logprob": math.log(mean), "bytes": [55], "top_logprobs": []}]
            choice["logprobs"] = {"content": tokens * 4, "refusal": None}
        used = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}
        body = orjson.dumps({"id": "c", "choices": [choice], "usage": used})
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})


class Streaming:
    """A chat server that streams a token at a fixed pace."""

    def __init__(self, tokens: int, every_s: float) -> None:
        self._tokens, self._every_s = tokens, every_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        with contextlib.suppress(Exception, asyncio.CancelledError):
            for number in range(self._tokens):
                done = "stop" if number == self._tokens - 1 else None
                choice = {"index": 0, "delta": {"content": "word"}, "finish_reason": done}
                event = b"data: %b\n\n" % orjson.dumps({"id": "c", "choices": [choice]})
                await send({"type": "http.response.body", "body": event, "more_body": True})
                await asyncio.sleep(self._every_s)
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


@contextlib.asynccontextmanager
async def gateway(
    cheap: Any, dear: Any, route: str, seed: int
) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    """Serve two servers and a gateway before them."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(cheap) as one, serving(dear) as two:
            toml = CONFIG.format(cheap=one, dear=two, route=route)
            built = build(settings.parse(toml, {}, folder=Path(folder)), rng=Random(seed))
            async with (
                serving(built.app, lifespan="on") as url,
                httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client,
            ):
                yield built, client


async def routed(
    route: str, requests: int, labelled: float, seed: int, *, scored: bool
) -> dict[str, float]:
    """Return accuracy and cost of the second half of a stream of sums."""
    rng = Random(seed)
    right: list[float] = []
    spent: list[float] = []
    async with gateway(Chat(CHEAP_RIGHT, seed), Chat(DEAR_RIGHT, seed + 1), route, seed) as (
        _,
        client,
    ):
        for _ in range(requests):
            a, b = rng.randrange(1000), rng.randrange(1000)
            asked = {
                "model": "m",
                "messages": [{"role": "user", "content": f"{a} plus {b}"}],
                "response_format": FORMAT,
            }
            reply = await client.post(PATH, json=asked)
            reply.raise_for_status()
            text = reply.json()["choices"][0]["message"]["content"]
            try:
                correct = float(orjson.loads(text)["sum"] == a + b)
            except (ValueError, TypeError, KeyError):
                correct = 0.0
            right.append(correct)
            spent.append(float(reply.headers["x-tollway-cost-usd"]))
            if rng.random() < labelled:
                feedback = {"decision": reply.headers["x-tollway-decision"]}
                # A true answer scores every reply to the request, a grade the last one.
                feedback |= {"label": said(a + b)} if scored else {"quality": correct}
                (await client.post("/_tollway/feedback", json=feedback)).raise_for_status()
    half = requests // 2
    return {"accuracy": statistics.fmean(right[half:]), "usd": statistics.fmean(spent[half:])}


def net(accuracy: float, usd: float) -> float:
    return VALUE_USD * accuracy - usd


def hull(usd: float) -> float:
    """Return the accuracy of the mix of the two servers that costs as much."""
    share = min(1.0, max(0.0, (usd - CHEAP_USD) / (DEAR_USD - CHEAP_USD)))
    return CHEAP_RIGHT + share * (DEAR_RIGHT - CHEAP_RIGHT)


async def first_byte_s(hold: int, every_s: float, rounds: int) -> float:
    """Return the median time to the first byte of a stream, with `hold` tokens held back."""
    route = "" if hold < 0 else f"cascade = true\nconfidence = {{ hold_tokens = {hold} }}"
    taken: list[float] = []
    streaming = Streaming(64, every_s)
    async with gateway(streaming, streaming, route, 0) as (built, client):
        policy = built.routes["chat"].policy

        def choose(context: Any, arms: Any, rng: Any, floor: Any = None) -> Any:
            choice = type(policy).choose(policy, context, arms, rng, floor)
            pmf = (1.0, *[0.0] * (len(choice.arms) - 1))  # the cheap one, then accept
            from dataclasses import replace  # noqa: PLC0415

            return replace(choice, index=0, pmf=pmf)

        policy.choose = choose  # type: ignore[method-assign]
        asked = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "go"}]}
        for _ in range(rounds):
            started = time.perf_counter()
            async with client.stream("POST", PATH, json=asked) as reply:
                await anext(reply.aiter_raw())
                taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labelled", type=float, nargs="*", default=[1.0, 0.1])
    parser.add_argument("--every-ms", type=float, default=10.0)
    parser.add_argument("--grades", action="store_true", help="labels grade the last reply only")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| route | labelled | accuracy | $ a request | over the hull | net value, $ |")
    print("|---|---|---|---|---|---|")
    for name, route in ROUTES.items():
        for labelled in arguments.labelled if "always" not in name else [0.0]:
            each = [
                await routed(
                    route, arguments.requests, labelled, 10 * seed, scored=not arguments.grades
                )
                for seed in range(arguments.seeds)
            ]
            accuracy, usd = (
                statistics.fmean(one[key] for one in each) for key in ("accuracy", "usd")
            )
            over = statistics.fmean(one["accuracy"] - hull(one["usd"]) for one in each)
            row = {"route": name, "labelled": labelled, "accuracy": accuracy, "usd": usd}
            rows.append({**row, "over_hull": over, "net_usd": net(accuracy, usd)})
            print(
                f"| {name} | {labelled:.0%} | {accuracy:.3f} | {usd:.5f} | {over:+.3f} "
                f"| {net(accuracy, usd):.5f} |",
                flush=True,
            )
    every_s = arguments.every_ms / 1e3
    base = await first_byte_s(-1, every_s, arguments.rounds)
    print("\n| tokens held back | the first byte comes later by, in tokens' time |\n|---|---|")
    for hold in (8, 24, 48):
        late = (await first_byte_s(hold, every_s, arguments.rounds) - base) / every_s
        rows.append({"hold_tokens": hold, "later_tokens": late})
        print(f"| {hold} | {late:.1f} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
