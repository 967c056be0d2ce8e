"""Measures the cost of tracking prompt caches on the request path, and its benefit.

    python benchmarks/prompt_cache.py

The cost is the work per request: its prefixes are hashed, the cached tokens at three backends are
looked up, and the request is recorded for the backend that answers.

The benefit is measured in a synthetic world. Three servers at the same price ($3 per million
tokens, $0.30 cached) answer conversations of twenty turns of 100 tokens. Each turn is about one of
three subjects; for each subject one server is right in 95 % of turns and the others in 85 %. All
rates are known, so only the three rules differ: use the best server each time; stay with the first
server; or use the server with the highest value of a right answer minus the cost, given the tokens
it is assumed to have cached. The output is the value of right answers minus the actual cost.
"""

import argparse
import json
import random
import time
from pathlib import Path

import orjson

from tollway.backends.protocols.openai import prompt as openai_prompt
from tollway.gateway.estimation.prompt_cache import PromptCacheTracker, prompt

MESSAGE = "lorem ipsum dolor sit amet " * 20  # about a hundred words


def cost_us(messages: int, count: int) -> float:
    """Return the microseconds per request that tracking three backends takes."""
    told = [{"role": "user", "content": f"{number} {MESSAGE}"} for number in range(messages)]
    raw = orjson.dumps({"messages": told})
    documents = [orjson.loads(raw) for _ in range(count)]  # fresh: strings remember their hash
    caches = [PromptCacheTracker(keeps_s=300) for _ in range(3)]
    caches[0].saw(prompt(openai_prompt.parts({"messages": told[:-2]}), "x"), 0.0)
    started = time.perf_counter()
    for document in documents:
        asked = prompt(openai_prompt.parts(document), "x")
        for cache in caches:
            cache.expects(asked, 1.0)
        caches[1].covers(asked, 1.0)
        caches[1].saw(asked, 1.0)
    return (time.perf_counter() - started) / count * 1e6


TURNS, TOKENS = 20, 100
FRESH_USD, CACHED_USD = 3e-6, 0.3e-6


def net_usd(rule: str, worth_usd: float, conversations: int) -> float:
    """Return the value of a turn minus its cost if servers are chosen by `rule`."""
    rng = random.Random(0)
    caches = [PromptCacheTracker(keeps_s=1e9) for _ in range(3)]
    total = 0.0
    for number in range(conversations):
        told: list[dict[str, str]] = []
        truly = [0, 0, 0]  # tokens of this conversation that each server has read
        first = rng.randrange(3)
        for state in range(1, TURNS + 1):
            told.append({"role": "user", "content": f"{number} {state} ".ljust(TOKENS * 4, "x")})
            asked = prompt(openai_prompt.parts({"messages": told}), "x")
            subject, given = rng.randrange(3), state * TOKENS
            quality = [0.95 if server == subject else 0.85 for server in range(3)]
            shares = [cache.expects(asked, 0.0) for cache in caches]
            costs = [given * (FRESH_USD - share * (FRESH_USD - CACHED_USD)) for share in shares]
            by = {
                "best": quality,
                "stay": [float(server == first) for server in range(3)],
                "price": [worth_usd * q - c for q, c in zip(quality, costs, strict=True)],
            }[rule]
            server = by.index(max(by))
            paid = truly[server] * CACHED_USD + (given - truly[server]) * FRESH_USD
            total += worth_usd * quality[server] - paid
            caches[server].learn(shares[server] * given, float(truly[server]))
            caches[server].saw(asked, 0.0)
            truly[server] = given
    return total / conversations / TURNS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--conversations", type=int, default=300)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    rows = {}
    for messages in (1, 2, 10, 40):
        rows[messages] = min(cost_us(messages, args.count) for _ in range(args.rounds))
        print(f"{messages:3} messages of 100 words: {rows[messages]:5.1f} us per request")
    worths = {}
    print("value of a right answer   best each time   stay at first   by value minus cost")
    for worth_usd in (0.002, 0.01, 0.02, 0.05):
        nets = [net_usd(rule, worth_usd, args.conversations) for rule in ("best", "stay", "price")]
        worths[worth_usd] = nets
        print(f"{worth_usd:>22} ${nets[0]:16.6f}{nets[1]:16.6f}{nets[2]:25.6f}   dollars per turn")
    if args.json:
        args.json.write_text(json.dumps({"us_by_messages": rows, "net_usd_by_worth": worths}))


if __name__ == "__main__":
    main()
