"""What signals save on a chat route without labels: a gateway before two chat servers.

    python benchmarks/signals.py                     # 19 runs of 2,500 requests: some minutes
    python benchmarks/signals.py --only judge-.8 --json out.json

The servers answer sums as JSON. One is cheap, and right in .20 to .98 of the cases by topic (mean
.68); the other is 120 times as expensive, and right in .86 to .99 (mean .94). Half of the wrong
answers of the first are no JSON, and a fifth of those of the second. Both are less sure of what is
wrong: the log-probabilities of their tokens tell right from wrong with an AUC of .86. A judge knows
the sum, and its verdict is turned round with a known probability; it costs a twentieth of the
expensive server's answer, and is called within `budget_share` of the spend. Everything is paid,
reserved and learned through the gateway. The true accuracy is counted by the benchmark alone.
"""

import argparse
import asyncio
import contextlib
import json
import math
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import orjson

from tollway.backends.money import to_usd
from tollway.gateway import settings as config
from tollway.gateway.learning.feedback import ADMIN
from tollway.gateway.wiring import Gateway, build
from tollway.policies.evidence.confidence_sequences import LowerBound
from tollway.policies.evidence.prediction_powered import PredictionPowered
from tollway.policies.floor import ALPHA_POWERED

TOPICS = {  # how often the cheap and the expensive server are right
    "weather": (0.98, 0.99),
    "sports": (0.95, 0.98),
    "cooking": (0.90, 0.97),
    "travel": (0.85, 0.96),
    "history": (0.70, 0.95),
    "physics": (0.50, 0.93),
    "law": (0.35, 0.90),
    "proofs": (0.20, 0.86),
}
FLOOR = 0.88
MALFORMED = {"cheap": 0.5, "dear": 0.2}  # of the wrong answers
PRICES = {
    "cheap": "{ input_usd_per_mtok = 0.05, output_usd_per_mtok = 0.05 }",
    "dear": "{ input_usd_per_mtok = 2.0, output_usd_per_mtok = 8.0 }",
    "judge": "{ input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }",
}
SCHEMA = '{ kind = "schema", json_schema = { type = "object", required = ["sum"] } }'
JUDGE = (
    '{ kind = "judge", backend = "judge", share = 1.0, budget_share = 0.05, '
    "sensitivity = 0.8, specificity = 0.8 }"
)


@dataclass(frozen=True)
class Case:
    """One run: the signals, how good the judge is, and how many answers get a label."""

    signals: str = ""
    judge: float = 1.0
    labels: int = 0
    policy: str = ""
    cascade: bool = False


CASES = {
    "always-dear": Case(policy='policy = "fixed"\npolicy_options = { arm = "dear" }'),
    "declared-only": Case(),
    "schema": Case(SCHEMA),
    "cascade": Case(cascade=True),
    "cascade+schema": Case(SCHEMA, cascade=True),
    "cascade+schema+50": Case(SCHEMA, labels=50, cascade=True),
    "cascade+judge-0.8": Case(JUDGE, 0.8, cascade=True),
    "cascade+all-labels": Case(labels=1 << 30, cascade=True),
    **{f"judge-{accuracy}": Case(JUDGE, accuracy) for accuracy in (0.7, 0.8, 0.9)},
    **{f"schema+judge-{a}": Case(f"{SCHEMA}, {JUDGE}", a) for a in (0.7, 0.8, 0.9)},
    "50-labels": Case(labels=50),
    **{f"schema+judge-{a}+50": Case(f"{SCHEMA}, {JUDGE}", a, 50) for a in (0.7, 0.8, 0.9)},
    "all-labels": Case(labels=1 << 30),
}


@dataclass
class Totals:
    """What a part of a run came to."""

    count: int = 0
    right: int = 0
    cost_nano: int = 0
    cheap: int = 0


class World:
    """The servers' answers: the same for a question and a server, whatever is asked before."""

    def __init__(self, judge: float, seed: int) -> None:
        self._judge = judge
        self._seed = seed

    def question(self, number: int) -> tuple[str, int]:
        """Return a question and its answer."""
        rng = Random(f"{self._seed} {number}")
        a, b = rng.randrange(100), rng.randrange(100)
        return f"{rng.choice([*TOPICS])}: {a} + {b}", a + b

    def answer(self, server: str, prompt: str) -> str:
        """Return what a server answers."""
        rng = Random(f"{self._seed} {server} {prompt}")
        truth = _truth(prompt)
        if rng.random() < TOPICS[prompt.partition(":")[0]][server == "dear"]:
            return json.dumps({"sum": truth})
        if rng.random() < MALFORMED[server]:
            return f"I think that it is about {truth + 1}"
        return json.dumps({"sum": truth + rng.choice((-10, -1, 1, 10))})

    def sureness(self, server: str, prompt: str) -> float:
        """Return the log-probability that a server states for each token of its answer."""
        rng = Random(f"{self._seed} sure {server} {prompt}")
        right = is_right(self.answer(server, prompt), _truth(prompt))
        return -math.log1p(math.exp(-rng.gauss(2.2 if right else 0.7, 1.0)))

    def verdict(self, prompt: str) -> str:
        """Return what the judge says of an answer."""
        shown = orjson.loads(prompt)
        right = is_right(shown["answer"], _truth(shown["request"].removeprefix("user: ")))
        rng = Random(f"{self._seed} judge {prompt}")
        return "10" if right == (rng.random() < self._judge) else "0"


