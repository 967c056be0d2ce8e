"""What remembering where prompts are cached costs on the path.

    python benchmarks/prompt_cache.py

All that a request does for it: its beginnings are hashed, three backends are asked what they have
of it, and the one that answers takes note of it.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import orjson

HERE = Path(__file__).parent
if sys.path and Path(sys.path[0]).resolve() == HERE.resolve():
    sys.path.pop(0)  # gateway.py there hides the package

from backends import openai_prompt  # noqa: E402
from gateway.prompt_cache import PromptCache, prompt  # noqa: E402

MESSAGE = "lorem ipsum dolor sit amet " * 20  # about a hundred words


def cost_us(messages: int, count: int) -> float:
    """Return the microseconds that three backends' memories take of a request."""
    told = [{"role": "user", "content": f"{number} {MESSAGE}"} for number in range(messages)]
    raw = orjson.dumps({"messages": told})
    documents = [orjson.loads(raw) for _ in range(count)]  # fresh: strings remember their hash
    caches = [PromptCache(keeps_s=300) for _ in range(3)]
    caches[0].saw(prompt(openai_prompt.parts({"messages": told[:-2]}), "x"), 0.0)
    started = time.perf_counter()
    for document in documents:
        asked = prompt(openai_prompt.parts(document), "x")
        for cache in caches:
            cache.expects(asked, 1.0)
        caches[1].covers(asked, 1.0)
        caches[1].saw(asked, 1.0)
    return (time.perf_counter() - started) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    rows = {}
    for messages in (1, 2, 10, 40):
        rows[messages] = min(cost_us(messages, args.count) for _ in range(args.rounds))
        print(f"{messages:3} messages of 100 words: {rows[messages]:5.1f} us a request")
    if args.json:
        args.json.write_text(json.dumps({"us_by_messages": rows}))


if __name__ == "__main__":
    main()
