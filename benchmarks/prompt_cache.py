"""What remembering where prompts are cached costs on the path, and what it is worth.

    python benchmarks/prompt_cache.py

The cost is all that a request does for it: its beginnings are hashed, three backends are asked what
they have of it, and the one that answers takes note of it.

The worth is that of a made world. Three servers at the same price ($3 a million tokens, $0.30
cached) answer conversations of twenty turns of 100 tokens each; each turn is about one of three
subjects, of which one server is right in 95 % of turns and the others in 85 %. All of that is
known, so that three rules can be compared and nothing else: ask the best server each time; stay
with the first for ever; or ask where the worth of being right, less the cost by what each is taken
to have cached, is most. What is printed is that worth less what was truly paid.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

import orjson

HERE = Path(__file__).parent
if sys.path and Path(sys.path[0]).resolve() == HERE.resolve():
    sys.path.pop(0)  # gateway.py there hides the package

from tollway.backends.protocols.openai import prompt as openai_prompt  # noqa: E402
from tollway.gateway.estimation.prompt_cache import PromptCacheTracker, prompt  # noqa: E402

MESSAGE = "lorem ipsum dolor sit amet " * 20  # about a hundred words


def cost_us(messages: int, count: int) -> float:
    """Return the microseconds that three backends' memories take of a request."""
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
    """Return what a turn is worth, less its cost, where servers are chosen by `rule`."""
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
        print(f"{messages:3} messages of 100 words: {rows[messages]:5.1f} us a request")
    worths = {}
    print("a right answer is worth   best each time   stay for ever   by the price of moving")
    for worth_usd in (0.002, 0.01, 0.02, 0.05):
        nets = [net_usd(rule, worth_usd, args.conversations) for rule in ("best", "stay", "price")]
        worths[worth_usd] = nets
        print(f"{worth_usd:>22} ${nets[0]:16.6f}{nets[1]:16.6f}{nets[2]:25.6f}   dollars a turn")
    if args.json:
        args.json.write_text(json.dumps({"us_by_messages": rows, "net_usd_by_worth": worths}))


if __name__ == "__main__":
    main()