def _truth(prompt: str) -> int:
    a, _, b = prompt.rpartition(": ")[2].partition(" + ")
    return int(a) + int(b)


def is_right(answer: str, truth: int) -> bool:
    """Return whether an answer is right."""
    return answer == json.dumps({"sum": truth})


@contextlib.asynccontextmanager
async def serving(
    reply: Callable[[str], str], tokens: int, sure: Callable[[str], float] | None = None
) -> AsyncIterator[str]:
    """Serve chat completions on a free port; yield the URL. `sure`: the log-probabilities."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    int(line.partition(b":")[2])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                asked = orjson.loads(await reader.readexactly(size))
                messages = asked["messages"]
                prompt = messages[-1]["content"]
                length = sum(len(message["content"]) for message in messages)
                message = {"role": "assistant", "content": reply(prompt)}
                logprobs = None
                if asked.get("logprobs") and sure is not None:
                    entry = {"token": "7", "logprob": sure(prompt), "bytes": [55]}
                    logprobs = {"content": [entry | {"top_logprobs": []}] * 4, "refusal": None}
                choice = {"index": 0, "message": message, "logprobs": logprobs}
                choice |= {"finish_reason": "stop"}
                usage = {"prompt_tokens": 10 + length // 4, "completion_tokens": tokens}
                usage["total_tokens"] = sum(usage.values())
                body = orjson.dumps(
                    {"object": "chat.completion", "choices": [choice], "usage": usage}
                )
                lines = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                writer.write(lines + b"content-length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()


def configuration(case: Case, urls: dict[str, str], folder: Path) -> str:
    """Return the gateway's configuration."""
    declared = {"cheap": 0.70, "dear": 0.94}  # rounded guesses of .68 and .94
    backends = "".join(
        f"""
[[backends]]
name = "{name}"
kind = "api"
protocol = "openai"
url = "{urls[name]}"
model = "{name}"
price = {PRICES[name]}
{f"declared_accuracy = {declared[name]}" if name in declared else ""}
"""
        for name in urls
    )
    signals = f"signals = [{case.signals}]" if case.signals else ""
    return f"""
server = {{ allow_anonymous = true }}
ledger = {{ url = "memory://" }}
journal = {{ dir = "{folder}/journal" }}
state = {{ dir = "{folder}/state" }}

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["cheap", "dear"]
objective = "min_cost"
accuracy_floor = {FLOOR}
context = {{ text = ["messages[-1].content"] }}
{signals}
{"cascade = true" if case.cascade else ""}
{case.policy}
{backends}
"""


async def ask(gateway: Gateway, prompt: str) -> tuple[str, str, str]:
    """Send a chat request through the gateway; return (decision, backend, answer)."""
    request = {"model": "any", "messages": [{"role": "user", "content": prompt}]}
    body = orjson.dumps(request)
    path = b"/v1/chat/completions"
    scope = {
        **{"type": "http", "method": "POST", "path": path.decode(), "raw_path": path},
        **{"query_string": b"", "http_version": "1.1", "scheme": "http"},
        **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "asgi": {"version": "3.0"}},
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await gateway.app(scope, receive, send)
    headers = dict(sent[0]["headers"])
    document = orjson.loads(sent[1]["body"])
    text = document["choices"][0]["message"]["content"]
    return headers[b"x-tollway-decision"].decode(), headers[b"x-tollway-backend"].decode(), text


