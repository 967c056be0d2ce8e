"""Models each backend's prompt cache, so that a conversation tends to stay on its backend.

Theory of operation. Servers cache the work done on a prompt for some minutes and charge less for
the tokens of a later prompt with the same prefix. A conversation sends its whole history with each
request. On the backend that answered before, most of it is cached; on another backend, nothing is.
The tracker stores the prefixes of the prompts that each backend has answered. The quote of a call
counts the tokens covered by the longest matching prefix at the cached price. The difference is the
cost of switching backends. It is part of the costs that the policy sees, so a conversation switches
when the gain pays for it. No other component has to know.

    Prompt   the parts of a request, each prefix of them as one number (a chain of hashes)
    memory   number -> last time a call with this prefix was answered; the oldest of the tenant with
             the most are dropped

How much of the expected cached tokens is really cached depends on the server (a minimum length,
blocks, several replicas behind one address). This ratio is learned: cached tokens reported by
replies over cached tokens predicted. Memory and ratio are each tenant's own: a tenant can neither
push the prompts of others out, nor make their quotes wrong.

The numbers are Python's own hashes: fast, 64 bits, and seeded per process, so that nobody can make
two prompts collide. A collision gives a wrong quote; it cannot cause a wrong charge.
"""

from collections.abc import Hashable, Iterable

from tollway.backends.types import Usage
from tollway.record import record

BEGINNINGS_MAX = 20_000  # about 3 MB per backend: 2,500 requests with up to eight prefixes each
PARTS_MAX = 512  # a longer prompt is identified by its first 512 parts; protocols give no more
FIRST, LAST = 4, 4  # prefixes stored: those that conversations share, and where each one stands
PRIOR_TOKENS = 2_000.0  # prior of both sums, predicted and reported: the size of a prompt or two
PRIOR = PRIOR_TOKENS, PRIOR_TOKENS
NEVER = float("-inf")
FORGET = 0.98  # decay of both sums per call: about the last fifty calls count


@record
class Prompt:
    """A request's prefixes: `keys`, and in `chars` the number of characters of each prefix.

    `owner`: the tenant, whose prefixes are its own.
    """

    keys: tuple[int, ...]
    chars: tuple[int, ...]
    total_chars: int
    owner: Hashable = ""


def prompt(parts: Iterable[tuple[Hashable, int]], owner: Hashable) -> Prompt:
    """Return the prompt of (part, characters) pairs in order.

    Prompts of different owners share no prefix, so no owner can see what another has sent.
    """
    keys: list[int] = []
    chars: list[int] = []
    key, total = hash(owner), 0
    for part, size in parts:
        total += size
        if len(keys) < PARTS_MAX:
            key = hash((key, part))
            keys.append(key)
            chars.append(total)
    return Prompt(tuple(keys), tuple(chars), total, owner)


class PromptCacheTracker:
    """Model of one backend's prompt cache."""

    # The mutable state is the number of prefixes and, by owner, the last time that each prefix was
    # answered, in that order, and the sums of cached tokens that were predicted and reported.

    def __init__(self, *, keeps_s: float, most: int = BEGINNINGS_MAX) -> None:
        """`keeps_s`: how long the server caches an unused prompt."""
        self._keeps_s = keeps_s
        self._most = most
        self._seen: dict[Hashable, dict[int, float]] = {}
        self._sums: dict[Hashable, tuple[float, float]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def revise(self, *, keeps_s: float) -> None:
        """Change how long the server caches prompts."""
        self._keeps_s = keeps_s

    def covers(self, asked: Prompt, now_s: float) -> float:
        """Return the share of a prompt, in [0, 1], that an answered prefix covers."""
        since_s = now_s - self._keeps_s
        seen = self._seen.get(asked.owner)
        if not seen:
            return 0.0
        for place in range(len(asked.keys) - 1, -1, -1):
            if seen.get(asked.keys[place], NEVER) > since_s:
                return asked.chars[place] / (asked.total_chars or 1)
        return 0.0

    def expects(self, asked: Prompt, now_s: float) -> float:
        """Return the share of a prompt, in [0, 1], that is expected to be charged as cached."""
        share = self.covers(asked, now_s)
        foreseen, cached = self._sums.get(asked.owner, PRIOR)
        return min(1.0, share * cached / foreseen) if share else 0.0

    def answered(self, asked: Prompt, usage: Usage | None, now_s: float) -> None:
        """Record an answered prompt and its reported cached tokens."""
        if usage is not None and usage.exact:
            foreseen = self.covers(asked, now_s) * usage.input_tokens
            if foreseen:
                self.learn(foreseen, usage.cached_input_tokens, asked.owner)
        self.saw(asked, now_s)

    def saw(self, asked: Prompt, now_s: float) -> None:
        """Record an answered prompt."""
        keys, seen = asked.keys, self._seen.setdefault(asked.owner, {})
        self._count -= len(seen)
        for key in keys if len(keys) <= FIRST + LAST else keys[:FIRST] + keys[-LAST:]:
            seen.pop(key, None)  # reinsert at the end: the oldest entries are dropped first
            seen[key] = now_s
        self._count += len(seen)
        while self._count > self._most:
            largest = max(self._seen.values(), key=len)
            del largest[next(iter(largest))]
            self._count -= 1

    def learn(self, foreseen_tokens: float, found_tokens: float, owner: Hashable = "") -> None:
        """Learn from a call's predicted and reported cached tokens."""
        foreseen, cached = self._sums.get(owner, PRIOR)
        self._sums[owner] = foreseen * FORGET + foreseen_tokens, cached * FORGET + found_tokens