async def measure(case: Case, count: int, seed: int) -> dict[str, Any]:
    """Run a case; return its figures, of all requests and of the second half."""
    world = World(case.judge, seed)
    labelled = set(Random(seed).sample(range(count // 2), min(case.labels, count // 2)))
    if case.labels > count:
        labelled = set(range(count))
    halves = (Totals(), Totals())
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollway-")))
        urls = {}
        for name, tokens in (("cheap", 100), ("dear", 100)):
            reply = partial(world.answer, name)
            sure = partial(world.sureness, name)
            urls[name] = await stack.enter_async_context(serving(reply, tokens, sure))
        if "judge" in case.signals:
            urls["judge"] = await stack.enter_async_context(serving(world.verdict, 2))
        settings = config.parse(configuration(case, urls, folder), {}, folder=folder)
        gateway = build(settings, rng=Random(seed))
        await gateway.open()
        for number in range(count):
            prompt, truth = world.question(number)
            decision, backend, text = await ask(gateway, prompt)
            await gateway.signals.runner.settled()
            right = is_right(text, truth)
            if number in labelled:
                await gateway.learner.teach([{"decision": decision, "correct": right}], None, ADMIN)
            totals = halves[number >= count // 2]
            totals.count += 1
            totals.right += right
            totals.cheap += backend == "cheap"
            if number == count // 2 - 1:
                halves[0].cost_nano = _spent_nano(gateway)
        halves[1].cost_nano = _spent_nano(gateway) - halves[0].cost_nano
        judged_nano = sum(tally.audit_nano for tally in gateway.metrics.tallies.values())
        route = gateway.routes["chat"]
        trust = {
            name: round(route.trust.trust(name, prior, route.anchor_quality), 3)
            for name, prior in route.signals.items()
        }
        figures = route.policy.figures()
        await gateway.close()
    return {
        "halves": [vars(half) for half in halves],
        "judged_usd": to_usd(judged_nano),
        "trust": trust,
        "floor_lower_bound": figures.get("floor_lower_bound"),
    }


def _spent_nano(gateway: Gateway) -> int:
    return sum(sum(tally.cost_nano.values()) for tally in gateway.metrics.tallies.values())


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the results as lines: spend against always-dear and the hull, and accuracy."""
    base = results["always-dear"]["halves"]
    lines = [
        "                     first half               second half",
        "                     spend  accuracy          spend  accuracy  hull's spend  judge  trust",
    ]
    for name, result in results.items():
        cells, last = [], 0.0
        for half, dear in zip(result["halves"], base, strict=True):
            accuracy, best = half["right"] / half["count"], dear["right"] / dear["count"]
            last = half["cost_nano"] / dear["cost_nano"]
            cells.append(f"{last:6.1%}    {accuracy:.3f}")
        worst = sum(cheap for cheap, _ in TOPICS.values()) / len(TOPICS)
        hull = min(max((accuracy - worst) / (best - worst), 0.0), 1.0)
        judged = result["judged_usd"] * 1e9 / sum(h["cost_nano"] for h in result["halves"])
        trust = ", ".join(f"{one} {value:.2f}" for one, value in result["trust"].items())
        lines.append(
            f"{name:20} {cells[0]}         {cells[1]}  {hull:11.1%}  {judged:5.1%}  {trust}"
        )
    return lines


def bounds() -> Iterator[str]:
    """Yield the mean lower bounds on a quality of .93, by labels, with and without predictions.

    Each label comes with 20 answers that have none; the predictions are those of a judge.
    """
    yield "labels   alone   with a judge of .8   of .9   of .97"
    accuracies, seeds = (0.8, 0.9, 0.97), range(10)
    for labels in (50, 100, 200, 400):
        sums = [0.0] * (1 + len(accuracies))
        for seed in seeds:
            rng, alone = Random(seed), LowerBound(alpha=0.05)
            other = LowerBound(alpha=(1.0 - ALPHA_POWERED) * 0.05)
            powered = [PredictionPowered(alpha=ALPHA_POWERED * 0.05) for _ in accuracies]
            for number in range(21 * labels):
                right = float(rng.random() < 0.93)
                for accuracy, bound in zip(accuracies, powered, strict=True):
                    said = right if rng.random() < accuracy else 1.0 - right
                    passed = accuracy * 0.93 + (1 - accuracy) * 0.07
                    predicted = (
                        accuracy * 0.93 / passed if said else (1 - accuracy) * 0.93 / (1 - passed)
                    )
                    bound.predict(predicted)
                    if number % 21 == 0:
                        bound.rectify(right - predicted)
                if number % 21 == 0:
                    alone.observe(right)
                    other.observe(right)
            sums[0] += alone.value
            for at, bound in enumerate(powered):
                sums[1 + at] += max(other.value, bound.value)
        means = [one / len(seeds) for one in sums]
        yield f"{labels:6}   {means[0]:.3f}   {means[1]:18.3f}   {means[2]:.3f}   {means[3]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2500, help="of each run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=[*CASES], help="these runs, and always-dear")
    parser.add_argument("--bounds", action="store_true", help="only the bounds of decision 0801")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    options = parser.parse_args()
    if options.bounds:
        print(*bounds(), sep="\n")
        return
    names = [name for name in CASES if not options.only or name in {"always-dear", *options.only}]
    results = {}
    for name in names:
        results[name] = asyncio.run(measure(CASES[name], options.requests, options.seed))
        print(table(results)[-1] if len(results) > 1 else "\n".join(table(results)), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
